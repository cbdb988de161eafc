"""`dali-asr compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dali_asr.cli.console import counting, say, show
from dali_asr.errors import printable

if TYPE_CHECKING:
    from dali_asr.reports.compare import Comparison

_MAX_VALUE = 24  # characters of a value of the configuration


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of two or more runs.", readable=False)],
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with curves too.", show_default=False)
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(help="A labelled partition. By default each run's `data.dev`.", show_default=False),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="A packed corpus, a course folder or `demo`. By default that which each run was trained on.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the page.")] = False,
) -> None:
    """Compare runs: scores, speed, curves, what differs in their configurations, and whether they differ at all.

    The best checkpoint of each run is evaluated, and every run is compared with the first one by a paired bootstrap
    over utterances.

    Examples:

        dali-asr compare runs/tiny runs/full

        dali-asr compare runs/* --partition dev-clean --html compared.html
    """  # noqa: D412
    from dali_asr.files import check_output
    from dali_asr.pretrained import find_pretrained
    from dali_asr.runs.run_path import check_run_folder

    if html:
        check_output(html, overwrite=force)
    for run in runs:  # before torch is imported, which takes seconds
        if not find_pretrained(run):
            check_run_folder(run.expanduser(), pretrained=False)
    with counting() as progress:
        progress("starting", 0, 1)
        from dali_asr.reports.compare import compare as compare_runs
        from dali_asr.reports.verdicts import METHOD, verdicts

        progress("starting", 1, 1)
        comparison = compare_runs(runs, corpus=corpus, partition=partition, device=device, progress=progress)
    _show_runs(comparison)
    _show_curves(comparison)
    _show_differing(comparison)
    say()
    for line in verdicts(comparison):
        say(line)
    if comparison.pairs:
        say(METHOD)
    if html:
        from dali_asr.reports.comparison_page import write_comparison

        write_comparison(comparison, html, overwrite=force)
        say(f"Page: {html}")


def _show_runs(comparison: Comparison) -> None:
    for run in comparison.runs:
        say(f"{run.letter}  {printable(run.record.shown)}, on {printable(run.evaluation.partition)}")
        if run.record.unfinished:
            say(f"   {run.record.unfinished}")
        for line in run.record.resumptions:
            say(f"   {printable(line)}")
    say()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    in_training = [_percent(run.record.best["dev"]["accuracy"] if run.record.best else None) for run in comparison.runs]
    accuracies = [_percent(run.evaluation.scores.accuracy) for run in comparison.runs]
    known = in_training == accuracies  # as the partition is the one that was evaluated in training
    for name in ("params", *([] if known else ["best dev"]), "accuracy", "PER", "frames/s", "stall", "epochs"):
        table.add_column(name, justify="right")
    for run, best, accuracy in zip(comparison.runs, in_training, accuracies, strict=True):
        record, scores = run.record, run.evaluation.scores
        speed = record.frames_per_second
        table.add_row(
            run.letter,
            f"{run.parameters:,}",
            *([] if known else [best]),
            accuracy,
            _percent(scores.phoneme_error_rate),
            "–" if speed is None else f"{speed:,.0f}",
            "–" if record.data_stall is None else f"{record.data_stall:.1%}",
            record.extent,
        )
    show(table)
    say(
        ("" if known else "best dev: the best dev accuracy in training; accuracy: of this evaluation; ")
        + "PER: phoneme error rate; stall: share of the training time that the run waited for data"
    )


def _show_curves(comparison: Comparison) -> None:
    from dali_asr.reports.plot import plot_text

    curves = {
        run.letter: [
            (line["epoch"], line["dev"]["accuracy"])
            for line in run.record.by_number
            if (line["dev"] or {}).get("accuracy") is not None
        ]
        for run in comparison.runs
    }
    if plot := plot_text(curves):
        say(f"\ndev frame accuracy by epoch\n{plot}")


def _show_differing(comparison: Comparison) -> None:
    if not comparison.differing:
        say("\nThe configurations are equal")
        return
    say("\nConfiguration")
    for key, values in comparison.differing.items():
        each = (f"{run.letter} {_short(value)}" for run, value in zip(comparison.runs, values, strict=True))
        say(f"  {key}: {', '.join(each)}")


def _short(value: str) -> str:
    text = printable(value)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 1]}…"


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{fraction:.2%}"
