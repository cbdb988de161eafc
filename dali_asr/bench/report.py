"""Results of a benchmark as tables and charts. Results are the JSON values that the benchmarks return."""

from __future__ import annotations

import io
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OURS, THEIRS, RIVAL = "#76b900", "#9a9a9a", "#4c78a8"
_LOADER_COLUMNS = ("loader", "device", "windows/s", "±", "GB/s", "roof", "×", "memory")
_TRAIN_COLUMNS = (
    *("model", "parameters", "batch", "graph", "steps/s, bare", "fed", "train"),
    *("data stall", "overhead", "frames/s", "roof"),
)
LEGENDS = {
    "loader": (
        "±: half the range of the repeats. ×: ratio to the DataLoader at its best worker count.",
        "roof: fraction of the bandwidth of a copy within the device. memory: what the loader reports to use of it.",
    ),
    "train": (
        "bare: forward, backward and step on one fixed batch. fed: the same with the loader. train: dali-asr train.",
        "data stall: how much slower fed is than bare. overhead: extra time of a step of train, relative to bare.",
        "roof: fraction of the speed of a large matrix multiplication that train reaches.",
    ),
}


@dataclass(frozen=True)
class Table:
    """A table of texts; the columns named in `left` are aligned to the left, the others to the right."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    left: tuple[str, ...] = ("loader", "device", "model", "graph")


def tables(values: dict[str, Any]) -> list[Table]:
    """Return the results as tables: one per case of `bench loader`, one of `bench train`."""
    if values["benchmark"] == "train":
        return [Table("", _TRAIN_COLUMNS, [_train_row(result) for result in values["results"]])]
    return [Table(_case_title(c), _LOADER_COLUMNS, [_loader_row(r) for r in c["results"]]) for c in values["cases"]]


def to_markdown(values: dict[str, Any]) -> str:
    """Return the results as a Markdown document."""
    lines = [_title(values).replace("\n", ". ") + f". Python {values['python']}, CUDA {values['cuda']}."]
    for device, rate in values.get("copy_bandwidth", {}).items():
        lines.append(f"A copy within {device} reads and writes {rate / 1e9:,.1f} GB/s.")
    lines += LEGENDS[values["benchmark"]]
    for table in tables(values):
        lines += ["", *([table.title, ""] if table.title else []), *_markdown_lines(table)]
    return "\n".join(lines) + "\n"


def draw_chart(values: dict[str, Any], form: str) -> bytes:
    """Draw the results as `png` or `svg`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    of_loader = values["benchmark"] == "loader"
    panels = values["cases"] if of_loader else [values["results"]]
    columns = min(3 if len(panels) > 4 else 2, len(panels))
    rows = -(-len(panels) // columns)
    bars = max(len(panel["results"]) if of_loader else 4 * len(panel) for panel in panels)
    figure = Figure(figsize=(5.2 * columns if of_loader else 8, 0.7 + (bars * 0.27 + 0.9) * rows), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(places, panels, strict=False):
        _draw_case(axes, panel) if of_loader else _draw_training(axes, panel)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in places[len(panels) :]:
        axes.axis("off")
    figure.suptitle(_title(values), fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format=form, dpi=110)
    return picture.getvalue()


def _loader_row(r: dict[str, Any]) -> tuple[str, ...]:
    return (
        r["name"],
        r["device"],
        f"{r['median']:,.0f}",
        f"{r['spread']:.0%}",
        f"{r['gigabytes_per_second']:.2f}",
        f"{r['share_of_copy_bandwidth']:.1%}",
        f"{r['ratio_to_dataloader']:.2f}",
        f"{r['memory'] / 2**20:,.0f} MiB" if r["memory"] else "",
    )


def _train_row(r: dict[str, Any]) -> tuple[str, ...]:
    return (
        r["model"],
        f"{r['parameters']:,}",
        f"{r['batch_size']:,}",
        r["graph"],
        *(f"{median(r[way]):,.2f}" for way in ("fixed", "fed", "trained")),
        f"{r['stall']:.1%}",
        f"{r['overhead']:.1%}",
        f"{r['frames_per_second']:,.0f}",
        f"{r['share_of_roof']:.0%} of {r['roof'] / 1e12:.2f} TFLOP/s",
    )


def _markdown_lines(table: Table) -> Iterator[str]:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    yield line(table.columns)
    yield line(["---" if column in table.left else "---:" for column in table.columns])
    for row in table.rows:
        yield line(row)


def _title(values: dict[str, Any]) -> str:
    machine, versions = values["machine"], values["packages"]
    cores = f"{machine['processor']}, {machine['cores']} cores"
    where = f"{machine['gpu']}, {cores}" if machine["gpu"] else f"{cores}, no GPU"
    what = "Context windows per second, thousands" if values["benchmark"] == "loader" else "Training"
    return f"{what}, {where}\nDALI {versions['nvidia-dali-cuda120']}, torch {versions['torch']}, {values['date'][:10]}"


def _case_title(case: dict[str, Any]) -> str:
    return f"batch {case['batch_size']:,}, {case['dtype']}, masks {'on' if case['masks'] else 'off'}"


def _draw_case(axes: Any, case: dict[str, Any]) -> None:
    results = case["results"][::-1]
    names = [r["name"] + (f" ({r['device']})" if r["device"] != "cpu" else "") for r in results]
    rates = [r["median"] / 1e3 for r in results]
    errors = [r["spread"] * rate for r, rate in zip(results, rates, strict=True)]
    bars = axes.barh(names, rates, xerr=errors, color=[_color(r["name"]) for r in results], ecolor="#555555")
    axes.bar_label(bars, [f"{r:,.0f}" for r in rates], padding=6, fontsize=9)
    if max(rates) > 50 * min(rates):
        axes.set_xscale("log")
    axes.set_title(_case_title(case), fontsize=10)
    axes.margins(x=0.18)


def _draw_training(axes: Any, results: list[dict[str, Any]]) -> None:
    """Draw the steps per second of each model, relative to the bare loop."""
    sides = {"fixed": ("bare loop, fixed batch", THEIRS), "fed": ("with the loader", RIVAL), "trained": ("train", OURS)}
    for at, (side, (name, color)) in enumerate(sides.items()):
        percent = [100 * median(r[side]) / median(r["fixed"]) for r in results]
        bars = axes.barh([4 * row + at for row in range(len(results))], percent, color=color, label=name, height=0.9)
        axes.bar_label(bars, [f"{value:.1f}%" for value in percent], padding=4, fontsize=9)
    labels = [f"{r['model']}, {r['batch_size']:,}" for r in results]
    axes.set_yticks([4 * row + 1 for row in range(len(results))], labels)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel("steps per second, % of the bare loop")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _color(name: str) -> str:
    if name.startswith("dali"):
        return OURS
    return THEIRS if name.startswith("dataloader") else RIVAL
