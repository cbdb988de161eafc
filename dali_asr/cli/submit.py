"""`dali-asr data submit`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from dali_asr.cli.console import counting, say
from dali_asr.errors import printable


def submit(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a checkpoint in it.", readable=False)],
    competition: Annotated[
        str, typer.Option(help="Name of the Kaggle competition, as in its address.", show_default=False)
    ],
    message: Annotated[str, typer.Option("-m", "--message", help="Describes the submission.", show_default=False)],
    file: Annotated[
        Path | None,
        typer.Option(
            help="A ready submission, sent instead of a prediction. By default the run predicts it, frame by frame.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(
            help="The sample to compare with. By default Kaggle's is downloaded.", show_default=False, readable=False
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the submission, and send nothing.")] = False,
) -> None:
    """Send a run's predictions to a Kaggle competition, after a check against its sample submission.

    Needs the kaggle package (`pip install 'dali-asr[kaggle]'`) and a key where that looks for one.

    Examples:

        dali-asr data submit runs/tiny --competition hw1p2 -m "tiny, 10 epochs"

        dali-asr data submit RUN --competition hw1p2 -m again --file submission.csv --sample sample.csv --dry-run
    """  # noqa: D412
    with counting() as report, TemporaryDirectory() as folder:
        report("starting", 0, 1)
        from dali_asr.reports.kaggle import Competition
        from dali_asr.reports.submission import check_submission, predict_submission
        from dali_asr.runs.checkpoint import load_checkpoint

        where = None if dry_run and sample else Competition(competition)
        report("starting", 1, 1)
        if where:  # first what can be refused without a prediction
            report("asking Kaggle", 0, 1)
            sample = sample or where.fetch_sample(Path(folder))
            if not dry_run:
                where.check_allowance()
            report("asking Kaggle", 1, 1)
        if file is None:
            file = Path(folder) / "submission.csv"
            predicted = predict_submission(
                run,
                file,
                source=corpus,
                partition=partition,
                checkpoint=checkpoint,
                device=device,
                progress=report,
            )
            say(f"Predicted {predicted}")
        else:
            say(f"Taking {file}")
        assert sample
        report("checking", 0, 1)
        found = check_submission(file, sample, load_checkpoint(run, "last").description.inventory)
        report("checking", 1, 1)
        say(str(found))
        if where is None or dry_run:
            say("Dry run: nothing was sent")
            return
        report("sending", 0, 1)
        answer = where.send(file, message)
        report("sending", 1, 1)
    say(f"Kaggle: {printable(answer)}")
    say(f"Scores: {where.page}/submissions")
