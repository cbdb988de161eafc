"""`dali-asr align`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dali_asr.cli.console import complain, counting, say, warn
from dali_asr.errors import printable

_MAX_LISTED = 20


def align(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or of a checkpoint in it.", readable=False)],
    recordings: Annotated[
        Path,
        typer.Argument(
            help="A recording or a folder of recordings; a file or folder of `.npy` features; or a corpus.",
            readable=False,
        ),
    ],
    transcripts: Annotated[
        Path,
        typer.Argument(
            help="Words of the recordings: `transcripts.tsv`, LJSpeech's `metadata.csv`, LibriSpeech's `*.trans.txt`, "
            "or a folder of these or of `NAME.lab` or `NAME.txt`.",
            readable=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", show_default=False)],
    dictionary: Annotated[
        Path | None,
        typer.Option(
            help="Pronunciations of further words, in the format of CMUdict or of the Montreal Forced Aligner.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Partition of the corpus.", show_default=False)] = None,
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Checkpoint to use.")] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an earlier alignment.")] = False,
) -> None:
    """Find when the words of recordings and their phones were said (forced alignment).

    Writes TextGrids with the tiers words, phones and confidence, and tables of what was aligned, what failed, and which
    pronunciations were guessed. The exit code is 1 if anything failed; the others are aligned all the same.

    Examples:

        dali-asr align RUN recordings recordings/transcripts.tsv -o aligned

        dali-asr align RUN LJSpeech-1.1/wavs LJSpeech-1.1/metadata.csv -o aligned --dictionary names.dict
    """  # noqa: D412
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.alignment.aligning import align as start
        from dali_asr.alignment.writing import FAILED, GUESSES, check_alignment_folder, write_alignment

        report("starting", 1, 1)
        check_alignment_folder(output, overwrite=force)
        aligning = start(
            run,
            recordings,
            transcripts,
            dictionary=dictionary,
            partition=partition,
            checkpoint=checkpoint,
            device=device,
            packing=report,
        )
        summary = write_alignment(aligning, output, overwrite=force, progress=report)
    for guess, count in aligning.guesses.most_common(_MAX_LISTED):
        times = "" if count == 1 else f", {count:,} times"
        warn(printable(f"not in the dictionary: {guess.word}{times}; said as {guess.pronunciation} ({guess.origin})"))
    if len(aligning.guesses) > _MAX_LISTED:
        warn(f"and {len(aligning.guesses) - _MAX_LISTED:,} more words in {output / GUESSES}")
    for failure in aligning.failures[:_MAX_LISTED]:
        complain(f"error: {printable(failure.reason)}")
    if len(aligning.failures) > _MAX_LISTED:
        warn(f"and {len(aligning.failures) - _MAX_LISTED:,} more errors in {output / FAILED}")
    say(
        f"Aligned {summary.aligned:,} recordings of {summary.seconds / 60:,.1f} minutes with {summary.words:,} words and "
        f"{summary.phones:,} phones: {output}"
    )
    if summary.confidence is not None:
        say(f"Mean log posterior {summary.mean_log_posterior:.2f}, mean confidence of phones {summary.confidence:.2f}")
    if aligning.failures:
        say(f"{len(aligning.failures):,} failed: {output / FAILED}")
        raise typer.Exit(1)
