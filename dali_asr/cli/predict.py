"""`dali-asr predict`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from dali_asr.cli.console import counting, printing, say
from dali_asr.errors import UsageError


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a checkpoint in it.", readable=False)],
    source: Annotated[
        list[str] | None,
        typer.Argument(
            help="A packed corpus, source files in any layout, a link (`data fetch`), `demo`, or `.npy` files of "
            "features; `-` reads paths from standard input, one per line. By default what the run trained on.",
            show_default=False,
        ),
    ] = None,
    partition: Annotated[
        str | None, typer.Option(help="Partition of the corpus. By default the run's `data.test`.", show_default=False)
    ] = None,
    form: Annotated[
        Literal["kaggle", "npz", "json", "ctm", "textgrid", "audacity"],
        typer.Option(
            "--format",
            help="Of frames: kaggle (CSV of `id,label`), npz (posteriors). Of segments with times: json, ctm, or one "
            "file per utterance: textgrid (Praat), audacity (label track).",
        ),
    ] = "kaggle",
    decode: Annotated[
        str | None,
        typer.Option(
            metavar="viterbi|median:K|none",
            help="How labels follow from posteriors: viterbi: the best path of a bigram with durations; median:K: the "
            "majority of K frames; none: the most probable label of each frame. By default none for formats of frames, "
            "viterbi for those of segments.",
            show_default=False,
        ),
    ] = None,
    frame_labels: Annotated[
        bool, typer.Option("--frame-labels", help="Add the label of each frame to json.", show_default=False)
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="The file to write, or the folder for one file per utterance; `-` for standard output. By default in "
            "the run's folder.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Checkpoint to use.")] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
) -> None:
    """Predict the label of every frame of a partition or of single files, in order, or segments with times.

    Examples:

        dali-asr predict runs/demo-20260101-120000 demo

        dali-asr predict RUN hw1p2 --partition test-clean -o submission.csv

        dali-asr predict RUN one.npy two.npy --format textgrid -o grids

        find features -name '*.npy' | dali-asr predict RUN - --format ctm -o all.ctm
    """  # noqa: D412
    from dali_asr.files import check_output

    to_stdout = output == "-"
    path = Path(output) if output and not to_stdout else None
    if path and form not in ("textgrid", "audacity"):
        check_output(path, overwrite=force)
    sources = [path for given in source or () for path in (_listed_paths() if given == "-" else [given])]
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.device import describe_device, resolve_device
        from dali_asr.inference.decoding import NONE, VITERBI
        from dali_asr.inference.formats import OF_FRAMES, PER_UTTERANCE, SUFFIXES, encode
        from dali_asr.inference.predict import label, prepare
        from dali_asr.inference.sources import FILES
        from dali_asr.inference.writers import check_prediction, write_prediction
        from dali_asr.runs.checkpoint import run_of

        report("starting", 1, 1)
        where = resolve_device(device)
        sources = sources or [_own_corpus(run)]
        trained, opened = prepare(run, sources, partition=partition, checkpoint=checkpoint, packing=report)
        end = f"-{form}" if form in PER_UTTERANCE else f".{SUFFIXES[form]}"
        path = path or run_of(run) / f"{opened.name}{end}"
        labelling = label(
            trained,
            opened,
            decode=decode or (NONE if form in OF_FRAMES else VITERBI),
            posteriors=form == "npz",
            device=device,
            progress=lambda done, total: report("predicting", done, total),
        )
        if to_stdout:
            with printing():
                encode(labelling, form, sys.stdout.buffer, frame_labels=frame_labels)
                sys.stdout.buffer.flush()
            return
        check_prediction(path, form, opened.utterances, overwrite=force)
        say(f"Predicting with {trained.name}, on the {describe_device(where)}")
        write_prediction(labelling, path, form, overwrite=force, frame_labels=frame_labels)
    of = "" if opened.name == FILES else f" of {opened.name}"
    say(f"{opened.frame_count:,} frames of {len(opened.utterances):,} utterances{of}, written to {path}")
    if labelling.accuracy is not None:
        say(f"Frame accuracy {labelling.accuracy:.2%}")


def _own_corpus(run: Path) -> str:
    """Return the corpus that a run was trained on."""
    from dali_asr.config import DEMO, Config
    from dali_asr.runs.start import config_of

    path = config_of(run)
    return Config.load(path).data.root if path else DEMO  # a run without configuration is refused when it is read


def _listed_paths() -> list[str]:
    """Return the paths that standard input lists, one per line.

    Raises:
        UsageError: there is none.
    """
    lines = sys.stdin.buffer.read().split(b"\n")
    paths = [os.fsdecode(line) for line in lines if line.strip()]
    if not paths:
        raise UsageError("-: standard input lists no paths; write one per line, as find does")
    return paths
