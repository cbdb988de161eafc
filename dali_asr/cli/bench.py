"""`dali-asr bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from dali_asr.cli.console import counting, say, stdout
from dali_asr.errors import DataError, UsageError

if TYPE_CHECKING:
    from dali_asr.bench.loader import CaseResult

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Measure the loader.")


@app.callback()
def group() -> None:
    """Measure the loader."""


@app.command()
def loader(
    config: Annotated[
        str | None,
        typer.Argument(help="A recipe or YAML file, for corpus, context and masks. By default synthetic frames."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting; repeat for more."),
    ] = None,
    frames: Annotated[int, typer.Option(min=10_000, help="How many synthetic frames.")] = 2_000_000,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(min=2, help="Windows of a batch; repeat for more.", show_default="512, 4096"),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of each loader, in turn.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.01, help="Of each repeat, at least.")] = 0.5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N, beside the CPU.")] = "auto",
    output: Annotated[Path | None, typer.Option("--json", help="Write machine, versions and all repeats here.")] = None,
    chart: Annotated[Path | None, typer.Option("--chart", help="Draw the results here, as PNG or SVG.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files.")] = False,
) -> None:
    """Time the DALI loader beside the loaders that people use today, in one run."""
    from dali_asr.outputs import check_output

    for path in (output, chart):
        if path:
            check_output(path, overwrite=force)
    if chart and chart.suffix not in (".png", ".svg"):
        raise UsageError(f"--chart {chart}: charts are drawn as .png or .svg; choose such a name")
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.bench import BenchSettings, bench_loader, synthetic_partition, to_json
        from dali_asr.config import Config
        from dali_asr.loading import Masking, describe_device, resolve_device
        from dali_asr.training.build import build_masking, open_corpus

        settings = BenchSettings(repeats=repeats, seconds=seconds, device=device)
        batch_sizes = tuple(batch_size or settings.batch_sizes)
        checked = Config.load(config, overrides or ()) if config or overrides else None
        if checked:
            partition = open_corpus(checked.data, report).partition(*checked.data.train)
            context = checked.loader.context
            masking = build_masking(checked.loader.masking) or Masking()
            settings = BenchSettings(context, batch_sizes, masking, repeats=repeats, seconds=seconds, device=device)
        else:
            partition = synthetic_partition(frames)
            settings = BenchSettings(batch_sizes=batch_sizes, repeats=repeats, seconds=seconds, device=device)
        report("starting", 1, 1)
        say(f"Measuring on the {describe_device(resolve_device(device))}")
        cases = bench_loader(partition, settings, report)
    left, right = settings.context
    say(
        f"{partition.frame_count:,} frames of {partition.feature_dim} features, windows of {left} + 1 + {right} "
        f"frames; median of {repeats} repeats, ± half their range"
    )
    for case in cases:
        stdout.print(_table(case))
    say("× is the ratio to the DataLoader at its best worker count; unmodified: not the same windows")
    _write(to_json(partition, settings, cases), output, chart)


def _write(values: dict[str, Any], output: Path | None, chart: Path | None) -> None:
    from dali_asr.bench.chart import draw_chart

    for path in (output, chart):
        if not path:
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path == output:
                path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
            else:
                draw_chart(values, path)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; choose another place") from error
        say(f"Written to {path}")


def _table(case: CaseResult) -> Table:
    table = Table(
        title=f"\nbatch {case.batch_size:,}, masks {'on' if case.masks else 'off'}",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    table.add_column("loader")
    table.add_column("device")
    for name in ("windows/s", "±", "GB/s", "×"):
        table.add_column(name, justify="right")
    for result in case.results:
        table.add_row(
            result.name,
            result.device,
            f"{result.median:,.0f}",
            f"{result.spread:.0%}",
            f"{result.gigabytes_per_second:.2f}",
            f"{result.median / case.dataloader:.2f}",
        )
    return table
