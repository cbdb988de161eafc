"""`dali-asr features`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dali_asr.cli.commands import Overrides
from dali_asr.cli.console import complain, counted, counting, say, warn
from dali_asr.errors import printable

if TYPE_CHECKING:
    from dali_asr.audio.packing import Summary

_MAX_LISTED = 20  # lines of remarks and of failures


def features(
    source: Annotated[
        Path,
        typer.Argument(
            help="A recording (`demo.wav` is in the package), or a folder of them; its folders `train`, `dev`, `test` "
            "become partitions.",
            readable=False,
        ),
    ],
    dest: Annotated[Path, typer.Argument(help="The packed corpus to write.", readable=False)],
    preset: Annotated[
        Literal["course", "kaldi", "librosa"] | None,
        typer.Option(help="What to compute; `course` by default.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    config: Annotated[
        str | None, typer.Option(help="A recipe or a YAML file with a section `features`.", show_default=False)
    ] = None,
    normalization: Annotated[
        Literal["utterance", "none"], typer.Option(help="Take mean and variance over each utterance, or store as is.")
    ] = "utterance",
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Dtype of the stored frames.")] = "float32",
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Leave out recordings that cannot be used, and exit with 1 at the end.")
    ] = False,
    device: Annotated[str, typer.Option(help="`auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a packed corpus.")] = False,
) -> None:
    """Compute features of recordings, by DALI, and write a packed corpus without labels.

    If it was stopped, it goes on where it was when it is started again.

    Examples:

        dali-asr features recordings corpus

        dali-asr features recordings corpus --preset kaldi --set features.coefficients=20 --keep-going
    """  # noqa: D412
    from dali_asr.config import Config

    settings = Config.load(config, [*([f"features.preset={preset}"] if preset else []), *(overrides or ())]).features
    try:
        with counting() as report:
            from dali_asr.audio.devices import gpu_number
            from dali_asr.audio.packing import extract_corpus
            from dali_asr.demo import recording_path

            summary = extract_corpus(
                recording_path(str(source)),
                dest,
                settings,
                normalization=normalization,
                dtype=dtype,
                keep_going=keep_going,
                overwrite=force,
                gpu=gpu_number(device),
                progress=report,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what is done is kept; the same command goes on from there") from None
    _say(summary, dest)
    if summary.failed:
        raise typer.Exit(1)


def _say(summary: Summary, dest: Path) -> None:
    for line in summary.remarks[:_MAX_LISTED]:
        warn(printable(line))
    for line in summary.failed[:_MAX_LISTED]:
        complain(f"error: {printable(line)}")
    for lines, what in ((summary.remarks, "remarks"), (summary.failed, "errors")):
        if len(lines) > _MAX_LISTED:
            warn(f"and {len(lines) - _MAX_LISTED:,} more {what}")
    if summary.nothing_to_do:
        complete = counted(summary.recordings - len(summary.failed), "recording")
        say(f"Nothing to do: {dest} holds the features of {complete}")
    else:
        kept = f", {summary.kept:,} were there" if summary.kept else ""
        say(f"Computed the features of {summary.computed:,} of {summary.recordings:,} recordings{kept}: {dest}")
    if summary.failed:
        say(f"{len(summary.failed):,} failed")
    say(f"Next: {shlex.join(['dali-asr', 'data', 'info', str(dest)])}")
