"""`dali-asr bench`."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from dali_asr.cli.console import counting, say, stdout
from dali_asr.errors import DataError, UsageError

if TYPE_CHECKING:
    from dali_asr.bench.loader import CaseResult
    from dali_asr.config import Config
    from dali_asr.corpus import Corpus
    from dali_asr.corpus.packing import Progress as Report

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Measure the loader.")

ConfigArgument = Annotated[
    str | None,
    typer.Argument(help="A recipe or YAML file, for corpus, context and masks. By default synthetic frames."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting; repeat for more."),
]
Frames = Annotated[int, typer.Option(min=10_000, help="How many synthetic frames.")]
Repeats = Annotated[int, typer.Option(min=1, help="Repeats of each, in turn.")]
Seconds = Annotated[float, typer.Option(min=0.01, help="Of each repeat, at least.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write machine, versions and all repeats here.")]
TableFile = Annotated[Path | None, typer.Option("--table", help="Write the results here, as a Markdown table.")]
ChartFile = Annotated[Path | None, typer.Option("--chart", help="Draw the results here, as PNG or SVG.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the files.")]


@app.callback()
def group() -> None:
    """Measure the loader."""


@app.command()
def loader(
    config: ConfigArgument = None,
    overrides: Overrides = None,
    frames: Frames = 2_000_000,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(min=2, help="Windows of a batch; repeat for more.", show_default="512, 4096, 16384"),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="Of frames and windows; repeat for more.", show_default="float32, float16"),
    ] = None,
    workers: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Of the DataLoaders; repeat for more.", show_default="0, 2, 4, half the cores, all"),
    ] = None,
    repeats: Repeats = 5,
    seconds: Seconds = 0.5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N, beside the CPU.")] = "auto",
    output: JsonFile = None,
    table: TableFile = None,
    chart: ChartFile = None,
    force: Force = False,
) -> None:
    """Time the DALI loader beside the loaders that people use today, in one run."""
    files = _Files(output, table, chart)
    files.check(overwrite=force)
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.bench import BenchSettings, bench_loader
        from dali_asr.bench.loader import to_json
        from dali_asr.device import describe_device, resolve_device
        from dali_asr.plan import Masking

        checked, corpus, names = _open(config, overrides, frames, report)
        partition = corpus.partition(*names)
        defaults = BenchSettings()
        settings = BenchSettings(
            context=checked.loader.context if checked else defaults.context,
            batch_sizes=tuple(batch_size or defaults.batch_sizes),
            dtypes=_dtypes(dtype) or defaults.dtypes,
            masking=(checked.loader.masking if checked else None) or Masking(),
            workers=tuple(workers or defaults.workers),
            repeats=repeats,
            seconds=seconds,
            device=device,
        )
        report("starting", 1, 1)
        say(f"Measuring on the {describe_device(resolve_device(device))}")
        results = bench_loader(partition, settings, report)
    left, right = settings.context
    say(
        f"{partition.frame_count:,} frames of {partition.feature_dim} features, windows of {left} + 1 + {right} "
        f"frames; median of {repeats} repeats, ± half their range"
    )
    for where, roof in results.roofs.items():
        say(f"A copy within {where} reads and writes {roof / 1e9:,.1f} GB/s")
    for case in results.cases:
        stdout.print(_table(case, results.roofs))
    say("× is the ratio to the DataLoader at its best worker count; roof: the share of the copy's bandwidth;")
    say("memory: what the loader says it takes of its device; unmodified: not the same windows")
    files.write(to_json(partition, settings, results))


@app.command()
def train(
    config: ConfigArgument = None,
    overrides: Overrides = None,
    frames: Frames = 2_000_000,
    model: Annotated[
        list[str] | None, typer.Option(help="tiny or full; repeat for more.", show_default="tiny, full")
    ] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(min=2, help="Windows of a batch; repeat for more.", show_default="4096, on the CPU 512"),
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"] | None,
        typer.Option(help="Of the matrix multiplications.", show_default="bf16, on the CPU fp32"),
    ] = None,
    repeats: Repeats = 5,
    seconds: Seconds = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    output: JsonFile = None,
    table: TableFile = None,
    chart: ChartFile = None,
    force: Force = False,
) -> None:
    """Time training beside a bare loop on one batch that stays on the device: what loader and loop cost."""
    files = _Files(output, table, chart)
    files.check(overwrite=force)
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.bench import TrainSettings, bench_train
        from dali_asr.bench.train import to_json
        from dali_asr.device import describe_device, resolve_device
        from dali_asr.model import PRESETS
        from dali_asr.plan import Masking

        for name in model or ():
            if name not in PRESETS:
                raise UsageError(f"--model {name}; expected {' or '.join(PRESETS)}")
        where = resolve_device(device)
        on_gpu = where.type == "cuda"
        checked, corpus, names = _open(config, overrides, frames, report)
        settings = TrainSettings(
            models=tuple(model or PRESETS),
            batch_sizes=tuple(batch_size or ((4096,) if on_gpu else (512,))),
            context=checked.loader.context if checked else (30, 30),
            masking=checked.loader.masking if checked else Masking(),
            precision=precision or ("bf16" if on_gpu else "fp32"),
            repeats=repeats,
            seconds=seconds,
            device=device,
        )
        report("starting", 1, 1)
        say(f"Measuring on the {describe_device(where)}, {settings.precision}")
        results = bench_train(corpus, names, settings, report)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("model", "batch", "steps/s, bare", "fed", "train", "data stall", "overhead", "frames/s", "roof")
    for name in columns:
        shown.add_column(name, justify="left" if name == "model" else "right")
    for r in results:
        steps = (f"{statistics.median(rates):,.2f}" for rates in (r.fixed, r.fed, r.trained))
        shares = (f"{r.stall:.1%}", f"{r.overhead:.1%}", f"{r.frames_per_second:,.0f}", f"{r.share_of_roof:.0%}")
        shown.add_row(r.model, f"{r.batch_size:,}", *steps, *shares)
    stdout.print(shown)
    say("bare: a loop of forward, backward, step on one batch; fed: the same with the loader; train: dali-asr train")
    say("data stall: how far fed falls behind bare; overhead: what a step of train takes over one of bare;")
    say("roof: share of the speed of a large matrix multiplication that train reaches")
    files.write(to_json(corpus.partition(*names), settings, results))


@dataclass(frozen=True)
class _Files:
    """Where results are written, beside the terminal."""

    json: Path | None
    table: Path | None
    chart: Path | None

    def check(self, *, overwrite: bool) -> None:
        """Check that they can be written, before anything is measured."""
        from dali_asr.files import check_output

        for path in (self.json, self.table, self.chart):
            if path:
                check_output(path, overwrite=overwrite)
        if self.chart and self.chart.suffix not in (".png", ".svg"):
            raise UsageError(f"--chart {self.chart}: charts are drawn as .png or .svg; choose such a name")

    def write(self, values: dict[str, Any]) -> None:
        """Write results."""
        from dali_asr.bench.report import draw_chart, to_markdown

        for path in (self.json, self.table, self.chart):
            if not path:
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if path == self.chart:
                    draw_chart(values, path)
                else:
                    text = json.dumps(values, indent=1) + "\n" if path == self.json else to_markdown(values)
                    path.write_text(text, encoding="utf-8")
            except OSError as error:
                raise DataError(f"{path}: {error.strerror}; choose another place") from error
            say(f"Written to {path}")


def _open(
    config: str | None, overrides: list[str] | None, frames: int, report: Report
) -> tuple[Config | None, Corpus, tuple[str, ...]]:
    """Return the configuration, where one is given, its corpus and training partitions; or synthetic frames."""
    from dali_asr.bench import synthetic_corpus
    from dali_asr.build import open_corpus
    from dali_asr.config import Config

    if not (config or overrides):
        return None, synthetic_corpus(frames), ("all",)
    checked = Config.load(config, overrides or ())
    return checked, open_corpus(checked.data, report), checked.data.train


def _dtypes(names: list[str] | None) -> tuple[str, ...]:
    for name in names or ():
        if name not in ("float32", "float16"):
            raise UsageError(f"--dtype {name}; expected float32 or float16")
    return tuple(names or ())


def _table(case: CaseResult, roofs: dict[str, float]) -> Table:
    table = Table(
        title=f"\nbatch {case.batch_size:,}, {case.dtype}, masks {'on' if case.masks else 'off'}",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    table.add_column("loader")
    table.add_column("device")
    for name in ("windows/s", "±", "GB/s", "roof", "×", "memory"):
        table.add_column(name, justify="right")
    for result in case.results:
        table.add_row(
            result.name,
            result.device,
            f"{result.median:,.0f}",
            f"{result.spread:.0%}",
            f"{result.gigabytes_per_second:.2f}",
            f"{result.share(roofs[result.device]):.0%}",
            f"{result.median / case.dataloader:.2f}",
            f"{result.memory / 2**20:,.0f} MiB" if result.memory else "",
        )
    return table
