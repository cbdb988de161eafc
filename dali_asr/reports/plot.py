"""Curves as text, for a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_AXIS = 8  # columns for the numbers on the left, with the line
SHARED = "*"


def plot_text(curves: Mapping[str, Sequence[tuple[float, float]]], *, width: int = 78, height: int = 14) -> str:
    """Plot fractions, each curve by its letter; where curves meet, a star.

    Args:
        curves: points `(x, y)` of each letter, x ascending and at least 0, y finite.
        width: columns of the plot.
        height: rows of the plot, without the axis below.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    columns = width - _AXIS
    last = max(max(x for x, _ in points), 1e-9)
    first = min(x for x, _ in points)
    first = first if first < last else 0.0
    low, high = min(y for _, y in points), max(y for _, y in points)
    if high - low < 1e-3:
        low, high = low - 1e-3, high + 1e-3
    canvas = np.full((height, columns), " ")
    for letter, curve in curves.items():
        _draw(canvas, letter, curve, (first, last), (low, high))
    lines = []
    for row in range(height):
        labelled = row in (0, height // 2, height - 1)
        value = high - (high - low) * row / (height - 1)
        lines.append(f"{value:6.1%} ┤{''.join(canvas[row])}" if labelled else f"{'':6} │{''.join(canvas[row])}")
    lines.append(f"{'':6} └{'─' * columns}")
    left, right = f"{first:g}", f"{last:g}"
    lines.append(f"{'':8}{left}{'epoch':^{columns - len(left) - len(right) - 1}}{right}")
    return "\n".join(line.rstrip() for line in lines)


def _draw(
    canvas: NDArray[np.str_],
    letter: str,
    curve: Sequence[tuple[float, float]],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> None:
    """Put a letter in each column that the curve crosses, at the curve's height."""
    if not curve:
        return
    height, columns = canvas.shape
    x, y = (np.array(values, np.float64) for values in zip(*curve, strict=True))
    at = (x - x_range[0]) / (x_range[1] - x_range[0]) * (columns - 1)
    for column in range(round(float(at[0])), round(float(at[-1])) + 1):
        value = float(np.interp(column, at, y))
        row = round((y_range[1] - value) / (y_range[1] - y_range[0]) * (height - 1))
        canvas[row, column] = letter if canvas[row, column] == " " else SHARED
