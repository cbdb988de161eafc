"""`dali-asr data submit`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from dali_asr.cli.console import counting, say
from dali_asr.errors import UsageError, printable


def submit(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a checkpoint in it.", readable=False)],
    competition: Annotated[
        str | None,
        typer.Option(
            help="Name of the Kaggle competition, as in its address. A dry run with --sample needs none.",
            show_default=False,
        ),
    ] = None,
    message: Annotated[
        str | None,
        typer.Option("-m", "--message", help="Describes the submission. A dry run needs none.", show_default=False),
    ] = None,
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
        str | None,
        typer.Option(
            help="Predict this corpus. By default the run's own; `english-small`, the model in the package, has none.",
            show_default=False,
        ),
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

        dali-asr data submit RUN --file submission.csv --sample sample_submission.csv --dry-run
    """  # noqa: D412
    if competition is None and not (dry_run and sample):
        raise _missing("--competition", "only a dry run (--dry-run) with a sample of yours (--sample) needs none")
    if message is None and not dry_run:
        raise _missing("--message", "only a dry run (--dry-run) needs none")
    with counting() as report, TemporaryDirectory() as folder:
        report("starting", 0, 1)
        from dali_asr.reports.kaggle import Competition
        from dali_asr.reports.submission import Table, check_submission, predict_submission
        from dali_asr.runs.checkpoint import load_checkpoint

        inventory = load_checkpoint(run.expanduser(), "last").description.inventory
        expected = Table.read(sample) if sample else None
        where = None if competition is None or (dry_run and expected) else Competition(competition)
        report("starting", 1, 1)
        if where:  # first what can be refused without a prediction
            report("asking Kaggle", 0, 1)
            expected = expected or Table.read(where.fetch_sample(Path(folder)))
            if not dry_run:
                where.check_allowance()
            report("asking Kaggle", 1, 1)
        assert expected
        predicted = None
        if file is None:
            file = Path(folder) / "submission.csv"
            predicted = predict_submission(
                run,
                file,
                source=corpus,
                partition=partition,
                checkpoint=checkpoint,
                device=device,
                columns=expected.columns,
                progress=report,
            )
            say(f"Predicted {predicted}")
        else:
            say(f"Taking {file}")
        report("checking", 0, 1)
        found = check_submission(file, expected, inventory, partition=predicted.partition if predicted else None)
        report("checking", 1, 1)
        say(str(found))
        if where is None or dry_run:
            say("Dry run: nothing was sent")
            return
        report("sending", 0, 1)
        answer = where.send(file, str(message))
        report("sending", 1, 1)
    say(f"Kaggle: {printable(answer)}")
    say(f"Scores: {where.page}/submissions")


def _missing(option: str, otherwise: str) -> UsageError:
    """Return the error of an option that only some calls may leave out."""
    return UsageError(f"data submit: {option} is missing; give it, as in {option} {option[2:].upper()}: {otherwise}")
