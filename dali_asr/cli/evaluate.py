"""`dali-asr evaluate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from dali_asr.cli.console import counting, say, show
from dali_asr.cli.early import check_run, check_source
from dali_asr.errors import printable

if TYPE_CHECKING:
    from dali_asr.inference.evaluate import DecodingScores
    from dali_asr.inference.scores import Scores


def evaluate(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, or of a checkpoint in it; or `english-small`, the model in the package.",
            readable=False,
        ),
    ],
    source: Annotated[
        str | None,
        typer.Argument(
            help="A packed corpus, source files, a link (`data fetch`) or `demo`. By default what the run trained on.",
            show_default=False,
        ),
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(help="A labelled partition. By default the run's `data.dev`.", show_default=False),
    ] = None,
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Checkpoint to use.")] = "best",
    decode: Annotated[
        str,
        typer.Option(
            metavar="viterbi|median:K|none",
            help="The decoding to score in detail, as in `predict`. It is compared with none, median:5 and viterbi.",
        ),
    ] = "none",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Score a trained model on a labelled partition: accuracy, F1 per phoneme, phoneme error rate, calibration.

    Decodings of its posteriors are compared, with the errors of the boundaries between phonemes.

    Scores and a picture of the confusion matrix are written to the run's folder, where `handin` finds them; those of
    `english-small` to the current folder.

    Examples:

        dali-asr evaluate runs/demo-20260101-120000

        dali-asr evaluate RUN hw1p2 --partition dev-clean
    """  # noqa: D412
    check_run(run)
    if source:
        check_source(source, partition)
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.device import describe_device, resolve_device
        from dali_asr.inference.decoding import check_decoding
        from dali_asr.inference.evaluate import comparable_decodings, prepare_evaluation, score
        from dali_asr.inference.writers import write_evaluation
        from dali_asr.runs.checkpoint import output_folder, shown_name

        report("starting", 1, 1)
        check_decoding(decode)
        where = resolve_device(device)
        prepared = prepare_evaluation(run, source, partition=partition, checkpoint=checkpoint, packing=report)
        trained, opened, _ = prepared
        name = shown_name(run, trained)
        say(f"Evaluating {name} on {opened.name}, on the {describe_device(where)}")
        evaluation = score(
            *prepared,
            decode=decode,
            compared=comparable_decodings(trained),
            device=device,
            progress=lambda done, total: report("evaluating", done, total),
        )
        values, picture = write_evaluation(replace(evaluation, checkpoint=name), output_folder(run))
    show(_symbol_table(evaluation.scores))
    silence = "silence" if evaluation.silence is None else printable(evaluation.inventory.symbols[evaluation.silence])
    show(_score_table(evaluation.scores, silence))
    show(_decoding_table(evaluation.decodings, silence))
    say(f"The first two tables score the decoding {decode}")
    say("The phoneme error rate is computed over segments (runs of equal labels); insertions can raise it above 100%")
    say("Boundary errors are measured at matched boundaries: those between two correctly predicted phonemes")
    say(f"Scores and confusion matrix: {values}")
    say(f"Picture of the matrix: {picture}")


def _symbol_table(scores: Scores) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("symbol")
    for name in ("frames", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    table.add_column("most often confused with")
    for symbol in scores.symbols:
        if symbol.frames:
            fractions = (_percent(value) for value in (symbol.precision, symbol.recall, symbol.f1))
            table.add_row(
                printable(symbol.symbol), f"{symbol.frames:,}", *fractions, printable(symbol.confused_with or "")
            )
    return table


def _score_table(scores: Scores, silence: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("", "")
    table.add_row("frames", f"{scores.frames:,}")
    for name, value in (
        ("frame accuracy", scores.accuracy),
        (f"frame accuracy without {silence}", scores.accuracy_without_silence),
        ("top-3 accuracy", scores.top3_accuracy),
        ("macro F1", scores.macro_f1),
        ("phoneme error rate", scores.phoneme_error_rate),
        (f"phoneme error rate without {silence}", scores.phoneme_error_rate_without_silence),
        ("expected calibration error", scores.calibration_error),
    ):
        table.add_row(name, _percent(value))
    return table


def _decoding_table(decodings: tuple[DecodingScores, ...], silence: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("\nby decoding")
    for one in decodings:
        table.add_column(f"\n{one.decode}", justify="right")
    found = [one.boundaries for one in decodings]
    for name, values in (
        ("frame accuracy", [_percent(one.accuracy) for one in decodings]),
        ("phoneme error rate", [_percent(one.phoneme_error_rate) for one in decodings]),
        (
            f"phoneme error rate without {silence}",
            [_percent(one.phoneme_error_rate_without_silence) for one in decodings],
        ),
        ("boundaries matched", [_percent(of.matched) for of in found]),
        ("mean boundary error", [_milliseconds(of.mean) for of in found]),
        ("median boundary error", [_milliseconds(of.median) for of in found]),
        ("boundaries within 10 ms", [_percent(of.within_10_ms) for of in found]),
        ("boundaries within 20 ms", [_percent(of.within_20_ms) for of in found]),
        ("boundaries within 50 ms", [_percent(of.within_50_ms) for of in found]),
    ):
        table.add_row(name, *values)
    return table


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1000 * seconds:.1f} ms"


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{fraction:.2%}"
