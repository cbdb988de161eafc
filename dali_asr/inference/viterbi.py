"""The most probable sequence of segments: a bigram of labels and explicit durations, searched by Viterbi.

This is a hidden semi-Markov model (Levinson 1986, "Continuously variable duration hidden Markov models for automatic
speech recognition"). A path cuts an utterance into segments, neighbours of different labels, and scores

    acoustic_scale · Σ frames    log p(label | frame) − prior_exponent · log p(label)
                   + Σ segments  log p(label | label before) + duration_weight · log p(duration | label)

where p(label | frame) / p(label) is the scaled likelihood of hybrid models (Bourlard and Morgan 1994, "Connectionist
speech recognition"). The bigram also says which labels begin and end utterances. It is smoothed by the frequency of
labels, and durations by those of all labels, after Witten and Bell (1991, "The zero-frequency problem"). Durations
above M frames are geometric.

Shape letters: `T` frames of an utterance, `C` labels, `K` labels that occur in training, `M` durations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from dali_asr.corpus.segment_counts import SegmentCounts

_BLOCK = 4096  # frames whose scores are in memory at once


@dataclass(frozen=True)
class ViterbiWeights:
    """How much the parts of a path's score count, relative to the bigram.

    The defaults gave the lowest phoneme error rate on real speech; `benchmarks/README.md` says how they were found.

    Attributes:
        acoustic_scale: of the log posteriors. Below 1, since neighbouring frames say nearly the same.
        prior_exponent: of the priors that posteriors are divided by.
        duration_weight: of the log probabilities of durations.
        max_duration: the longest duration with a probability of its own, M, in frames.
    """

    acoustic_scale: float = 0.8
    prior_exponent: float = 0.5
    duration_weight: float = 1.0
    max_duration: int = 30


@dataclass(frozen=True)
class _Tables:
    """The best paths, per frame and label `[T, K]`.

    Attributes:
        durations: of the best segment that ends with the frame; 0 for one longer than M.
        grown: whether the best segment longer than M that holds the frame has M + 1 frames up to it.
        before: the best label that ends with the frame if the label begins after it.
        last: the label of the last segment of the best path.
    """

    durations: NDArray[Any]
    grown: NDArray[np.bool_]
    before: NDArray[Any]
    last: int


class Viterbi:
    """Finds the best path through the posteriors of an utterance.

    Args:
        counts: of the segments of the training partition, of which at least one frame has a label.
        weights: of the parts of the score.
    """

    def __init__(self, counts: SegmentCounts, weights: ViterbiWeights | None = None) -> None:
        self.weights = weights = weights or ViterbiWeights()
        self.labels = np.flatnonzero(counts.frames)
        frames = counts.frames[self.labels]
        self._log_priors = np.log(frames / frames.sum()).astype(np.float32)
        kept = np.append(self.labels, len(counts.frames))
        bigram = log_bigram(counts.transitions[np.ix_(kept, kept)])
        self._first, self._last = bigram[-1, :-1], bigram[:-1, -1]
        self._arcs = np.ascontiguousarray(bigram[:-1, :-1].T)  # to, from
        durations, stay = fit_durations(counts.durations[self.labels], weights.max_duration)
        log_durations = weights.duration_weight * np.log(durations)
        self._durations = log_durations[:, -2::-1].copy()  # of M, ..., 1 frames
        self._beyond = log_durations[:, -1]
        self._stay, self._leave = weights.duration_weight * np.log(stay), weights.duration_weight * np.log1p(-stay)

    def decode(self, log_posteriors: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the labels of the best path, `[T]`, given log posteriors `[T, C]`."""
        if not len(log_posteriors):
            return np.zeros(0, np.int64)
        return self.labels[self._trace(self._search(log_posteriors))]

    def _scores(self, log_posteriors: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Yield the acoustic scores of each frame, `[K]`."""
        scale, exponent = np.float32(self.weights.acoustic_scale), np.float32(self.weights.prior_exponent)
        for first in range(0, len(log_posteriors), _BLOCK):
            yield from scale * (log_posteriors[first : first + _BLOCK, self.labels] - exponent * self._log_priors)

    def _search(self, log_posteriors: NDArray[np.float32]) -> _Tables:
        """Find the best path to each frame and label, frame by frame, given log posteriors `[T, C]`.

        `entries` holds the best scores of the paths up to a segment's first frame, less the sum `total` of the label's
        acoustic scores up to there. So they are compared without the frames that have come since.
        """
        count, labels, longest = len(log_posteriors), len(self.labels), self._durations.shape[1]
        durations = np.empty((count, labels), np.min_scalar_type(longest))
        grown, before = np.empty((count, labels), np.bool_), np.empty((count, labels), np.min_scalar_type(labels))
        rows, total = np.arange(labels), np.zeros(labels)
        entries = np.full((labels, 2 * longest), -np.inf)  # a ring of M slots, twice, so that any M are contiguous
        entries[:, 0] = entries[:, longest] = self._first
        leaving, tail = np.full((2, labels), -np.inf)  # entries M + 1 frames ago, and longer ago
        candidates, arcs = np.empty((labels, longest + 1)), np.empty((labels, labels))
        best = self._first
        for frame, scores in enumerate(self._scores(log_posteriors)):
            total += scores
            oldest = (frame + 1) % longest  # the slot of the entry M frames ago
            np.add(entries[:, oldest : oldest + longest], self._durations, out=candidates[:, :-1])
            tail += self._stay
            leaving += self._beyond
            np.greater(leaving, tail, out=grown[frame])
            np.maximum(leaving, tail, out=tail)
            np.add(tail, self._leave, out=candidates[:, -1])
            chosen = candidates.argmax(axis=1)
            durations[frame] = longest - chosen
            best = candidates[rows, chosen] + total
            np.add(self._arcs, best, out=arcs)
            previous = arcs.argmax(axis=1)
            before[frame] = previous
            leaving[:] = entries[:, oldest]
            entries[:, oldest] = entries[:, oldest + longest] = arcs[rows, previous] - total
        return _Tables(durations, grown, before, int((best + self._last).argmax()))

    def _trace(self, tables: _Tables) -> NDArray[np.int64]:
        """Follow the tables back from the last segment; return the path `[T]` as positions among the K labels."""
        longest, end, label = self._durations.shape[1], len(tables.durations), tables.last
        path = np.empty(end, np.int64)
        while end > 0:
            length = int(tables.durations[end - 1, label])
            if not length:
                length = longest + 1
                while not tables.grown[end - 1 - (length - longest - 1), label]:
                    length += 1
            path[end - length : end] = label
            end -= length
            if end:
                label = int(tables.before[end - 1, label])
        return path


def log_bigram(transitions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the log probabilities that a label (column) follows another (row), given their counts.

    Both `[K + 1, K + 1]`; the last row and column stand for the boundary of an utterance. No label follows itself.
    """
    found = np.maximum((transitions > 0).sum(axis=1, keepdims=True), 1)
    share = (transitions.sum(axis=0) + 1) / (transitions.sum() + len(transitions))
    smooth = transitions + found * share
    np.fill_diagonal(smooth, 0)
    with np.errstate(divide="ignore"):
        bigram: NDArray[np.float64] = np.log(smooth / smooth.sum(axis=1, keepdims=True))
    return bigram


def fit_durations(counts: NDArray[np.int64], longest: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the probabilities of durations, given the counts of durations 1, 2, ... `[K, more than M]`.

    Args:
        counts: number of segments by label and duration.
        longest: the longest duration with a probability of its own, M.

    Returns:
        The probabilities of durations 1, ..., M and of longer ones, `[K, M + 1]`; and that a segment of more than M
        frames goes on after a frame, `[K]`.
    """
    within, longer = counts[:, :longest], counts[:, longest:]
    binned = np.column_stack([within, longer.sum(axis=1)])
    found = np.maximum((binned > 0).sum(axis=1, keepdims=True), 1)
    share = (binned.sum(axis=0) + 1) / (binned.sum() + longest + 1)
    probabilities = (binned + found * share) / (binned.sum(axis=1, keepdims=True) + found)
    more = longer @ np.arange(longer.shape[1])  # frames beyond M + 1
    typical = max(more.sum() / max(longer.sum(), 1), 1)
    mean = (more + typical) / (binned[:, -1] + 1)
    return probabilities, mean / (1 + mean)
