"""Plots of a run's loss and accuracy."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

_TRAIN, _DEV, _BEST = "#4c78a8", "#e4572e", "#555555"
_MAX_NUMBERED = 12  # epochs whose numbers fit above a plot


def draw_curves(lines: Sequence[dict[str, Any]], picture: Path, title: str) -> None:
    """Plot the lines of `metrics.jsonl` as a PNG: loss on the left, accuracy on the right.

    The horizontal axis counts steps, so that an epoch cut short is as wide as its steps; the axis above numbers the
    epochs at their ends. The epoch with the best dev accuracy is marked.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    draw_panel(panels[0], "loss", lines)
    draw_panel(panels[1], "accuracy", lines)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(title, fontsize=11, parse_math=False)
    figure.savefig(picture, dpi=120)


def draw_panel(axes: Axes, name: Literal["loss", "accuracy"], lines: Sequence[dict[str, Any]]) -> None:
    """Plot a metric of the lines of `metrics.jsonl`, without a legend."""
    from matplotlib.ticker import PercentFormatter

    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    _draw_metric(axes, name, steps, epochs)
    _set_ticks(axes, steps, epochs)
    axes.set_ylabel("cross-entropy (nats)" if name == "loss" else "frame accuracy")
    if name == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_metric(axes: Axes, name: str, steps: Sequence[dict[str, Any]], epochs: Sequence[dict[str, Any]]) -> None:
    points, width = _means(name, steps)
    is_finer = len(points) > 1 and width <= epochs[0]["step"] if epochs else bool(points)
    if is_finer:  # otherwise the epochs say more
        style = "-" if len(points) > 1 else "."
        label = f"train, mean of {width:,} steps" if width > 1 else "train, by step"
        axes.plot(*zip(*points, strict=True), style, color=_TRAIN, alpha=0.6, linewidth=1, label=label)
    for partition, color in (("train", _TRAIN), ("dev", _DEV)):
        points = [(e["step"], e[partition][name]) for e in epochs if (e[partition] or {}).get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=color, markersize=4.5, label=f"{partition}, by epoch")
    if best := best_epoch(epochs):
        label = f"best dev accuracy: {best['dev']['accuracy']:.2%}, epoch {epoch_label(best)}"
        axes.axvline(best["step"], color=_BEST, linestyle=":", linewidth=1.2, zorder=1, label=label)
    axes.grid(alpha=0.25)


def _means(name: str, steps: Sequence[dict[str, Any]]) -> tuple[list[tuple[float, float]], int]:
    """Return the means of a metric over the steps since the line before, each at the middle of its steps.

    Returns:
        Points of step and mean, and the largest number of steps of a mean.
    """
    intervals = list(pairwise([0, *(line["step"] for line in steps)]))
    values = [line[name] for line in steps]
    points = [(sum(ends) / 2, value) for ends, value in zip(intervals, values, strict=True) if value is not None]
    return points, max((last - before for before, last in intervals), default=0)


def best_epoch(epochs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the first epoch with the highest dev accuracy; None if none was evaluated."""
    evaluated = [epoch for epoch in epochs if (epoch["dev"] or {}).get("accuracy") is not None]
    return max(evaluated, key=lambda epoch: epoch["dev"]["accuracy"], default=None)


def epoch_label(line: dict[str, Any]) -> str:
    """Return the number of the epoch of a line of `metrics.jsonl`; says so if `training.max_steps` cut it short."""
    return f"{line['epoch']}" if line.get("complete", True) else f"{line['epoch']} (cut short)"


def _set_ticks(axes: Axes, steps: Sequence[dict[str, Any]], epochs: Sequence[dict[str, Any]]) -> None:
    """Number the steps below from 0 to the last one, and the epochs above at their last steps."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    last = max((line["step"] for line in (*steps, *epochs)), default=1)
    axes.set_xlim(0, last * 1.03)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    every = -(-len(epochs) // _MAX_NUMBERED)
    numbered = [epoch for epoch in epochs if epoch["epoch"] % every == 0 and epoch.get("complete", True)]
    if not numbered:
        return
    above = axes.secondary_xaxis("top")
    above.set_xticks([epoch["step"] for epoch in numbered], [str(epoch["epoch"]) for epoch in numbered])
    above.set_xlabel("end of epoch", fontsize=9)
    above.tick_params(labelsize=8)
