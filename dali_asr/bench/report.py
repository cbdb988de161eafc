"""Results of a benchmark as tables and charts. Results are the JSON values that the benchmarks return."""

from __future__ import annotations

import io
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OURS, THEIRS, RIVAL = "#76b900", "#9a9a9a", "#4c78a8"
_ERRORS = {"ecolor": "#444444", "capsize": 2}  # of the lines from the slowest to the fastest repeat
_MIN_WIDTH = 7  # inches, for the title
_LOG_ABOVE = 50  # ratio of the fastest to the slowest loader
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

    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    if values["benchmark"] == "loader":
        _draw_loaders(figure, values["cases"])
    else:
        _draw_training(figure, values["results"])
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(_title(values), fontsize=11, parse_math=False)
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
    what = "Windows per second" if values["benchmark"] == "loader" else "Training"
    return f"{what}, {where}\nDALI {versions['nvidia-dali-cuda120']}, torch {versions['torch']}, {values['date'][:10]}"


def _case_title(case: dict[str, Any]) -> str:
    return f"batch {case['batch_size']:,}, {case['dtype']}, masks {'on' if case['masks'] else 'off'}"


def _draw_loaders(figure: Any, cases: list[dict[str, Any]]) -> None:
    """Draw a row per dtype and masks, on one scale, and a column per batch size."""
    batches = sorted({case["batch_size"] for case in cases})
    kinds = list(dict.fromkeys((case["dtype"], case["masks"]) for case in cases))
    bars = max(len(case["results"]) for case in cases)
    figure.set_size_inches(max(1.6 + 3.4 * len(batches), _MIN_WIDTH), 1.1 + (bars * 0.27 + 0.7) * len(kinds))
    figure.get_layout_engine().set(w_pad=0.12)  # inches, so that the numbers of neighbours do not touch
    panels = figure.subplots(len(kinds), len(batches), squeeze=False, sharex="row", sharey="row")
    for axes in panels.ravel():
        axes.axis("off")
    for case in cases:
        axes = panels[kinds.index((case["dtype"], case["masks"])), batches.index(case["batch_size"])]
        axes.axis("on")
        _draw_case(axes, case)
    for row in panels:
        _scale(row)
    figure.supxlabel("windows/s, thousands: median; lines: slowest to fastest repeat", fontsize=10)


def _draw_case(axes: Any, case: dict[str, Any]) -> None:
    results = case["results"]
    names = [r["name"] + (f" ({r['device']})" if r["device"] != "cpu" else "") for r in results]
    rates = [r["median"] / 1e3 for r in results]
    bars = axes.barh(names, rates, xerr=_errors(results, rates), color=[_color(r["name"]) for r in results], **_ERRORS)
    axes.bar_label(bars, [f"{r:,.0f}" for r in rates], padding=5, fontsize=9)
    axes.set_title(_case_title(case), fontsize=10)


def _errors(results: list[dict[str, Any]], rates: list[float]) -> list[list[float]]:
    """Return how far the slowest and the fastest repeat lie from the median, in thousands."""
    slowest = [rate - min(r["windows_per_second"]) / 1e3 for r, rate in zip(results, rates, strict=True)]
    fastest = [max(r["windows_per_second"]) / 1e3 - rate for r, rate in zip(results, rates, strict=True)]
    return [slowest, fastest]


def _scale(row: Sequence[Any]) -> None:
    """Scale a row of panels, which share their axes: logarithmic if the rates differ by more than a factor of 50."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    widths = [bar.get_width() for axes in row for bar in axes.patches]
    first, highest = row[0], max(widths)
    if highest > _LOG_ABOVE * min(widths):
        first.set_xscale("log")
        first.set_xlim(min(widths) / 2, highest * 6)
    else:
        first.set_xlim(0, highest * 1.38)
        for axes in row:
            axes.xaxis.set_major_locator(MaxNLocator(4))
    for axes in row:
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    first.invert_yaxis()


def _draw_training(figure: Any, results: list[dict[str, Any]]) -> None:
    """Draw the steps per second of each model, relative to the median of the bare loop, from min to max."""
    figure.set_size_inches(8.6, 1.3 + 1.1 * len(results))
    axes = figure.subplots()
    sides = {"fixed": ("bare: one fixed batch", THEIRS), "fed": ("fed: with the loader", RIVAL)}
    sides["trained"] = ("train: dali-asr train", OURS)
    for at, (side, (name, color)) in enumerate(sides.items()):
        percent = [[100 * rate / median(r["fixed"]) for rate in r[side]] for r in results]
        middle = [median(of) for of in percent]
        errors = [[m - min(of) for m, of in zip(middle, percent, strict=True)]]
        errors.append([max(of) - m for m, of in zip(middle, percent, strict=True)])
        places = [4 * row + at for row in range(len(results))]
        bars = axes.barh(places, middle, xerr=errors, color=color, label=name, height=0.9, **_ERRORS)
        axes.bar_label(bars, [f"{value:.1f}%" for value in middle], padding=5, fontsize=9)
    labels = [f"{r['model']}, batch {r['batch_size']:,}" for r in results]
    axes.set_yticks([4 * row + 1 for row in range(len(results))], labels)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel("steps/s, % of the median of bare; lines: slowest to fastest repeat")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _color(name: str) -> str:
    if name.startswith("dali"):
        return OURS
    return THEIRS if name.startswith("dataloader") else RIVAL
