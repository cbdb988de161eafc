"""Aligning recordings with their transcripts by a trained model.

    recordings ─▶ features ─▶ log posteriors ─┐
    transcripts ─▶ words ─▶ pronunciations ───┴─▶ best path ─▶ words and phones with times

Shape letters: `C` labels, `K` states of a label.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.alignment.dictionary import LISTED, Dictionary, load_dictionary
from dali_asr.alignment.durations import Durations, trained_durations
from dali_asr.alignment.sources import open_recordings
from dali_asr.alignment.transcripts import TEXTGRIDS, Transcript, read_transcripts, without_headers
from dali_asr.alignment.utterance import AlignedUtterance, align_utterance
from dali_asr.alignment.viterbi import NoPathError
from dali_asr.alignment.words import split_words
from dali_asr.build import corpus_path
from dali_asr.corpus.packing import quiet
from dali_asr.errors import DataError, brief
from dali_asr.files import composed
from dali_asr.inference.sources import holds_files
from dali_asr.runs.checkpoint import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from dali_asr.alignment.dictionary import Entry
    from dali_asr.alignment.sources import AlignmentSource, Scored
    from dali_asr.corpus.packing import Progress
    from dali_asr.runs.checkpoint import Checkpoint, Which

PRIOR_SCALE = 0.6  # of 0.4, 0.6, 0.8 and 1 the best on recordings of the training
_MAX_SHOWN = 5  # words in a message


@dataclass(frozen=True)
class Failure:
    """Something that was not aligned.

    Attributes:
        name: of the recording.
        reason: why, and what to do, on one line with the file.
        without_recording: whether it is a transcript whose recording is missing.
    """

    name: str
    reason: str
    without_recording: bool = False


@dataclass(frozen=True)
class Guess:
    """A word that the dictionary does not list.

    Attributes:
        origin: how its pronunciation was made; see `Entry`.
        pronunciation: the first one, as text.
    """

    word: str
    origin: str
    pronunciation: str


@dataclass(frozen=True)
class AlignedRecording:
    """A recording whose transcript was aligned.

    Attributes:
        name: of the recording.
        utterance: when words and phones were said.
        guesses: words that are not in the dictionary, each as often as it occurs.
    """

    name: str
    utterance: AlignedUtterance
    guesses: list[Guess]


@dataclass(eq=False)
class Aligning:
    """Recordings, aligned as they are asked for.

    Attributes:
        total: number of recordings.
        results: to be iterated once; afterwards, what follows is complete.
        failures: recordings that were not aligned, and transcripts without recording.
        guesses: words that the dictionary does not list, with the number of times they occur.
    """

    total: int
    results: Iterator[AlignedRecording]
    failures: list[Failure] = field(default_factory=list)
    guesses: Counter[Guess] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Rules:
    """What the search is given beside posteriors and words."""

    states: int
    shift: float
    log_priors: NDArray[np.float32] | None = None
    durations: Durations | None = None


def align(
    run: str | Path,
    recordings: str | Path,
    transcripts: str | Path,
    *,
    dictionary: str | Path | None = None,
    partition: str | None = None,
    checkpoint: Which = "best",
    device: str = "auto",
    packing: Progress = quiet,
) -> Aligning:
    """Align recordings with their transcripts. What cannot be aligned does not keep others from it.

    Args:
        run: folder of a run, or of one of its checkpoints.
        recordings: a recording or a folder of recordings; a file or folder of `.npy` features `[T, D]`; or a corpus,
            as of `predict`.
        transcripts: a file or folder; see `transcripts`.
        dictionary: further words, in the format of CMUdict or of the Montreal Forced Aligner.
        partition: of the corpus, or the folder `train`, `dev` or `test` of a folder of recordings; by default all.
        checkpoint: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        packing: called with the progress of packing source files.

    Raises:
        CheckpointError: the run or checkpoint is damaged.
        DataError: recordings, transcripts or the dictionary cannot be read, or no recording has a transcript.
        UsageError: there is no dictionary, or no such partition.
        DeviceError: there is no such device.
    """
    run = Path(run).expanduser()
    trained = load_checkpoint(run, checkpoint)
    texts = read_transcripts(Path(transcripts).expanduser())
    words = load_dictionary(trained.description.inventory, dictionary)
    given = corpus_path(str(recordings), packing)
    source = open_recordings(
        run,
        trained,
        given,
        partition=partition,
        device=device,
        packing=packing,
    )
    texts = without_headers(texts, {composed(each) for name in source.names for each in (name, _own_name(name))})
    if not any(_transcript_of(name, texts) for name in source.names):
        raise DataError(
            f"{transcripts}: none of its {len(texts):,} transcripts is of a recording in {recordings}; their names are "
            f"such as {brief(next(iter(texts)))}, those of the recordings such as {brief(next(iter(source.names), ''))}"
        )
    if partition or (given.is_file() and holds_files(given)):  # the other transcripts are not asked for
        texts = {text.name: text for name in source.names if (text := _transcript_of(name, texts))}
    aligning = Aligning(len(source.names), iter(()))
    aligning.failures += [Failure("", str(error)) for error in source.refused]
    aligning.results = _results(aligning, source, texts, words, _rules(trained))
    return aligning


def _rules(checkpoint: Checkpoint) -> _Rules:
    """Return priors and durations from what the checkpoint counted in training, if it did."""
    counts, description = checkpoint.segments, checkpoint.description
    states, silence = description.states, description.inventory.silence()
    if counts is None or not counts.frames.sum():
        return _Rules(states, description.label_shift)
    shares = (counts.frames + 1) / (counts.frames + 1).sum()
    of_states = np.where(np.arange(len(shares)) == silence, shares, shares / states).repeat(states)
    log_priors = (PRIOR_SCALE * np.log(of_states)).astype(np.float32)
    return _Rules(states, description.label_shift, log_priors, trained_durations(counts, states, silence))


def _transcript_of(name: str, texts: dict[str, Transcript]) -> Transcript | None:
    return texts.get(composed(name)) or texts.get(composed(_own_name(name)))


def _own_name(name: str) -> str:
    """Return the name of a recording without that of its partition."""
    return name.rpartition("/")[2]


def _results(
    aligning: Aligning, source: AlignmentSource, texts: dict[str, Transcript], dictionary: Dictionary, rules: _Rules
) -> Iterator[AlignedRecording]:
    used = set()
    for name, where, scored in zip(source.names, source.where, source.scored, strict=True):
        transcript = _transcript_of(name, texts)
        try:
            if transcript:
                used.add(transcript.name)
            if isinstance(scored, DataError):
                raise scored
            if not transcript:
                raise DataError(f"{where}: has no transcript; {_missing_transcript(_own_name(name), Path(where))}")
            entries = transcript_entries(transcript, dictionary)
            yield _aligned(aligning, name, where, scored, entries, source, dictionary, rules)
        except DataError as error:
            aligning.failures.append(Failure(name, str(error)))
    for text in texts.values():
        if text.name not in used:
            reason = f"{text.where}: no recording has the name {text.name!r}; add it, or remove the transcript"
            aligning.failures.append(Failure(text.name, reason, without_recording=True))


def _missing_transcript(name: str, recording: Path) -> str:
    """Return what to do about a recording without transcript; people take the TextGrid beside it for one."""
    remedy = f"add one of the name {name!r}"
    beside = next((path for path in map(recording.with_suffix, (".TextGrid", ".textgrid")) if path.is_file()), None)
    return f"{remedy} ({beside.name} is none: {TEXTGRIDS})" if beside else remedy


def transcript_entries(transcript: Transcript, dictionary: Dictionary) -> list[tuple[str, Entry]]:
    """Return the words of a transcript with their pronunciations.

    Raises:
        DataError: there are no words, none is in the dictionary, or one cannot even be guessed.
    """
    words = split_words(transcript.text)
    if not words:
        raise DataError(f"{transcript.where}: the transcript has no words; write what was said")
    found = [(word, entry) for word in words if (entry := dictionary.find(word))]
    if len(found) < len(words):
        known = {word for word, _ in found}
        missing = [word for word in dict.fromkeys(words) if word not in known]
        raise DataError(
            f"{transcript.where}: {', '.join(missing[:_MAX_SHOWN])}: not in the dictionary, and no pronunciation "
            "can be guessed; write it as it is said, or add one (dictionary=FILE)"
        )
    if all(entry.is_guess for _, entry in found):
        raise DataError(
            f"{transcript.where}: no word is in the dictionary ({', '.join(words[:_MAX_SHOWN])}); is it English? Add "
            "the pronunciations (dictionary=FILE)"
        )
    return found


def _aligned(
    aligning: Aligning,
    name: str,
    where: str,
    scored: Scored,
    entries: list[tuple[str, Entry]],
    source: AlignmentSource,
    dictionary: Dictionary,
    rules: _Rules,
) -> AlignedRecording:
    try:
        utterance = align_utterance(
            scored.log_posteriors,
            [(word, entry.pronunciations) for word, entry in entries],
            dictionary.inventory,
            source.timing,
            duration=scored.duration,
            log_priors=rules.log_priors,
            durations=rules.durations,
            states=rules.states,
            shift=rules.shift,
        )
    except NoPathError as error:
        raise DataError(f"{where}: {error}; check that the transcript belongs to the recording") from error
    guesses = [
        Guess(word, entry.origin, dictionary.symbols(entry.pronunciations[0]))
        for word, entry in entries
        if entry.origin != LISTED
    ]
    aligning.guesses.update(guesses)
    return AlignedRecording(name, utterance, guesses)
