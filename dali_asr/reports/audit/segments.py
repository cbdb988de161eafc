"""Segments, and how much the folds doubt the label of each.

Shape letters: `F` frames, `U` utterances, `S` segments, `C` labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PRIOR_COUNT = 5.0  # segments that a neighbour's counts are smoothed with
_FRAMES = 8  # frames of a segment are not independent: longer segments weigh no more


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
    def begins_utterance(self) -> NDArray[np.bool_]:
        """Whether a segment is the first of its utterance, `[S]`."""
        return np.concatenate([[True], np.diff(self.utterances) != 0])

    @cached_property
    def ends_utterance(self) -> NDArray[np.bool_]:
        """Whether a segment is the last of its utterance, `[S]`."""
        return np.concatenate([np.diff(self.utterances) != 0, [True]])


def label_doubt(segments: Segments, log_posteriors: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return how much the folds doubt each segment's label, and the label that they prefer.

    The evidence for a label is the mean log posterior over the segment, times the root of its length, plus what the
    labels before and after it say: the log of how often, in this corpus, the label stands between such neighbours
    against how often it stands anywhere. The doubt is the evidence for the best label minus that for the given one.

    Args:
        segments: the segments.
        log_posteriors: of every frame, `[F, C]`.

    Returns:
        Doubt `[S]` in nats, 0 where the folds agree and for unlabelled segments; preferred labels `[S]`.
    """
    means = np.add.reduceat(log_posteriors, segments.starts, axis=0, dtype=np.float64)
    means /= segments.lengths[:, None]
    weights = np.sqrt(np.minimum(segments.lengths, _FRAMES))
    evidence = means * weights[:, None] + _neighbours(segments, log_posteriors.shape[1])
    given = np.maximum(segments.labels, 0)
    doubt = evidence.max(axis=1) - np.take_along_axis(evidence, given[:, None], axis=1)[:, 0]
    return np.where(segments.labels >= 0, doubt, 0.0), evidence.argmax(axis=1)


def _neighbours(segments: Segments, classes: int) -> NDArray[np.float64]:
    """Return what the labels on both sides say of each label, `[S, C]` in nats."""
    none = classes  # no label, or no neighbour
    labels = np.where(segments.labels >= 0, segments.labels, none)
    before = np.where(segments.begins_utterance, none, np.concatenate([[none], labels[:-1]]))
    after = np.where(segments.ends_utterance, none, np.concatenate([labels[1:], [none]]))
    share = np.bincount(labels, minlength=classes + 1)[:classes] + 1e-3
    share = share / share.sum()
    found = -np.log(share)[None].repeat(len(labels), axis=0)
    for beside in (before, after):
        counts = np.zeros((classes + 1, classes + 1))
        np.add.at(counts, (beside, labels), 1)
        smoothed = counts[:, :classes] + _PRIOR_COUNT * share
        found += np.log(smoothed / smoothed.sum(axis=1, keepdims=True))[beside]
    return found
