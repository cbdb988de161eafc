"""The curves of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dali_asr.reports.svg import figure_style, inline_svg
from dali_asr.runs.curves import draw_panel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

_MAX_STEPS = 1000  # readings of a curve: more cannot be seen, and would fill the page


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
