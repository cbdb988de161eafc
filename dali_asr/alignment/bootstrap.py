"""Alignment without a model: a first alignment by pocketsphinx, then rounds of training and aligning again.

    recordings, transcripts ─pocketsphinx─▶ labels ─┬─train─▶ run ─align─▶ labels ─┐
                                                    └──────────────◀───────────────┘

Every tenth recording is the dev partition. The runs of the rounds are `round-1`, `round-2`, ... in one folder.

Shape letters: `T` frames of a recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.alignment.aligning import align, transcript_entries
from dali_asr.alignment.dictionary import load_dictionary
from dali_asr.alignment.sphinx import SphinxAligner
from dali_asr.alignment.transcripts import read_transcripts
from dali_asr.audio.extract import Extracted, extract
from dali_asr.audio.recordings import find_recordings
from dali_asr.config import Config
from dali_asr.corpus import PackedWriter
from dali_asr.corpus.packing import quiet
from dali_asr.errors import DataError, UsageError
from dali_asr.files import composed
from dali_asr.inventory import ARPABET
from dali_asr.segments import boundary_shifts, common_shift, covering_segments
from dali_asr.training import train

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.audio.recordings import Recording
    from dali_asr.audio.settings import FeatureSettings
    from dali_asr.corpus.packing import Progress
    from dali_asr.segments import FrameTiming, Segment

    Alignments = Mapping[str, list[Segment]]  # phones by the name of the recording

_DEV_EVERY = 10
MIN_RECORDINGS = 2
MOVED = 0.020  # seconds
CORPUS = "corpus"


@dataclass(frozen=True)
class Round:
    """What a round gained.

    Attributes:
        number: from 1; 0 is the first alignment.
        run: the run that was trained; None in round 0.
        aligned: number of recordings that were aligned.
        mean_log_posterior: of the labels over all frames, in nats; None in round 0.
        moved: fraction of the boundaries between the same phones that are more than 20 ms from where they were in the
            round before; None in round 0.
    """

    number: int
    run: Path | None
    aligned: int
    mean_log_posterior: float | None = None
    moved: float | None = None


def bootstrap(
    folder: Path,
    recordings: Path,
    transcripts: Path,
    *,
    rounds: int,
    dictionary: Path | None = None,
    config: Config | None = None,
    progress: Progress = quiet,
) -> list[Round]:
    """Train models on alignments of recordings, which they then align better.

    Args:
        folder: to write the runs and the corpus to; it must not exist.
        recordings: a folder of recordings.
        transcripts: a file or folder; see `transcripts`.
        rounds: number of rounds of training, at least 1.
        dictionary: further words.
        config: of the trainings; its `data` is replaced.
        progress: called with a stage, what is done of it, and its total.

    Raises:
        UsageError: the folder exists, `rounds` is below 1, or pocketsphinx is not installed.
        DataError: recordings or transcripts cannot be read, or fewer than two recordings could be aligned.
    """
    if rounds < 1:
        raise UsageError(f"rounds {rounds}: expected 1 or more")
    if folder.exists():
        raise UsageError(f"{folder}: exists; name a new folder for the runs of the rounds")
    config = config or Config.load()
    found, _ = find_recordings(recordings)
    if len(found) < MIN_RECORDINGS:
        raise DataError(
            f"bootstrap: one recording in {recordings}, and the model is trained on at least {MIN_RECORDINGS}, better "
            "on hundreds; give more, or align it with a trained model, such as english-small, without bootstrap"
        )
    alignments: Alignments = _first(found, transcripts, dictionary, progress)
    done = [Round(0, None, len(alignments))]
    for number in range(1, rounds + 1):
        _write_corpus(folder / CORPUS, found, alignments, config.features, progress)
        run = folder / f"round-{number}"
        data = {"root": str(folder / CORPUS), "train": ("train",), "dev": "dev", "test": None}
        settings = Config.check({**config.model_dump(), "data": data})
        train(settings, run=run)
        before, after, sums = alignments, dict[str, list["Segment"]](), list[tuple[float, int]]()
        for result in align(run, recordings, transcripts, dictionary=dictionary).results:
            after[result.name.rpartition("/")[2]] = result.utterance.phones
            sums.append((result.utterance.mean_log_posterior, len(result.utterance.labels)))
            progress("aligning", len(sums), len(found))
        progress("aligning", len(found), len(found))
        mean = float(np.average([m for m, _ in sums], weights=[frames for _, frames in sums])) if sums else None
        alignments = after
        done.append(Round(number, run, len(sums), mean, moved_share(before, after)))
    return done


def moved_share(before: Alignments, after: Alignments) -> float | None:
    """Return the fraction of the phones said in both that begin more than 20 ms from there; None if none is."""
    distances = []
    for name in before.keys() & after.keys():
        old, new = ([p for p in phones[name] if p.label.isalpha()] for phones in (before, after))
        if [p.label for p in old] == [p.label for p in new]:
            distances += [abs(a.start - b.start) for a, b in zip(old, new, strict=True)]
    return float(np.mean(np.array(distances) > MOVED)) if distances else None


def _first(
    found: list[Recording], transcripts: Path, dictionary: Path | None, progress: Progress
) -> dict[str, list[Segment]]:
    """Align by pocketsphinx; recordings that it cannot align are left to the models of later rounds."""
    texts = read_transcripts(transcripts)
    words = load_dictionary(ARPABET, dictionary)
    aligner = SphinxAligner(words)
    alignments: dict[str, list[Segment]] = {}
    for number, recording in enumerate(found, 1):
        text = texts.get(composed(recording.name))
        try:
            if text:
                alignments[recording.name] = aligner.align(recording.path, transcript_entries(text, words))
        except DataError:
            pass  # the rounds say what cannot be aligned at all
        progress("first alignment", number, len(found))
    if len(alignments) < MIN_RECORDINGS:
        raise DataError(
            f"bootstrap: pocketsphinx aligned {len(alignments)} of {len(found)} recordings, and a model is trained on "
            f"at least {MIN_RECORDINGS}; check that the transcripts belong to the recordings"
        )
    return alignments


def _write_corpus(
    folder: Path,
    found: list[Recording],
    alignments: Alignments,
    features: FeatureSettings,
    say: Progress,
) -> None:
    """Write the features of aligned recordings with the labels that their alignments say."""
    aligned = [recording for recording in found if recording.name in alignments]
    dev = aligned[:: max(2, min(_DEV_EVERY, len(aligned)))]
    train_part = [recording for recording in aligned if recording not in dev]
    writer = PackedWriter(
        folder,
        inventory=ARPABET,
        normalization="utterance",
        overwrite=folder.exists(),
        features=features.to_json(),
    )
    with writer:
        writer.label_shift = common_shift([boundary_shifts(phones, features.timing) for phones in alignments.values()])
        for name, part in (("train", train_part), ("dev", dev)):
            for result in extract([recording.path for recording in part], features, keep_going=True):
                if isinstance(result, Extracted):
                    recording = part[result.position]
                    labels = _labels(alignments[recording.name], features.timing, len(result.frames))
                    writer.add(name, recording.name, result.frames, labels)
                say("features", result.position + 1, len(part))


def _labels(phones: list[Segment], timing: FrameTiming, frames: int) -> NDArray[np.int64]:
    """Return the label of each frame, `[T]`; gaps are silence."""
    silence = ARPABET.silence()
    assert silence is not None
    of_phones = [*ARPABET.encode(np.array([phone.label for phone in phones])).tolist(), silence]
    return np.array(of_phones)[covering_segments(phones, timing, frames)]  # −1 is the silence at the end
