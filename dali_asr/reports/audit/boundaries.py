"""Boundaries between segments that the posteriors would explain better elsewhere.

Shape letters: `F` frames, `S` segments, `C` labels, `N` boundaries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.reports.audit.segments import Segments

MIN_SHIFT = 3  # frames; aligners and people differ by up to 20 ms
MAX_SHIFT = 10  # frames in either direction


def boundary_shifts(
    segments: Segments, log_posteriors: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return how far each boundary should move, and what the move gains.

    Moving the boundary between labels `a` and `b` gives the frames in between the other label. The gain is the sum of
    their log posterior ratios, divided by the root of their number, since neighbouring frames are not independent. Both
    segments keep at least one frame.

    Args:
        segments: the segments.
        log_posteriors: of every frame, `[F, C]`.

    Returns:
        The segments that the boundaries end, `[N]`; frames to move each by, `[N]`, negative for earlier; and the
        gain `[N]` in nats, 0 where no shift of at least `MIN_SHIFT` gains anything.
    """
    labelled = segments.labels >= 0
    left = np.flatnonzero(~segments.ends_utterance[:-1] & labelled[:-1] & labelled[1:])
    right = left + 1
    at, a, b = segments.ends[left], segments.labels[left], segments.labels[right]
    best, shift = np.zeros(len(left)), np.zeros(len(left), np.int64)
    for sign, room in ((1, segments.lengths[right]), (-1, segments.lengths[left])):
        gain = np.zeros(len(left))
        for distance in range(1, MAX_SHIFT + 1):
            movable = room > distance
            frame = np.where(movable, at + (distance - 1 if sign > 0 else -distance), 0)
            ratio = log_posteriors[frame, a].astype(np.float64) - log_posteriors[frame, b]
            gain += sign * ratio
            scaled = gain / np.sqrt(distance)
            better = movable & (scaled > best)
            best[better], shift[better] = scaled[better], sign * distance
    best[np.abs(shift) < MIN_SHIFT] = 0
    return left, shift, best
