"""How far the boundaries of decoded segments are from the true ones.

A decoded utterance has other segments than the true one, so boundaries are matched first. A shortest edit path aligns
the sequences of symbols. A true boundary is matched where the symbols on either side of it are aligned with equal
symbols that are neighbours in the decoded sequence; the boundary between those is its match. So an error says how well
the boundary between two given phones is placed, and `matched` how many are found at all.

If the decoded phones are the true ones, every boundary is matched. The errors are then those by which forced alignment
is evaluated, on TIMIT and elsewhere: the mean, and the share within a tolerance such as 20 ms (Hosom 2009,
"Speaker-independent phoneme alignment using transition-dependent states", Speech Communication 51; McAuliffe et al.
2017, "Montreal Forced Aligner").

Shape letters: `F` frames of a partition, `T` frames of an utterance, `U` utterances, `S` segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz.distance import Levenshtein

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCES = (10, 20, 50)  # milliseconds


@dataclass(frozen=True)
class BoundaryScores:
    """How well boundaries are placed; None where none is matched, or there is none.

    Attributes:
        count: number of true boundaries between labelled frames.
        matched: fraction of them that have a match.
        mean: mean distance of matched boundaries to their match, in seconds.
        median: median of these distances, in seconds.
        within_10_ms: fraction of the matched boundaries at most 10 ms from their match.
        within_20_ms: the same for 20 ms.
        within_50_ms: the same for 50 ms.
    """

    count: int
    matched: float | None
    mean: float | None
    median: float | None
    within_10_ms: float | None
    within_20_ms: float | None
    within_50_ms: float | None


def score_boundaries(
    predicted: NDArray[np.int64], true: NDArray[np.int64], offsets: NDArray[np.int64], period: float
) -> BoundaryScores:
    """Score the boundaries of the segments of a partition.

    Args:
        predicted: predicted labels, `[F]`.
        true: true labels, `[F]`; frames with a negative one are removed from both. Where they were is no boundary.
        offsets: boundaries of the utterances, `[U + 1]`.
        period: time from one frame to the next, in seconds.
    """
    count, distances = 0, []
    for first, end in pairwise(offsets.tolist()):
        found, of_utterance = _distances(predicted[first:end], true[first:end])
        count += found
        distances.append(of_utterance)
    frames = np.concatenate(distances) if distances else np.zeros(0, np.int64)
    if not len(frames):
        return BoundaryScores(count, 0.0 if count else None, None, None, None, None, None)
    # In whole microseconds: a multiple of 10 ms may be a little more than it in seconds.
    within = [float((np.round(frames * period * 1e6) <= tolerance * 1000).mean()) for tolerance in TOLERANCES]
    return BoundaryScores(
        count, len(frames) / count, float(frames.mean() * period), float(np.median(frames) * period), *within
    )


def _distances(predicted: NDArray[np.int64], true: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Return the number of true boundaries of an utterance, and the distances of the matched ones in frames."""
    places = np.flatnonzero(true >= 0)
    ours, theirs = _starts(predicted[places]), _starts(true[places])
    after_gap = np.append(False, np.diff(places) > 1)[theirs] if len(places) else np.zeros(0, np.bool_)
    real = ~after_gap[1:]  # the first segment begins at no boundary
    blocks = Levenshtein.editops(predicted[places][ours].tolist(), true[places][theirs].tolist()).as_matching_blocks()
    found = []
    for block in blocks:
        inner = np.arange(1, block.size)
        a, b = block.a + inner, block.b + inner
        found.append(np.abs(places[ours[a]] - places[theirs[b]])[real[b - 1]])
    return int(real.sum()), np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)


def _starts(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the runs of equal labels begin, `[S]`."""
    starts = np.ones(len(labels), np.bool_)
    starts[1:] = labels[1:] != labels[:-1]
    return np.flatnonzero(starts)
