"""The picture of a corpus: labels, lengths of utterances, and features of each partition."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.corpus.partition import FRAME_PERIOD
from dali_asr.errors import UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from dali_asr.corpus.survey import Survey

_FORMATS = ("png", "svg", "pdf")
_COLORS = ("#4c78a8", "#e4572e", "#54a24b", "#b279a2", "#eeca3b", "#72b7b2", "#9d755d", "#8a8a8a")
_MAX_BARS = 80  # symbols whose names are legible
_MAX_LEVEL = 12  # symbols whose names fit side by side without turning them
_MAX_NAME = 12  # characters
_MAX_MARKED = 60  # features that are marked by a point each
_LENGTH_BINS = 40


def picture_format(path: Path) -> str:
    """Return the format that a file's name asks for: `png`, `svg` or `pdf`.

    Raises:
        UsageError: none of them.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in _FORMATS:
        raise UsageError(f"{path}: no format for a picture; name a file that ends in .png, .svg or .pdf")
    return form


def draw_corpus(surveys: Sequence[Survey], title: str, form: str) -> bytes:
    """Draw the labels of partitions, and below them the lengths of utterances, and mean and deviation of each feature.

    Of more than 80 symbols that occur, the most frequent are drawn; of more than eight partitions, the first.

    Args:
        surveys: of the partitions.
        title: of the picture.
        form: `png`, `svg` or `pdf`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = surveys[: len(_COLORS)]
    more = f", the first {len(drawn)} of {len(surveys)} partitions" if len(drawn) < len(surveys) else ""
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3)
    _draw_labels(figure.add_subplot(grid[0, :]), drawn)
    _draw_lengths(figure.add_subplot(grid[1, 0]), drawn)
    means, spreads = (figure.add_subplot(grid[1, column]) for column in (1, 2))
    _draw_features(means, drawn, [found.mean for found in drawn], "mean")
    _draw_features(spreads, drawn, [found.deviation for found in drawn], "standard deviation")
    spread = max(float(found.deviation.max()) for found in drawn)
    low, high = means.get_ylim()
    means.set_ylim(min(low, -0.2 * spread), max(high, 0.2 * spread))  # not the rounding of means that are zero
    spreads.set_ylim(0, 1.15 * spread or 1)
    handles, labels = means.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(drawn), 4), frameon=False)
    figure.suptitle(_text(title, 100) + more, fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format=form, dpi=120)
    return picture.getvalue()


def _draw_labels(axes: Axes, surveys: Sequence[Survey]) -> None:
    """Draw the share of each symbol in the labelled frames of each partition, most frequent symbols first."""
    from matplotlib.ticker import PercentFormatter

    axes.set_title("labels", fontsize=10)
    shares = [found.counts / max(found.counts.sum(), 1) for found in surveys]
    total = np.sum(shares, axis=0)
    order = np.argsort(-total, kind="stable")[: np.count_nonzero(total)]
    if not len(order):
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no labels", transform=axes.transAxes, ha="center", va="center", color="#555555")
        return
    labelled = [at for at, found in enumerate(surveys) if found.counts.any()]
    width = 0.8 / len(labelled)
    places = np.arange(min(len(order), _MAX_BARS))
    for place, at in enumerate(labelled):
        left = places - 0.4 + width * (place + 0.5)
        axes.bar(left, shares[at][order[:_MAX_BARS]], width, color=_COLORS[at])
    symbols = [_text(surveys[0].inventory.symbols[label], _MAX_NAME) for label in order[:_MAX_BARS]]
    level = len(symbols) <= _MAX_LEVEL
    axes.set_xticks(places, symbols, rotation=0 if level else 90, fontsize=9 if level else 7)
    axes.set_xlim(-0.6, len(symbols) - 0.4)
    axes.set_ylabel("share of labelled frames")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.25, axis="y")
    axes.set_axisbelow(True)
    if len(symbols) < len(order):
        axes.set_title(f"labels: the {len(symbols)} most frequent of {len(order):,} that occur", fontsize=10)


def _draw_lengths(axes: Axes, surveys: Sequence[Survey]) -> None:
    """Draw how many of each partition's utterances are how long."""
    from matplotlib.ticker import PercentFormatter

    seconds = [found.lengths * FRAME_PERIOD for found in surveys]
    bins = np.linspace(0, max(float(some.max()) for some in seconds), _LENGTH_BINS + 1)
    for color, some in zip(_COLORS, seconds, strict=False):
        counts, _ = np.histogram(some, bins)
        axes.stairs(counts / len(some), bins, color=color, linewidth=1.3)
    axes.set_xlim(0, 1.02 * bins[-1])
    axes.set_ylim(bottom=0)
    axes.set_title("utterances by length", fontsize=10)
    axes.set_xlabel("seconds")
    axes.set_ylabel("share of utterances")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.25)


def _draw_features(axes: Axes, surveys: Sequence[Survey], values: Sequence[NDArray[np.float64]], name: str) -> None:
    """Draw a value of each feature, of each partition."""
    from matplotlib.ticker import MaxNLocator

    style = "o-" if len(values[0]) <= _MAX_MARKED else "-"
    for at, (found, some) in enumerate(zip(surveys, values, strict=True)):
        below = 3.2 * (1 - at / max(len(surveys) - 1, 1))  # wider, so that lines are seen that another one covers
        axes.plot(
            some, style, color=_COLORS[at], markersize=2.5 + below, linewidth=1.1 + below, label=_text(found.name)
        )
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_title(f"features: {name}", fontsize=10)
    axes.set_xlabel("feature")
    axes.grid(alpha=0.25)


def _text(text: str, longest: int = 30) -> str:
    """Return text as it is drawn: shortened in the middle, without control characters, and without formulas."""
    shown = printable(text)
    if len(shown) > longest:
        shown = f"{shown[: longest // 2]}…{shown[len(shown) - (longest - 1) // 2 :]}"
    return shown.replace("$", r"\$")
