"""`dali-asr bench`: measure the loader and training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from dali_asr.cli.commands import Commands, Overrides, complete_recipe
from dali_asr.cli.console import counting, say, show
from dali_asr.errors import UsageError

if TYPE_CHECKING:
    from dali_asr.config import Config
    from dali_asr.corpus import Corpus
    from dali_asr.corpus.packing import Progress as Report

app = typer.Typer(
    cls=Commands, no_args_is_help=True, rich_markup_mode="markdown", help="Measure the loader and training."
)

ConfigArgument = Annotated[
    str | None,
    typer.Argument(
        help="A recipe or YAML file that sets corpus, context and masks. By default synthetic frames.",
        show_default=False,
        autocompletion=complete_recipe,
    ),
]
Frames = Annotated[int, typer.Option(min=10_000, help="Number of synthetic frames.")]
Repeats = Annotated[int, typer.Option(min=1, help="Number of times that each contender is timed, in turn.")]
Seconds = Annotated[float, typer.Option(min=0.01, help="Minimum duration of each repeat.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write machine, versions and all repeats to this file.")]
TableFile = Annotated[Path | None, typer.Option("--table", help="Write Markdown tables to this file.")]
ChartFile = Annotated[Path | None, typer.Option("--chart", help="Draw a chart to this file, PNG or SVG.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the files.")]


@app.command()
def loader(
    config: ConfigArgument = None,
    overrides: Overrides = None,
    frames: Frames = 2_000_000,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(min=2, help="Windows per batch; repeat for more.", show_default="512, 4096, 16384"),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="Dtype of frames and windows; repeat for more.", show_default="float32, float16"),
    ] = None,
    workers: Annotated[
        list[int] | None,
        typer.Option(
            min=0, help="Workers of a DataLoader; repeat for more.", show_default="0, 2, 4, half the cores, all cores"
        ),
    ] = None,
    repeats: Repeats = 5,
    seconds: Seconds = 0.5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N, measured in addition to the CPU.")] = "auto",
    output: JsonFile = None,
    table: TableFile = None,
    chart: ChartFile = None,
    force: Force = False,
) -> None:
    """Compare the DALI loader with the loaders that people use today, in one run."""
    files = _Files(output, table, chart)
    files.check(overwrite=force)
    for name in dtype or ():
        if name not in ("float32", "float16"):
            raise UsageError(f"--dtype {name}; expected float32 or float16")
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.bench import bench_loader
        from dali_asr.device import describe_device, resolve_device
        from dali_asr.plan import Masking

        checked, corpus = _open(config, overrides, frames, report)
        partition = corpus.partition(*checked.data.train)
        report("starting", 1, 1)
        say(f"Measuring on the {describe_device(resolve_device(device))}")
        left, right = checked.loader.context
        values = bench_loader(
            partition,
            report,
            masking=checked.loader.masking or Masking(),
            context=(left, right),
            batch_sizes=batch_size or (512, 4096, 16384),
            dtypes=dtype or ("float32", "float16"),
            workers=workers,
            repeats=repeats,
            seconds=seconds,
            device=device,
        )
    say(
        f"{partition.frame_count:,} frames of {partition.feature_dim} features, windows of {left} + 1 + {right} "
        f"frames; median of {repeats} repeats"
    )
    for where, roof in values["copy_bandwidth"].items():
        say(f"A copy within {where} reads and writes {roof / 1e9:,.1f} GB/s")
    files.write(values)


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
        typer.Option(min=2, help="Windows per batch; repeat for more.", show_default="4096, on the CPU 512"),
    ] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"] | None,
        typer.Option(help="Precision of the matrix multiplications.", show_default="bf16, on the CPU fp32"),
    ] = None,
    repeats: Repeats = 5,
    seconds: Seconds = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    output: JsonFile = None,
    table: TableFile = None,
    chart: ChartFile = None,
    force: Force = False,
) -> None:
    """Compare training with a bare loop on one batch that stays on the device: the cost of loader and loop."""
    files = _Files(output, table, chart)
    files.check(overwrite=force)
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.bench import bench_train
        from dali_asr.device import describe_device, resolve_device
        from dali_asr.model import PRESETS

        for name in model or ():
            if name not in PRESETS:
                raise UsageError(f"--model {name}; expected {' or '.join(PRESETS)}")
        where = resolve_device(device)
        on_gpu = where.type == "cuda"
        checked, corpus = _open(config, overrides, frames, report)
        precision = precision or ("bf16" if on_gpu else "fp32")
        report("starting", 1, 1)
        say(f"Measuring on the {describe_device(where)}, {precision}")
        values = bench_train(
            corpus,
            checked,
            report,
            models=model or tuple(PRESETS),
            batch_sizes=batch_size or (4096 if on_gpu else 512,),
            precision=precision,
            repeats=repeats,
            seconds=seconds,
            device=device,
        )
    files.write(values)


@dataclass(frozen=True)
class _Files:
    """The files to write results to."""

    json: Path | None
    table: Path | None
    chart: Path | None

    def check(self, *, overwrite: bool) -> None:
        """Check that the files can be written, before anything is measured."""
        from dali_asr.files import check_output

        for path in (self.json, self.table, self.chart):
            if path:
                check_output(path, overwrite=overwrite)
        if self.chart and self.chart.suffix not in (".png", ".svg"):
            raise UsageError(f"--chart {self.chart}: charts are .png or .svg; choose such a name")

    def write(self, values: dict[str, Any]) -> None:
        """Print the results and write them to the files."""
        from dali_asr.bench.report import LEGENDS, draw_chart, tables, to_markdown
        from dali_asr.files import disk_errors, write_file

        for found in tables(values):
            shown = Table(
                title=found.title and f"\n{found.title}",
                title_justify="left",
                title_style="bold",
                box=None,
                pad_edge=False,
                header_style="bold",
            )
            for column in found.columns:
                shown.add_column(column, justify="left" if column in found.left else "right")
            for row in found.rows:
                shown.add_row(*row)
            show(shown)
        for line in LEGENDS[values["benchmark"]]:
            say(line)
        for path in (self.json, self.table, self.chart):
            if not path:
                continue
            if path == self.chart:
                content = draw_chart(values, path.suffix[1:])
            else:
                content = (json.dumps(values, indent=1) + "\n" if path == self.json else to_markdown(values)).encode()
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, content)
            say(f"Written to {path}")


def _open(config: str | None, overrides: list[str] | None, frames: int, report: Report) -> tuple[Config, Corpus]:
    """Return the configuration and its corpus; without one, synthetic frames with the default masks."""
    from dali_asr.bench import synthetic_corpus
    from dali_asr.build import open_corpus
    from dali_asr.config import Config

    if config or overrides:
        checked = Config.load(config, overrides or ())
        return checked, open_corpus(checked.data, report)
    return Config.check({"data": {"train": ["all"]}, "loader": {"masking": {}}}), synthetic_corpus(frames)
