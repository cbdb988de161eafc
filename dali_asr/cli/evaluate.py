"""`dali-asr evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dali_asr.cli.console import counting, say, stdout
from dali_asr.cli.predict import Which

if TYPE_CHECKING:
    from dali_asr.inference.scores import Scores


def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or of a checkpoint in it.")],
    source: Annotated[
        str | None,
        typer.Argument(
            help="A packed corpus, a course folder or `demo`. By default what the run was trained on.",
            show_default=False,
        ),
    ] = None,
    partition: Annotated[
        str | None, typer.Option(help="Of the corpus, labelled. By default the run's `data.dev`.", show_default=False)
    ] = None,
    checkpoint: Annotated[Which, typer.Option(help="Which checkpoint.")] = Which.best,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Score a trained model on a labelled partition: accuracy, F1 by phoneme, phoneme error rate, calibration.

    All scores and the confusion matrix are written to the run's folder, too, over those of an earlier evaluation.

    Examples:

        dali-asr evaluate runs/demo-20260101-120000

        dali-asr evaluate RUN hw1p2 --partition dev-clean
    """  # noqa: D412
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.device import describe_device, resolve_device
        from dali_asr.inference.evaluate import prepare_evaluation, score
        from dali_asr.inference.writers import write_evaluation
        from dali_asr.runs.checkpoint import run_of

        report("starting", 1, 1)
        where = resolve_device(device)
        trained, opened = prepare_evaluation(
            run, source, partition=partition, checkpoint=checkpoint.value, packing=report
        )
        say(f"Evaluating {trained.name} on {opened.name}, on the {describe_device(where)}")
        evaluation = score(
            trained, opened, device=device, progress=lambda done, total: report("evaluating", done, total)
        )
        values, picture = write_evaluation(evaluation, run_of(run))
    stdout.print(_symbol_table(evaluation.scores), markup=False)
    stdout.print(_score_table(evaluation.scores), markup=False)
    say("A phoneme error rate counts runs of equal labels, which are not smoothed; it may exceed 100%")
    say(f"Scores and confusion matrix written to {values}, drawn in {picture}")


def _symbol_table(scores: Scores) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("symbol")
    for name in ("frames", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    table.add_column("most often taken for")
    for symbol in scores.symbols:
        if symbol.frames:
            shares = (_percent(share) for share in (symbol.precision, symbol.recall, symbol.f1))
            table.add_row(symbol.symbol, f"{symbol.frames:,}", *shares, symbol.confused_with or "")
    return table


def _score_table(scores: Scores) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("", "")
    table.add_row("frames", f"{scores.frames:,}")
    for name, value in (
        ("frame accuracy", scores.accuracy),
        ("frame accuracy without [SIL]", scores.accuracy_without_silence),
        ("top-3 accuracy", scores.top3_accuracy),
        ("macro F1", scores.macro_f1),
        ("phoneme error rate", scores.phoneme_error_rate),
        ("phoneme error rate without [SIL]", scores.phoneme_error_rate_without_silence),
        ("expected calibration error", scores.calibration_error),
    ):
        table.add_row(name, _percent(value))
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"
