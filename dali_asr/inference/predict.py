"""Labelling every frame of a source, in order, with a run's model.

    Source ──parts──▶ WindowLoader ──batches──▶ model ──FrameScores──▶ decoder ──LabelledUtterance──▶ Labelling

Utterances flow: only the ones of a batch are in memory, and a part of the files that they are read from.

Shape letters: `B` frames of a batch, `T` frames of an utterance, `F` frames of a partition, `U` utterances, `C` labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.audio.devices import gpu_number
from dali_asr.corpus import Corpus
from dali_asr.corpus.packing import quiet
from dali_asr.device import resolve_device
from dali_asr.errors import UsageError
from dali_asr.inference.classify import by_utterance, frame_scores
from dali_asr.inference.decoding import NONE, build_decoder, check_decoding
from dali_asr.inference.files import original_duration
from dali_asr.inference.sources import open_source
from dali_asr.inference.trained import run_config
from dali_asr.runs.checkpoint import load_checkpoint, run_of
from dali_asr.segments import segments_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from dali_asr.corpus.packing import Progress
    from dali_asr.errors import DataError
    from dali_asr.inference.decoding import FrameScores
    from dali_asr.inference.files import Sound
    from dali_asr.inference.sources import Source
    from dali_asr.inventory import Inventory
    from dali_asr.runs.checkpoint import Checkpoint, Which
    from dali_asr.segments import FrameTiming, Segment


@dataclass(frozen=True, eq=False)
class LabelledUtterance:
    """An utterance with the predicted labels of its frames.

    Attributes:
        name: of the utterance.
        labels: predicted labels, `[T]` int64.
        confidences: posterior probabilities of these labels, `[T]` float32.
        posteriors: of all labels, `[T, C]` float32, each row summing to 1; None unless requested.
        sound: the recording; None of an utterance of a corpus, or of a file of features.
        origin: the recording that an utterance of a corpus was prepared from, which may no longer exist; None if the
            corpus names none.
    """

    name: str
    labels: NDArray[np.int64]
    confidences: NDArray[np.float32]
    posteriors: NDArray[np.float32] | None = None
    sound: Sound | None = None
    origin: Path | None = None

    def segments(self, inventory: Inventory, timing: FrameTiming) -> list[Segment]:
        """Return the runs of equal labels with their times and confidences.

        The last ends with the recording, or where that is not found, with its last frame.
        """
        duration = self.sound.duration if self.sound else original_duration(self.origin, len(self.labels), timing)
        return segments_of(self.labels, inventory.symbols, timing, duration=duration, probabilities=self.confidences)


@dataclass(eq=False)
class Labelling:
    """The labelled utterances of a source, to be iterated once.

    Attributes:
        partition: name of the partition.
        inventory: the label set.
        decode: how labels are chosen.
        timing: when frames are.
        names: names of all utterances.
        utterances: in the order of their names, labelled as they are asked for.
        done: number of utterances so far.
        frames: number of their frames.
        right: number of frames so far whose label is the true one.
        labelled: number of frames so far that have a true label.
    """

    partition: str
    inventory: Inventory
    decode: str
    timing: FrameTiming
    names: tuple[str, ...]
    utterances: Iterator[LabelledUtterance]
    done: int = 0
    frames: int = 0
    right: int = 0
    labelled: int = 0

    @property
    def accuracy(self) -> float | None:
        """Fraction of the labelled frames so far predicted right; None if no frame has a label."""
        return self.right / self.labelled if self.labelled else None


@dataclass(frozen=True, eq=False)
class Prediction:
    """The predicted labels of a partition.

    Attributes:
        partition: name of the partition.
        inventory: the label set.
        utterances: names of the utterances, `[U]`.
        offsets: boundaries of the utterances, `[U + 1]` int64.
        labels: predicted labels, `[F]` int64.
        confidences: posterior probabilities of these labels, `[F]` float32.
        posteriors: posterior probabilities, `[F, C]` float32, each row summing to 1; None unless requested.
        accuracy: fraction of the labelled frames predicted right; None if no frame has a label.
        timing: when frames are.
        sounds: the recordings of the utterances, `[U]`, None for those without.
        origins: the recordings that utterances of a corpus were prepared from, `[U]`; see `LabelledUtterance`.
    """

    partition: str
    inventory: Inventory
    utterances: tuple[str, ...]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    confidences: NDArray[np.float32]
    posteriors: NDArray[np.float32] | None
    accuracy: float | None
    timing: FrameTiming
    sounds: tuple[Sound | None, ...]
    origins: tuple[Path | None, ...]

    @property
    def symbols(self) -> NDArray[np.str_]:
        """Predicted symbols, `[F]`."""
        return np.array(self.inventory.symbols)[self.labels]

    def segments(self, utterance: int) -> list[Segment]:
        """Return the runs of equal labels of an utterance, given its number, with times and confidences."""
        first, end = self.offsets[utterance : utterance + 2]
        labels, confidences = self.labels[first:end], self.confidences[first:end]
        name, sound, origin = self.utterances[utterance], self.sounds[utterance], self.origins[utterance]
        one = LabelledUtterance(name, labels, confidences, sound=sound, origin=origin)
        return one.segments(self.inventory, self.timing)


def predict(
    run: str | Path,
    source: str | Path | Corpus | Sequence[str | Path],
    *,
    partition: str | None = None,
    checkpoint: Which = "best",
    decode: str = NONE,
    posteriors: bool = False,
    timing: FrameTiming | None = None,
    device: str = "auto",
    packing: Progress = quiet,
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Label every frame of a source with a trained model.

    Args:
        run: folder of a run, or of one of its checkpoints; or `english-small`, the model in the package.
        source: recordings, `.npy` files of features `[T, D]`, not normalized, or folders of them; a packed corpus, an
            opened one, a course folder, or `demo`.
        partition: name of the corpus's partition; by default the run's `data.test`, or the only one.
        checkpoint: `best` or `last`.
        decode: how labels follow from posteriors: `none`, the most probable label of each frame; `median:K`, the
            majority of K frames; `viterbi`, the best path of a bigram with durations.
        posteriors: whether to return posteriors.
        timing: when frames are; by default as the model's features say, or 25 ms every 10 ms.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        packing: called with the progress of packing a course folder.
        progress: called with the number of frames done, and of all frames.

    Raises:
        CheckpointError: the run or checkpoint is damaged, does not fit the source, or lacks what `viterbi` needs.
        DataError: the source is missing, damaged or does not fit the model.
        UsageError: an unclear or unknown partition or decoding, or sources that cannot be combined.
        DeviceError: the device is missing or has too little memory.
    """
    check_decoding(decode)
    trained, opened = prepare(run, source, partition=partition, checkpoint=checkpoint, device=device, packing=packing)
    labelling = label(
        trained, opened, decode=decode, posteriors=posteriors, timing=timing, device=device, progress=progress
    )
    utterances = list(labelling.utterances)
    return Prediction(
        labelling.partition,
        labelling.inventory,
        labelling.names,
        np.cumsum([0, *(len(utterance.labels) for utterance in utterances)], dtype=np.int64),
        np.concatenate([utterance.labels for utterance in utterances]),
        np.concatenate([utterance.confidences for utterance in utterances]),
        np.concatenate([u.posteriors for u in utterances if u.posteriors is not None]) if posteriors else None,
        labelling.accuracy,
        labelling.timing,
        tuple(utterance.sound for utterance in utterances),
        tuple(utterance.origin for utterance in utterances),
    )


