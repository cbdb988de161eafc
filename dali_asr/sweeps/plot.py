"""A plot of a sweep: dev accuracy over the values of each varied key."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from dali_asr.sweeps.combinations import shown
from dali_asr.sweeps.results import short_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from dali_asr.sweeps.results import RunOutcome

_RUN, _MEAN = "#4c78a8", "#e4572e"
_COLUMNS = 3  # of panels
_MAX_LABEL = 14  # characters of a value below an axis
_MAX_NUMBERED = 12  # values whose labels fit below an axis


def draw_sweep(outcomes: Sequence[RunOutcome], picture: Path, title: str) -> None:
    """Plot the best dev accuracy of the runs as a PNG: a panel per varied key, or one of the seeds if none is varied.

    Each run is a point. The means over all runs with the same value are marked; a line joins them if the values are
    numbers, which have an order.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    scored = [found for found in outcomes if found.accuracy is not None]
    keys = list(outcomes[0].values) or ["training.seed"]
    rows = -(-len(keys) // _COLUMNS)
    columns = min(len(keys), _COLUMNS)
    figure = Figure(figsize=(1.5 + 3.6 * columns, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    names = short_names(keys)
    for axes, key in zip(panels, keys, strict=False):
        _draw_key(axes, [(found.values.get(key, found.seed), found.accuracy or 0.0) for found in scored])
        axes.set_xlabel(names[key])
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in panels[len(keys) :]:
        axes.remove()
    for axes in panels[: len(keys) : _COLUMNS]:
        axes.set_ylabel("best dev accuracy")
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(title, fontsize=11, parse_math=False)
    figure.savefig(picture, dpi=120)


def _draw_key(axes: Axes, points: Sequence[tuple[Any, float]]) -> None:
    """Draw the accuracies over the values of a key, which stand side by side, numbers in ascending order."""
    values = {shown(value): value for value, _ in points}
    ordered = all(map(_is_number, values))
    texts = sorted(values, key=lambda text: _as_number(text) or 0.0) if ordered else list(values)
    at = {text: position for position, text in enumerate(texts)}
    axes.plot([at[shown(v)] for v, _ in points], [a for _, a in points], "o", color=_RUN, alpha=0.6, label="run")
    means = [statistics.mean(a for v, a in points if shown(v) == text) for text in texts]
    axes.plot(
        range(len(texts)),
        means,
        "_-" if ordered else "_",
        color=_MEAN,
        markersize=16,
        label="mean of the runs with this value",
    )
    every = -(-len(texts) // _MAX_NUMBERED) if texts else 1
    labels = [text if len(text) <= _MAX_LABEL else f"{text[: _MAX_LABEL - 1]}…" for text in texts]
    turned = sum(map(len, labels[::every])) > 2 * _MAX_LABEL
    axes.set_xticks(range(0, len(texts), every), labels[::every], rotation=30 if turned else 0, parse_math=False)
    axes.margins(x=0.15)
    axes.grid(alpha=0.25)


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_number(text: str) -> bool:
    return _as_number(text) is not None
