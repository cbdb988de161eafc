"""`dali-asr handin`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from dali_asr.cli.console import counting, say


def handin(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a checkpoint in it.", readable=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The archive to write, `FILE.zip`.", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the run and of the folder in the archive. By default the run's.", show_default=False
        ),
    ] = None,
    max_parameters: Annotated[
        int | None,
        typer.Option(
            help="Limit of the number of parameters. By default the run's `model.max_parameters`.",
            show_default=False,
            min=1,
        ),
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Predict this corpus. By default the run's own.", show_default=False)
    ] = None,
    partition: Annotated[
        str | None, typer.Option(help="Partition to predict. By default the run's `data.test`.", show_default=False)
    ] = None,
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Checkpoint to use.")] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the archive.")] = False,
) -> None:
    """Write what a course takes of a run: README, model metadata, configuration, metrics, Kaggle submission.

    The submission is predicted anew, frame by frame, by the checkpoint that is handed in.

    Examples:

        dali-asr handin runs/tiny -o handin.zip

        dali-asr handin RUN -o handin.zip --name hw1p2-tiny --max-parameters 20000000
    """  # noqa: D412
    from dali_asr.files import check_output

    check_output(output, overwrite=force, suffix=".zip")
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.reports.handin import hand_in

        report("starting", 1, 1)
        handed = hand_in(
            run,
            output,
            name=name,
            source=corpus,
            partition=partition,
            max_parameters=max_parameters,
            checkpoint=checkpoint,
            device=device,
            overwrite=force,
            progress=report,
        )
    allowed = f" of {handed.max_parameters:,} allowed" if handed.max_parameters else ", checked against no limit"
    say(f"{handed.parameters:,} parameters{allowed}")
    if handed.submission:
        say(f"Predicted {handed.submission}")
    else:
        say("No submission: the run's data.test names no partition")
    if not handed.evaluations:
        last = " --checkpoint last" if checkpoint == "last" else ""
        say(f"No evaluation of {handed.checkpoint}; make one: dali-asr evaluate {shlex.quote(str(run))}{last}")
    say(f"{', '.join(handed.files)} written to {handed.path}")
