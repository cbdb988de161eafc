"""The results of a benchmark, as the JSON values that it writes, drawn and as a Markdown table."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

OURS, THEIRS, RIVAL = "#76b900", "#9a9a9a", "#4c78a8"


def draw_chart(values: dict[str, Any], picture: Path) -> None:
    """Draw results; PNG or SVG by the name.

    Args:
        values: as `bench loader --json` and `bench train --json` write them.
        picture: the file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = values["cases"] if values["benchmark"] == "loader" else [values["results"]]
    columns = min(3 if len(panels) > 4 else 2, len(panels))
    rows = -(-len(panels) // columns)
    tall = max(_bar_count(panel) for panel in panels) * 0.27 + 0.9
    wide = 5.2 * columns if values["benchmark"] == "loader" else 8
    figure = Figure(figsize=(wide, 0.7 + tall * rows), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(places, panels, strict=False):
        _draw_case(axes, panel) if values["benchmark"] == "loader" else _draw_training(axes, panel)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in places[len(panels) :]:
        axes.axis("off")
    figure.suptitle(_title(values), fontsize=11)
    figure.savefig(picture, dpi=110)


def to_markdown(values: dict[str, Any]) -> str:
    """Return results as a Markdown document of one table.

    Args:
        values: as `bench loader --json` and `bench train --json` write them.
    """
    lines = [_title(values).replace("\n", ". ") + f". Python {values['python']}, CUDA {values['cuda']}.", ""]
    if values["benchmark"] == "train":
        lines += [
            "| model | parameters | batch | graph | steps/s, bare | fed | train | data stall | overhead | frames/s "
            "| of the matrix roof |"
        ]
        lines += ["| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
        for result in values["results"]:
            cells = (result["model"], f"{result['parameters']:,}", f"{result['batch_size']:,}", result["graph"])
            steps = (f"{statistics.median(result[side]):,.1f}" for side in ("fixed", "fed", "trained"))
            shares = (f"{result['stall']:.1%}", f"{result['overhead']:.1%}", f"{result['frames_per_second']:,.0f}")
            roof = f"{result['share_of_roof']:.0%} of {result['roof'] / 1e12:.2f} TFLOP/s"
            lines.append(f"| {' | '.join((*cells, *steps, *shares, roof))} |")
        return "\n".join(lines) + "\n"
    roofs = ", ".join(f"{device} {rate / 1e9:,.1f} GB/s" for device, rate in values["copy_bandwidth"].items())
    lines += [f"Copy within the device, read and written: {roofs}.", ""]
    lines += [
        "| batch | dtype | masks | loader | device | windows/s | ± | × DataLoader | of the copy | device memory |"
    ]
    lines += ["| ---: | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for case in values["cases"]:
        masks = "on" if case["masks"] else "off"
        for r in case["results"]:
            memory = f"{r['memory'] / 2**20:,.0f} MiB" if r["memory"] else ""
            first = (f"{case['batch_size']:,}", case["dtype"], masks, r["name"], r["device"], f"{r['median']:,.0f}")
            rest = (
                f"{r['spread']:.0%}",
                f"{r['ratio_to_dataloader']:.2f}",
                f"{r['share_of_copy_bandwidth']:.1%}",
                memory,
            )
            lines.append(f"| {' | '.join(first + rest)} |")
    return "\n".join(lines) + "\n"


def _title(values: dict[str, Any]) -> str:
    machine, versions = values["machine"], values["packages"]
    cores = f"{machine['processor']}, {machine['cores']} cores"
    where = f"{machine['gpu']}, {cores}" if machine["gpu"] else f"{cores}, no GPU"
    what = "Context windows per second, thousands" if values["benchmark"] == "loader" else "Training"
    return f"{what}, {where}\nDALI {versions['nvidia-dali-cuda120']}, torch {versions['torch']}, {values['date'][:10]}"


def _bar_count(panel: Any) -> int:
    return sum(r["compared"] for r in panel["results"]) if isinstance(panel, dict) else 4 * len(panel)


def _draw_case(axes: Any, case: dict[str, Any]) -> None:
    results = [r for r in case["results"] if r["compared"]][::-1]
    names = [r["name"] + (f" ({r['device']})" if r["device"] != "cpu" else "") for r in results]
    rates = [r["median"] / 1e3 for r in results]
    errors = [r["spread"] * rate for r, rate in zip(results, rates, strict=True)]
    bars = axes.barh(names, rates, xerr=errors, color=[_color(r["name"]) for r in results], ecolor="#555555")
    axes.bar_label(bars, [f"{r:,.0f}" for r in rates], padding=6, fontsize=9)
    if max(rates) > 50 * min(rates):
        axes.set_xscale("log")
    masks = "on" if case["masks"] else "off"
    axes.set_title(f"batch {case['batch_size']:,}, {case['dtype']}, masks {masks}", fontsize=10)
    axes.margins(x=0.18)


def _draw_training(axes: Any, results: list[dict[str, Any]]) -> None:
    """Draw the steps a second of each model, as shares of those of the bare loop."""
    sides = {"fixed": ("bare loop, fixed batch", THEIRS), "fed": ("with the loader", RIVAL), "trained": ("train", OURS)}
    for at, (side, (name, color)) in enumerate(sides.items()):
        shares = [100 * statistics.median(r[side]) / statistics.median(r["fixed"]) for r in results]
        bars = axes.barh([4 * row + at for row in range(len(results))], shares, color=color, label=name, height=0.9)
        axes.bar_label(bars, [f"{share:.1f}%" for share in shares], padding=4, fontsize=9)
    axes.set_yticks(
        [4 * row + 1 for row in range(len(results))], [f"{r['model']}, {r['batch_size']:,}" for r in results]
    )
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel("steps per second, % of the bare loop")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _color(name: str) -> str:
    if name.startswith("dali"):
        return OURS
    return THEIRS if name.startswith("dataloader") else RIVAL
