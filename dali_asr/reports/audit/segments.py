"""Segments, and how much the folds doubt the label of each.

Frames alone say too little of a phone of five of them. A second model reads whole segments: their posteriors, their
durations, and which labels stand beside them.

Shape letters: `F` frames, `U` utterances, `S` segments, `C` labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus import Partition

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOOR = -12.0  # nats


@dataclass(frozen=True, eq=False)
class Segments:
    """Runs of equal labels within utterances, unlabelled ones included.

    Attributes:
        starts: first frame of each, `[S]`.
        ends: the frame after its last, `[S]`.
        labels: `[S]`, −100 where the frames have none.
        utterances: number of each one's utterance, `[S]`.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    labels: NDArray[np.int64]
    utterances: NDArray[np.int64]

    @classmethod
    def of(cls, labels: NDArray[np.int64], offsets: NDArray[np.int64]) -> Segments:
        """Return the segments of labels `[F]` in utterances that begin at `offsets` `[U + 1]`."""
        changes = np.flatnonzero(np.diff(labels)) + 1
        bounds = np.unique(np.concatenate([changes, offsets]))
        starts, ends = bounds[:-1], bounds[1:]
        utterances = np.searchsorted(offsets, starts, side="right") - 1
        return cls(starts, ends, labels[starts], utterances)

    def __len__(self) -> int:
        """Return the number of segments."""
        return len(self.starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames per segment, `[S]`."""
        return self.ends - self.starts

    @cached_property
    def ends_utterance(self) -> NDArray[np.bool_]:
        """Whether a segment is the last of its utterance, `[S]`."""
        return np.concatenate([np.diff(self.utterances) != 0, [True]])

    def beside(self, values: NDArray[Any], distance: int, fill: float) -> NDArray[Any]:
        """Return the values `[S, ...]` of the segments some places later; `fill` beyond the utterance's ends."""
        source = np.arange(len(self)) + distance
        inside = (source >= 0) & (source < len(self))
        source = np.where(inside, source, 0)
        inside &= self.utterances[source] == self.utterances
        shape = (-1, *[1] * (values.ndim - 1))
        return np.where(inside.reshape(shape), values[source], fill)


def as_frames(partition: Partition, segments: Segments, log_posteriors: NDArray[np.float32]) -> Partition:
    """Return a partition whose frames are the segments of another, so that a model can be trained on them.

    A segment's features are the mean log posteriors of its three thirds and of the segments beside it, the durations of
    all three, and the given labels of the two segments on either side: everything but its own label.

    Args:
        partition: the audited partition.
        segments: its segments.
        log_posteriors: of every frame, `[F, C]`, by a model that was not trained on its utterance.

    Returns:
        A partition of the same utterances with `[S]` frames, stored as float16.
    """
    classes = log_posteriors.shape[1]
    third = np.maximum(segments.lengths // 3, 1)
    thirds = [
        (segments.starts, segments.starts + third),
        (segments.starts + segments.lengths // 3, segments.ends - segments.lengths // 3),
        (segments.ends - third, segments.ends),
    ]
    means = _means(log_posteriors, segments.starts, segments.ends)
    durations = np.log(segments.lengths.astype(np.float32))
    labels = np.where(segments.labels >= 0, segments.labels, classes)
    one_of = np.eye(classes + 1, dtype=np.float16)
    features = [
        *(_means(log_posteriors, *bounds) for bounds in thirds),
        *(segments.beside(means, distance, 0) for distance in (-1, 1)),
        *(segments.beside(durations, distance, 0)[:, None] for distance in (-1, 0, 1)),
        *(one_of[segments.beside(labels, distance, classes)] for distance in (-2, -1, 1, 2)),
    ]
    stored = np.where(segments.labels >= 0, segments.labels, partition.inventory.unlabelled)
    return Partition.from_memory(
        partition.name,
        partition.inventory,
        partition.utterances,
        np.bincount(segments.utterances, minlength=len(partition.utterances)),
        np.concatenate(features, axis=1, dtype=np.float16, casting="same_kind"),
        stored.astype(partition.inventory.label_dtype),
    )


def label_doubt(
    segments: Segments, log_posteriors: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return how much the folds doubt each segment's label, and the label that they prefer.

    Args:
        segments: the segments.
        log_posteriors: of every segment, `[S, C]`, by a model that was not trained on its utterance.

    Returns:
        The log ratio of the posteriors of best and given label, `[S]` in nats, 0 for unlabelled segments; and the best
        labels `[S]`.
    """
    given = np.maximum(segments.labels, 0)
    doubt = log_posteriors.max(axis=1) - np.take_along_axis(log_posteriors, given[:, None], axis=1)[:, 0]
    return np.where(segments.labels >= 0, doubt, 0).astype(np.float64), log_posteriors.argmax(axis=1)


def _means(
    log_posteriors: NDArray[np.float32], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the mean log posteriors of spans of frames, `[S, C]`, limited and scaled to about 1."""
    sums = np.zeros((len(log_posteriors) + 1, log_posteriors.shape[1]))
    np.cumsum(log_posteriors, axis=0, out=sums[1:])
    means = (sums[ends] - sums[starts]) / (ends - starts)[:, None]
    scaled: NDArray[np.float32] = (np.maximum(means, _FLOOR) / -_FLOOR * 3).astype(np.float32)
    return scaled
