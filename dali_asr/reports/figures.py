"""The pictures of a report: curves, and posteriorgrams with true and given labels."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dali_asr.corpus.partition import FRAME_PERIOD
from dali_asr.errors import printable
from dali_asr.inference.pictures import phonetic_order
from dali_asr.reports.svg import FAINT, INK, SERIES, figure_style, inline_svg
from dali_asr.runs.curves import draw_panel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from dali_asr.reports.examples import Example

_MIN_POSTERIOR = 0.25  # that a symbol reaches somewhere to have a row
_MAX_ROWS = 60
_MAX_STEPS = 1000  # readings of a curve: more cannot be seen, and would fill the page
_LEVELS = 32  # of shades, so that pictures stay small
_INCHES = 2 / 96  # per frame: two pixels
_LETTER = 4.2  # frames per letter of a label
_WRONG = SERIES[1]


def draw_metric(name: Literal["loss", "accuracy"], lines: Sequence[dict[str, Any]]) -> Markup:
    """Draw a metric of the lines of `metrics.jsonl`."""
    from matplotlib.figure import Figure

    with figure_style():
        figure = Figure(figsize=(4.6, 3.7), layout="constrained")
        axes = figure.subplots()
        draw_panel(axes, name, thinned(lines))
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        return inline_svg(figure, f"Curves of {name} over steps; the table below has the values of each epoch")


def thinned(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`, those of steps averaged in groups so that at most 1,000 are left."""
    steps = [line for line in lines if line["kind"] == "step"]
    every = -(-len(steps) // _MAX_STEPS)
    groups = [steps[at : at + every] for at in range(0, len(steps), every)] if every > 1 else [[s] for s in steps]
    means = [group[-1] | {name: _mean([s[name] for s in group]) for name in ("loss", "accuracy")} for group in groups]
    return means + [line for line in lines if line["kind"] == "epoch"]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def draw_posteriorgram(example: Example, symbols: Sequence[str]) -> Markup:
    """Draw the posteriors of an utterance, with strips of its true and of the predicted labels above.

    Rows are the symbols that occur or that reach a posterior of 0.25. The true label is outlined in each frame, and
    wrong predictions are marked in the second strip.
    """
    from matplotlib.figure import Figure

    rows = _rows(example, symbols)
    frames = len(example.true)
    width, height = max(frames * _INCHES, 2.0), 0.15 * len(rows)
    left, right, above, below = 0.75, 0.25, 0.6, 0.55
    size = (left + width + right, above + height + below)
    with figure_style():
        figure = Figure(figsize=size)
        area = (left / size[0], below / size[1], width / size[0], height / size[1])
        axes = figure.add_axes(area)
        _draw_posteriors(axes, example, rows, symbols)
        strips = figure.add_axes((area[0], area[1] + area[3] + 0.05 / size[1], area[2], (above - 0.1) / size[1]))
        strips.set(xlim=(0, frames), ylim=(0, 2), xticks=[], yticks=[0.5, 1.5], yticklabels=["given", "true"])
        strips.tick_params(length=0, labelsize=8)
        right_frames = (example.predicted == example.true) | (example.true < 0)
        _draw_strip(strips, 1.0, example.true, symbols, np.ones(frames, np.bool_))
        _draw_strip(strips, 0.0, example.predicted, symbols, right_frames)
        label = f"Posteriorgram of {printable(example.name)}, frame accuracy {example.accuracy:.1%}"
        return inline_svg(figure, label)


def _rows(example: Example, symbols: Sequence[str]) -> NDArray[np.int64]:
    """Return the labels that have rows, in phonetic order."""
    peaks = example.posteriors.max(axis=0)
    peaks[np.unique(example.true[example.true >= 0])] = 2
    shown = np.sort(np.argsort(-peaks, kind="stable")[:_MAX_ROWS])
    shown = shown[peaks[shown] >= _MIN_POSTERIOR]
    return np.asarray(shown[phonetic_order([symbols[label] for label in shown])], np.int64)


def _draw_posteriors(axes: Axes, example: Example, rows: NDArray[np.int64], symbols: Sequence[str]) -> None:
    from matplotlib.collections import PolyCollection

    frames = len(example.true)
    shades = np.zeros((len(rows), frames, 4), np.uint8)
    shades[..., :3] = (76, 135, 205)  # reads on light and dark
    shades[..., 3] = np.round(np.round(example.posteriors.T[rows] * _LEVELS) * (255 / _LEVELS))
    axes.imshow(shades, extent=(0, frames, len(rows), 0), aspect="auto", interpolation="none")
    at = {label: row for row, label in enumerate(rows.tolist())}
    outlines = [
        [(first, at[label]), (end, at[label]), (end, at[label] + 1), (first, at[label] + 1)]
        for first, end, label in _segments(example.true)
        if label in at
    ]
    axes.add_collection(PolyCollection(outlines, facecolors="none", edgecolors=INK, linewidths=0.7))
    axes.set_yticks(np.arange(len(rows)) + 0.5, [_name(symbols[label]) for label in rows], fontsize=7)
    axes.tick_params(axis="y", length=0)
    second = round(1 / FRAME_PERIOD)
    ticks = np.arange(0, frames + 1, second // 2)
    axes.set_xticks(ticks, [f"{tick / second:g}" for tick in ticks], fontsize=8)
    axes.set_xlabel("seconds", fontsize=8)
    axes.set(xlim=(0, frames), ylim=(len(rows), 0))


def _draw_strip(
    axes: Axes, bottom: float, labels: NDArray[np.int64], symbols: Sequence[str], right: NDArray[np.bool_]
) -> None:
    """Draw segments of equal labels, named where there is room; under wrong frames is a bar."""
    from matplotlib.patches import Rectangle

    segments = _segments(labels)
    axes.vlines([first for first, _, _ in segments], bottom, bottom + 1, color=FAINT, linewidth=0.4)
    for first, end, label in segments:
        text = _name(symbols[label]) if label >= 0 else ""
        if text and len(text) * _LETTER <= end - first:
            axes.text((first + end) / 2, bottom + 0.55, text, fontsize=7, ha="center", va="center")
    for first, end, is_right in _segments(right.astype(np.int64)):
        if not is_right:
            axes.add_patch(Rectangle((first, bottom + 0.03), end - first, 0.14, facecolor=_WRONG))
    axes.axhline(bottom, color=FAINT, linewidth=0.4)


def _segments(labels: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Return first frame, end and label of each run of equal labels."""
    starts = np.flatnonzero(np.diff(labels, prepend=labels[0] - 1)) if len(labels) else np.empty(0, np.int64)
    return [(a, b, int(labels[a])) for a, b in pairwise([*starts.tolist(), len(labels)])]


def _name(symbol: str) -> str:
    return printable(symbol).replace("$", r"\$")
