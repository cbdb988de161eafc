"""The utterances that a model labels worst and best, kept while a partition is evaluated.

Shape letters: `T` frames shown of an utterance, `B` frames of a batch, `C` labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from dali_asr.corpus import Partition

MAX_FRAMES = 800  # shown of an utterance: its first eight seconds
_MIN_FRAMES = 50  # of an utterance that is judged, unless all are shorter: a few frames are all right or all wrong


@dataclass(frozen=True, eq=False)
class Example:
    """The beginning of an utterance with the model's posteriors.

    Attributes:
        name: of the utterance.
        position: number of the utterance in its partition.
        frames: number of its labelled frames.
        accuracy: fraction of them predicted right.
        true: true labels of the first frames, `[T]` int64; negative for frames without a label.
        posteriors: of the same frames, `[T, C]` float32.
        complete: whether all of the utterance's frames are shown.
    """

    name: str
    position: int
    frames: int
    accuracy: float
    true: NDArray[np.int64]
    posteriors: NDArray[np.float32]
    complete: bool

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Predicted labels of the frames shown, `[T]`."""
        labels: NDArray[np.int64] = self.posteriors.argmax(axis=1).astype(np.int64)
        return labels


class Examples:
    """Keeps the utterances with the lowest and the highest frame accuracy.

    Give `add` to `score` as its observer. Only the utterances kept so far are in memory.

    Args:
        partition: the partition, labelled.
        count: number of utterances to keep of either kind.
    """

    def __init__(self, partition: Partition, count: int) -> None:
        true = partition.labels()
        assert true is not None
        self._true, self._count = true, count
        self._partition = partition
        self._offsets = partition.offsets
        labelled = np.diff(np.concatenate([[0], np.cumsum(true >= 0)])[self._offsets])
        judged = labelled >= _MIN_FRAMES
        self._labelled = labelled
        self._judged = judged if judged.any() else labelled > 0
        self._at = self._utterance = self._right = 0
        self._logits: list[torch.Tensor] = []  # of the first frames of the utterance under way
        self._worst: list[Example] = []
        self._best: list[Example] = []

    @property
    def worst(self) -> list[Example]:
        """The utterances with the lowest accuracy, lowest first."""
        return list(self._worst)

    @property
    def best(self) -> list[Example]:
        """The utterances with the highest accuracy, highest first, without those that are among the worst."""
        names = {id(example) for example in self._worst}
        return [example for example in self._best if id(example) not in names]

    def add(self, logits: torch.Tensor) -> None:
        """Take the logits `[B, C]` of the next frames."""
        right = logits.argmax(dim=1).cpu().numpy() == self._true[self._at : self._at + len(logits)]
        done = 0
        while done < len(logits):
            start, end = self._offsets[self._utterance : self._utterance + 2].tolist()
            count = min(end - self._at, len(logits) - done)
            self._right += int(right[done : done + count].sum())
            shown = min(count, start + MAX_FRAMES - self._at)
            if shown > 0:
                self._logits.append(logits[done : done + shown])
            done += count
            self._at += count
            if self._at == end:
                self._finish(start, end)

    def _finish(self, start: int, end: int) -> None:
        """Keep the utterance if it is among the worst or the best so far, and begin the next one."""
        at, frames = self._utterance, int(self._labelled[self._utterance])
        accuracy = self._right / max(frames, 1)
        low = len(self._worst) < self._count or accuracy < self._worst[-1].accuracy
        high = len(self._best) < self._count or accuracy > self._best[-1].accuracy
        if self._judged[at] and (low or high):
            name = self._partition.utterances[at]
            true = self._true[start : min(end, start + MAX_FRAMES)]
            example = Example(name, at, frames, accuracy, true, self._posteriors(), end - start <= MAX_FRAMES)
            if low:
                self._worst = sorted([*self._worst, example], key=lambda e: e.accuracy)[: self._count]
            if high:
                self._best = sorted([*self._best, example], key=lambda e: -e.accuracy)[: self._count]
        self._utterance += 1
        self._right = 0
        self._logits = []

    def _posteriors(self) -> NDArray[np.float32]:
        parts: list[NDArray[np.float32]] = [logits.softmax(dim=1).cpu().numpy() for logits in self._logits]
        return np.concatenate(parts)
