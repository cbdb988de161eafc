"""Plots of a run's loss and accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def draw_curves(epochs: Sequence[dict[str, Any]], picture: Path) -> None:
    """Plot the metrics of epochs as a PNG: loss on the left, accuracy on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for partition, style in (("train", "o--"), ("dev", "o-")):
            points = [(e["epoch"], e[partition][name]) for e in epochs if (e[partition] or {}).get(name) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=partition, markersize=4)
        axes.set_xlabel("epoch")
        axes.set_ylabel("cross-entropy (nats)" if name == "loss" else "frame accuracy")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.axes[1].yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.savefig(picture, dpi=120)
