"""The folder of an alignment.

NAME.TextGrid   tiers: words, phones, confidence (of each phone, in [0, 1]); in folders where names have a `/`
aligned.csv     one line per aligned recording, with the mean log posterior and confidence of its phones
failed.csv      what was not aligned and why
guesses.csv     words that the dictionary does not list, and the pronunciations that were used
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dali_asr.corpus.packing import quiet
from dali_asr.errors import UsageError
from dali_asr.files import disk_errors, file_name, new_folder, sweep, write_file
from dali_asr.inference.textgrid import seconds_text, to_textgrid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from dali_asr.alignment.aligning import AlignedRecording, Aligning
    from dali_asr.alignment.utterance import AlignedUtterance
    from dali_asr.corpus.packing import Progress

ALIGNED, FAILED, GUESSES = "aligned.csv", "failed.csv", "guesses.csv"


# The mean log posterior, in nats, below which a transcript is probably of another recording: with `english-small`, 79
# recordings of unknown speakers reach -1.42 or more, and 77 of them stay below -1.5 with transcripts of each other.
DOUBTFUL = -1.5


@dataclass(frozen=True)
class AlignmentSummary:
    """What was aligned.

    Attributes:
        aligned: number of recordings.
        seconds: their length.
        words: number of words in them.
        phones: number of phones, without silences.
        mean_log_posterior: of the phones over all frames, in nats; None if nothing was aligned.
        confidence: mean confidence of the phones without silences; None if nothing was aligned.
        doubtful: names of the recordings whose mean log posterior is below `DOUBTFUL`.
    """

    aligned: int
    seconds: float
    words: int
    phones: int
    mean_log_posterior: float | None
    confidence: float | None
    doubtful: tuple[str, ...]


def check_alignment_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse an output folder that may not be replaced, and remove what killed processes left beside it.

    Raises:
        UsageError: it exists and is no alignment, or may not be overwritten, or holds other files.
        DataError: the folder above cannot be written.
    """
    if folder.exists() or folder.is_symlink():
        if not (folder / ALIGNED).is_file():
            raise UsageError(f"{folder}: exists and is not an alignment; choose another folder")
        if not overwrite:
            raise UsageError(f"{folder}: exists; choose another folder, or overwrite it (overwrite=True)")
        others = sorted(str(path.relative_to(folder)) for path in _other_files(folder))
        if others:
            raise UsageError(
                f"{folder}: holds what is not of the alignment, such as {others[0]}, which overwriting would remove; "
                "move it away, or choose another folder"
            )
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)


def write_alignment(
    aligning: Aligning,
    folder: Path,
    *,
    overwrite: bool = False,
    progress: Progress = quiet,
    worded: Callable[[str], str] = str,
) -> AlignmentSummary:
    """Align, and write each recording as it is done. The folder appears whole or not at all.

    Args:
        aligning: whose results have not been asked for yet.
        folder: to write to.
        overwrite: whether an earlier alignment may be replaced.
        progress: called with a stage, the number of recordings done, and of all.
        worded: how the reasons in `failed.csv` are worded, which name arguments of `align`.

    Raises:
        UsageError, DataError: as `check_alignment_folder`; or the disk is full.
    """
    check_alignment_folder(folder, overwrite=overwrite)
    totals = _Totals()
    with disk_errors(folder), new_folder(folder, flush=False) as partial:
        for done in aligning.results:
            _write_textgrid(done, partial)
            totals.add(done)
            progress("aligning", len(totals.rows) + len(aligning.failures), aligning.total)
        progress("aligning", aligning.total, aligning.total)
        write_file(partial / ALIGNED, _csv(_ALIGNED_COLUMNS, totals.rows))
        failed = ((failure.name, worded(failure.reason)) for failure in aligning.failures)
        write_file(partial / FAILED, _csv(("recording", "reason"), failed))
        guesses = sorted(aligning.guesses.items(), key=lambda item: (-item[1], item[0].word))
        rows = ((g.word, count, g.origin, g.pronunciation) for g, count in guesses)
        write_file(partial / GUESSES, _csv(("word", "count", "origin", "pronunciation"), rows))
    return totals.summary()


def spoken(utterance: AlignedUtterance) -> list[float]:
    """Return the confidences of an utterance's phones, without silences."""
    silent = {(word.start, word.end) for word in utterance.words if not word.label}
    return [p.confidence or 0.0 for p in utterance.phones if (p.start, p.end) not in silent]


_ALIGNED_COLUMNS = ("recording", "seconds", "words", "phones", "guessed_words", "mean_log_posterior", "confidence")


class _Totals:
    """Sums over aligned recordings, and their lines in the table."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.doubtful: list[str] = []
        self.seconds = self.log_posterior = self.confidence = 0.0
        self.frames = self.words = self.phones = 0

    def add(self, done: AlignedRecording) -> None:
        utterance, confidences = done.utterance, spoken(done.utterance)
        words = sum(bool(word.label) for word in utterance.words)
        seconds, mean = utterance.phones[-1].end, sum(confidences) / len(confidences)
        log_posterior = f"{utterance.mean_log_posterior:.4f}"
        if utterance.mean_log_posterior < DOUBTFUL:
            self.doubtful.append(done.name)
        guessed = len(done.guesses)
        self.rows.append(
            (done.name, seconds_text(seconds), words, len(confidences), guessed, log_posterior, f"{mean:.4f}")
        )
        self.seconds += seconds
        self.frames += len(utterance.labels)
        self.log_posterior += utterance.mean_log_posterior * len(utterance.labels)
        self.confidence += sum(confidences)
        self.words += words
        self.phones += len(confidences)

    def summary(self) -> AlignmentSummary:
        log_posterior = self.log_posterior / self.frames if self.frames else None
        confidence = self.confidence / self.phones if self.phones else None
        return AlignmentSummary(
            len(self.rows), self.seconds, self.words, self.phones, log_posterior, confidence, tuple(self.doubtful)
        )


def _other_files(folder: Path) -> set[Path]:
    """Return the files in the folder of an alignment that are not of it."""
    with disk_errors(folder):
        found = {path for path in folder.rglob("*") if not path.is_dir()}
        rows = csv.DictReader((folder / ALIGNED).read_text(encoding="utf-8", errors="replace").splitlines())
        own = {_textgrid_path(row["recording"], folder) for row in rows if row.get("recording")}
    return found - own - {folder / name for name in (ALIGNED, FAILED, GUESSES)}


def _textgrid_path(recording: str, folder: Path) -> Path:
    *folders, name = recording.split("/")
    return folder.joinpath(*(file_name(part, "") for part in folders), file_name(name, ".TextGrid"))


def _write_textgrid(done: AlignedRecording, folder: Path) -> None:
    path = _textgrid_path(done.name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    words, phones = done.utterance.words, done.utterance.phones
    tiers = {
        "words": [(s.start, s.end, s.label) for s in words],
        "phones": [(s.start, s.end, s.label) for s in phones],
        "confidence": [(s.start, s.end, f"{s.confidence:.3f}") for s in phones],
    }
    path.write_text(to_textgrid(tiers, phones[-1].end), encoding="utf-8")


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a table as CSV (RFC 4180) in UTF-8."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue().encode()
