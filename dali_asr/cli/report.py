"""`dali-asr report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dali_asr.cli.console import counting, say, warn


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a checkpoint in it.", readable=False)],
    source: Annotated[
        str | None,
        typer.Argument(
            help="A packed corpus, a course folder or `demo`. By default the corpus that the run was trained on.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The page. By default `report-PARTITION.html` in the run's folder.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Checkpoint to evaluate.")] = "best",
    partition: Annotated[
        str | None,
        typer.Option(help="A labelled partition. By default the run's `data.dev`.", show_default=False),
    ] = None,
    recordings: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the corpus's recordings, if they are no longer where it was prepared from them.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the page.")] = False,
) -> None:
    """Write a page about a run that opens without a network.

    It shows curves, the confusion matrix, scores of each phoneme, speed, the configuration and what differs from the
    recipe, and the posteriors of the utterances that are labelled worst and best, with sound if the corpus was made by
    `prepare`. Scores are those that `evaluate` kept; if there are none, the model is evaluated first.

    Examples:

        dali-asr report runs/demo-20260101-120000

        dali-asr report RUN --partition test
    """  # noqa: D412
    with counting() as progress:
        progress("starting", 0, 1)
        from dali_asr.reports.report import report as make_report

        progress("starting", 1, 1)
        made = make_report(
            run,
            source,
            output=output,
            partition=partition,
            checkpoint=checkpoint,
            recordings=recordings,
            device=device,
            progress=progress,
            overwrite=force,
        )
    if made.remark:
        warn(made.remark)
    evaluation = made.evaluation
    say(made.origin)
    say(f"{made.name} on {evaluation.partition}: frame accuracy {evaluation.scores.accuracy:.2%}")
    say(f"Report: {made.path}")
