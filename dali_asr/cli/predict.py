"""`dali-asr predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from dali_asr.cli.console import counting, printing, say


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a checkpoint in it.", readable=False)],
    source: Annotated[
        list[str],
        typer.Argument(
            help="A packed corpus, source files in any layout, a link (`data fetch`), `demo`, or `.npy` files of "
            "features."
        ),
    ],
    partition: Annotated[
        str | None, typer.Option(help="Partition of the corpus. By default the run's `data.test`.", show_default=False)
    ] = None,
    form: Annotated[
        Literal["kaggle", "json", "npz"],
        typer.Option(
            "--format", help="kaggle: CSV of `id,label`; json: symbols per utterance; npz: posteriors per frame."
        ),
    ] = "kaggle",
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="The file to write; `-` for standard output. By default a file in the run's folder.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Checkpoint to use.")] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Predict the label of every frame of a partition or of single files, in order.

    Examples:

        dali-asr predict runs/demo-20260101-120000 demo

        dali-asr predict RUN hw1p2 --partition test-clean -o submission.csv

        dali-asr predict RUN one.npy two.npy --format json -o -
    """  # noqa: D412
    from dali_asr.files import check_output

    to_stdout = output == "-"
    path = Path(output) if output else None
    if path and not to_stdout:
        check_output(path, overwrite=force)
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.device import describe_device, resolve_device
        from dali_asr.inference.predict import label, prepare
        from dali_asr.inference.sources import FILES
        from dali_asr.inference.writers import SUFFIXES, encode, write_prediction
        from dali_asr.runs.checkpoint import run_of

        report("starting", 1, 1)
        where = resolve_device(device)
        trained, opened = prepare(run, source, partition=partition, checkpoint=checkpoint, packing=report)
        path = path or run_of(run) / f"{opened.name}.{SUFFIXES[form]}"
        if not to_stdout:
            check_output(path, overwrite=force)
            say(f"Predicting with {trained.name}, on the {describe_device(where)}")
        prediction = label(
            trained,
            opened,
            posteriors=form == "npz",
            device=device,
            progress=lambda done, total: report("predicting", done, total),
        )
        if to_stdout:
            with printing():
                encode(prediction, form, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            return
        write_prediction(prediction, path, form, overwrite=force)
    frames, utterances = len(prediction.labels), len(prediction.utterances)
    of = "" if prediction.partition == FILES else f" of {prediction.partition}"
    say(f"{frames:,} frames of {utterances:,} utterances{of}, written to {path}")
    if prediction.accuracy is not None:
        say(f"Frame accuracy {prediction.accuracy:.2%}")
