"""`dali-asr export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dali_asr.cli.console import counting, say


def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, or of a checkpoint in it; or `english-small`, the model in the package.",
            readable=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The file to write. By default `model.onnx` in the run's folder; of `english-small`, in the current.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Checkpoint to use.")] = "best",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file and its card.")] = False,
) -> None:
    """Export a run's model as ONNX, with a model card beside it: frames in, log-probabilities out.

    Needs the packages of `pip install 'dali-asr[onnx]'`.

    Example:

        dali-asr export runs/demo-20260101-120000 -o model.onnx
    """  # noqa: D412
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.export.onnx_file import export_onnx

        report("starting", 1, 1)
        exported = export_onnx(run, output, checkpoint=checkpoint, overwrite=force, progress=report)
    size = exported.path.stat().st_size / 1e6
    say(f"Exported {exported.checkpoint} to {exported.path} ({size:.1f} MB); model card: {exported.card}")
    say(f"Its log-probabilities differ by at most {exported.difference:.1g} from those of dali-asr")
