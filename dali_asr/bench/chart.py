"""The results of a benchmark, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

OURS, THEIRS, RIVAL = "#76b900", "#9a9a9a", "#4c78a8"


def draw_chart(values: dict[str, Any], picture: Path) -> None:
    """Draw the windows per second of each loader as bars, a panel a case; PNG or SVG by the name.

    Args:
        values: as `bench loader --json` writes them.
        picture: the file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases = values["cases"]
    rows = -(-len(cases) // 2)
    figure = Figure(figsize=(10, 0.6 + 3.1 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, min(2, len(cases)), squeeze=False, sharex=True).ravel()
    for axes, case in zip(panels, cases, strict=False):
        _panel(axes, case)
    for axes in panels[len(cases) :]:
        axes.axis("off")
    machine = values["machine"]
    where = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores, no GPU"
    versions = values["packages"]
    figure.suptitle(
        f"Context windows per second, thousands, {where}\n"
        f"DALI {versions['nvidia-dali-cuda120']}, torch {versions['torch']}, {values['date'][:10]}",
        fontsize=11,
    )
    figure.savefig(picture, dpi=120)


def _panel(axes: Any, case: dict[str, Any]) -> None:
    results = [r for r in case["results"] if r["compared"]][::-1]
    names = [r["name"] + (f" ({r['device']})" if r["device"] != "cpu" else "") for r in results]
    rates = [r["median"] / 1e3 for r in results]
    errors = [r["spread"] * rate for r, rate in zip(results, rates, strict=True)]
    bars = axes.barh(names, rates, xerr=errors, color=[_color(r["name"]) for r in results], ecolor="#555555")
    axes.bar_label(bars, [f"{r:,.0f}" for r in rates], padding=6, fontsize=9)
    axes.set_title(f"batch {case['batch_size']:,}, masks {'on' if case['masks'] else 'off'}", fontsize=10)
    axes.margins(x=0.18)
    axes.spines[["top", "right"]].set_visible(False)


def _color(name: str) -> str:
    if name.startswith("dali"):
        return OURS
    return THEIRS if name.startswith("dataloader") else RIVAL
