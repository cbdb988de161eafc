"""`dali-asr align`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from dali_asr.cli.commands import Overrides
from dali_asr.cli.console import complain, counted, counting, say, show, warn, with_flags
from dali_asr.cli.early import check_run, check_source, check_there
from dali_asr.errors import UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dali_asr.alignment.aligning import Failure
    from dali_asr.alignment.bootstrap import Round
    from dali_asr.alignment.writing import AlignmentSummary

_MAX_LISTED = 20
_MAX_NAMED = 5


def align(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, or of a checkpoint in it; or `english-small`, the model in the package.",
            readable=False,
        ),
    ],
    recordings: Annotated[
        Path,
        typer.Argument(
            help="A recording or a folder of recordings; a file or folder of `.npy` features; or a corpus. `demo.wav` "
            'is in the package; its words are "Seven ships left the harbor under a cloudy sky."',
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
    partition: Annotated[
        str | None,
        typer.Option(
            help="Partition of the corpus; of a folder of recordings, the folder `train`, `dev` or `test` in it. By "
            "default all of them.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Checkpoint to use.")] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    bootstrap: Annotated[
        Literal["pocketsphinx"] | None,
        typer.Option(help="Train the model first, on an alignment by pocketsphinx; RUN is then a new folder."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="With --bootstrap, how often to train and align again.", min=1)] = 1,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier alignment, all of its files.")] = False,
) -> None:
    """Find when the words of recordings and their phones were said (forced alignment).

    Writes TextGrids with the tiers words, phones and confidence, and tables of what was aligned, what failed, and which
    pronunciations were guessed. The exit code is 1 if anything failed; the others are aligned all the same.

    Examples:

        dali-asr align RUN recordings recordings/transcripts.tsv -o aligned

        dali-asr align RUN LJSpeech-1.1/wavs LJSpeech-1.1/metadata.csv -o aligned --dictionary names.dict

        dali-asr align runs/new recordings recordings -o aligned --bootstrap pocketsphinx --rounds 2
    """  # noqa: D412
    _check_names(None if bootstrap else run, recordings, partition, [transcripts, dictionary])
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.alignment.aligning import align as start
        from dali_asr.alignment.writing import FAILED, GUESSES, check_alignment_folder, write_alignment

        report("starting", 1, 1)
        check_alignment_folder(output, overwrite=force)
        if bootstrap:
            from dali_asr.alignment.bootstrap import bootstrap as train_rounds
            from dali_asr.config import Config

            config = Config.load(None, [*(overrides or ()), f"loader.device={device}"])
            done = train_rounds(
                run, recordings, transcripts, rounds=rounds, dictionary=dictionary, config=config, progress=report
            )
            run = done[-1].run or run
        elif overrides:
            raise UsageError("--set: goes with --bootstrap, which trains; leave it out")
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
        summary = write_alignment(aligning, output, overwrite=force, progress=report, worded=with_flags)
    if bootstrap:
        show(_round_table(done))
    for guess, count in aligning.guesses.most_common(_MAX_LISTED):
        times = "" if count == 1 else f", {count:,} times"
        warn(
            printable(f"not in the dictionary: {guess.word}{times}; pronounced {guess.pronunciation} ({guess.origin})")
        )
    if len(aligning.guesses) > _MAX_LISTED:
        warn(f"and {len(aligning.guesses) - _MAX_LISTED:,} more words in {output / GUESSES}")
    _show_failures(aligning.failures, output)
    if summary.doubtful:
        warn(_doubt(summary))
    if summary.aligned or not aligning.failures:
        said = f"{counted(summary.words, 'word')}, {counted(summary.phones, 'phone')}"
        say(f"Aligned {counted(summary.aligned, 'recording')} of {summary.seconds:,.1f} s, {said}: {output}")
    if summary.confidence is not None:
        say(f"Mean log posterior {summary.mean_log_posterior:.2f}, mean confidence of phones {summary.confidence:.2f}")
    if aligning.failures:
        say(f"{len(aligning.failures):,} failed: {output / FAILED}")
        raise typer.Exit(1)


def _check_names(run: Path | None, recordings: Path, partition: str | None, files: Sequence[Path | None]) -> None:
    """Check that what is named is there. What is None is not needed, or made later."""
    if run:
        check_run(run)
    check_source(str(recordings), partition)
    check_there(*filter(None, files))


def _show_failures(failures: Sequence[Failure], output: Path) -> None:
    """Show why recordings were not aligned; transcripts without recording are counted."""
    from dali_asr.alignment.writing import FAILED

    surplus = [failure for failure in failures if failure.without_recording]
    listed = failures if len(surplus) < 2 else [f for f in failures if not f.without_recording]
    for failure in listed[:_MAX_LISTED]:
        complain(f"error: {printable(failure.reason)}")
    if len(listed) > _MAX_LISTED:
        warn(f"and {len(listed) - _MAX_LISTED:,} more errors in {output / FAILED}")
    if len(surplus) > 1:
        complain(f"error: {len(surplus):,} transcripts have no recording; they are listed in {output / FAILED}")


def _doubt(summary: AlignmentSummary) -> str:
    """Return a warning about recordings that match their transcripts poorly."""
    from dali_asr.alignment.writing import DOUBTFUL

    names = ", ".join(summary.doubtful[:_MAX_NAMED]) + (", ..." if len(summary.doubtful) > _MAX_NAMED else "")
    return (
        f"{_which_doubtful(summary)} poorly (mean log posterior below {DOUBTFUL:g}): {printable(names)}; listen: "
        "correct wrong transcripts; where they are right, the model does not know such voices or accents, so check "
        "the boundaries"
    )


def _which_doubtful(summary: AlignmentSummary) -> str:
    if summary.aligned == 1:
        return "the recording matches its transcript"
    if len(summary.doubtful) == 1:
        return f"1 of {summary.aligned:,} recordings matches its transcript"
    return f"{len(summary.doubtful):,} of {summary.aligned:,} recordings match their transcripts"


def _round_table(rounds: Sequence[Round]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("round")
    for name in ("aligned", "mean log posterior", "boundaries moved > 20 ms"):
        table.add_column(name, justify="right")
    for each in rounds:
        posterior = "–" if each.mean_log_posterior is None else f"{each.mean_log_posterior:.3f}"
        moved = "–" if each.moved is None else f"{each.moved:.1%}"
        table.add_row(str(each.number) if each.number else "pocketsphinx", f"{each.aligned:,}", posterior, moved)
    return table