def prepare(
    run: str | Path,
    source: str | Path | Corpus | Sequence[str | Path],
    *,
    partition: str | None = None,
    checkpoint: Which = "best",
    device: str = "auto",
    packing: Progress = quiet,
    failed: Callable[[Sequence[DataError]], None] | None = None,
) -> tuple[Checkpoint, Source]:
    """Load a checkpoint and open the source to label; arguments and errors as in `predict`.

    Besides, `failed` is called with the errors of files that cannot be used, which are then left out; by default the
    first is raised.
    """
    check_run(run)
    sources = listed_sources(source)
    run = Path(run).expanduser()
    trained = load_checkpoint(run, checkpoint)
    config = run_config(run_of(run), trained)
    opened = open_source(
        sources, partition, trained.description, config.data, packing, failed=failed, gpu=gpu_number(device)
    )
    return trained, opened


def listed_sources(source: object) -> list[str | Path | Corpus]:
    """Return one source or several as a list.

    Raises:
        UsageError: it is neither a path nor a corpus, nor several paths.
    """
    several = isinstance(source, Iterable) and not isinstance(source, (str, Path, Corpus))
    sources: list[Any] = list(source) if several else [source]  # type: ignore[call-overload]
    for each in sources:
        if not isinstance(each, (str, Path, Corpus)):
            raise UsageError(
                f"source: received {type(each).__name__}; give paths, or a Corpus, which Corpus.from_arrays makes of "
                "arrays; load_model(RUN).classify labels the frames of an utterance"
            )
    return sources


def check_run(run: object) -> None:
    """Check that a run is named by its folder; a `TrainedModel` has methods of its own.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(run, (str, Path)):
        raise UsageError(f"run: received {type(run).__name__}; give the folder of a run or checkpoint")


def label(
    checkpoint: Checkpoint,
    source: Source,
    *,
    decode: str = NONE,
    posteriors: bool = False,
    timing: FrameTiming | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Labelling:
    """Label an open source as its utterances are asked for; arguments and errors as in `predict`."""
    decoder = build_decoder(decode, checkpoint)
    where = resolve_device(device)
    labelling = Labelling(
        source.name,
        checkpoint.description.inventory,
        decode,
        timing or checkpoint.description.timing,
        source.utterances,
        iter(()),
    )

    def utterances() -> Iterator[LabelledUtterance]:
        for part in source.parts:
            scores = _ahead(frame_scores(checkpoint, part, where, log_posteriors=posteriors or decode != NONE))
            spans = pairwise(part.offsets.tolist())
            sounds = [*source.sounds] or [None] * len(part.utterances)
            for number, (name, sound, (first, end), of_utterance) in enumerate(
                zip(part.utterances, sounds, spans, by_utterance(scores, part.lengths), strict=True)
            ):
                labels = decoder(of_utterance)
                true = part.labels(first, end)
                if true is not None:
                    labelling.right += int((labels == true).sum())
                    labelling.labelled += int((true >= 0).sum())
                kept = of_utterance.log_posteriors if posteriors else None
                labelling.done, labelling.frames = labelling.done + 1, labelling.frames + end - first
                probabilities = None if kept is None else np.exp(kept)
                confidences, origin = of_utterance.confidences_of(labels), part.origins.recording(number)
                yield LabelledUtterance(name, labels, confidences, probabilities, sound, origin)
                if progress:
                    progress(labelling.frames, source.frame_count)

    labelling.utterances = utterances()
    return labelling


def _ahead(batches: Iterator[FrameScores]) -> Iterator[FrameScores]:
    """Yield batches, and let the model make the next one while one is decoded."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch
