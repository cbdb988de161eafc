"""What the features alone tell: equal utterances, and values that do not change.

Shape letters: `T` frames of an utterance, `D` features of a frame, `U` utterances.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from dali_asr.corpus import Partition

_SKETCH = 16  # frames per utterance that candidates are found by
_NEAR = 0.02  # distance of near duplicates, relative to the norm
_MIN_RUN = 20  # frames without any change: 200 ms
_MIN_CLIPPED = 10  # frames at the highest value
_CLIPPED_SHARE = 0.05


def sketch(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return some evenly spaced frames of an utterance `[T, D]` as one vector of `_SKETCH · D` values."""
    rows = np.linspace(0, len(frames) - 1, _SKETCH).round().astype(np.int64)
    found: NDArray[np.float32] = frames[rows].ravel()
    return found


def duplicates(partition: Partition, sketches: NDArray[np.float32]) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of utterances with equal or nearly equal frames, the first of all equal ones before each other one.

    Utterances of equal length are compared by their sketches, and then frame by frame; near is a distance below 2 % of
    the norm.

    Args:
        partition: the partition.
        sketches: of every utterance, `[U, ...]`.

    Yields:
        The numbers of both, and the relative distance of their frames, 0 for equal ones.
    """
    by_length: dict[int, list[int]] = {}
    for number, length in enumerate(partition.lengths.tolist()):
        by_length.setdefault(length, []).append(number)
    repeated: set[int] = set()
    for numbers in by_length.values():
        for first, other in combinations(numbers, 2):
            if first in repeated or other in repeated or _distance(sketches[first], sketches[other]) > 2 * _NEAR:
                continue
            distance = _distance(_frames(partition, first), _frames(partition, other))
            if distance <= _NEAR:
                repeated.add(other)
                yield first, other, distance


def constant_runs(frames: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Return the spans of an utterance `[T, D]` in which no feature changes for 200 ms or more."""
    same = np.concatenate([[False], (np.diff(frames, axis=0) == 0).all(axis=1), [False]])
    edges = np.flatnonzero(np.diff(same.astype(np.int8)))
    starts, ends = edges[::2], edges[1::2] + 1
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True) if end - start >= _MIN_RUN]


def clipped_features(frames: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Return the features of an utterance `[T, D]` that stay at their highest value, and in how many frames each.

    A feature that never changes is not meant.
    """
    if not len(frames):
        return []
    highest = frames.max(axis=0)
    counts = (frames == highest).sum(axis=0)
    stays = (counts >= max(_MIN_CLIPPED, _CLIPPED_SHARE * len(frames))) & (frames.min(axis=0) < highest)
    return [(int(feature), int(counts[feature])) for feature in np.flatnonzero(stays)]


def _frames(partition: Partition, number: int) -> NDArray[np.float32]:
    (frames,) = partition.pick([number]).frames()
    return np.asarray(frames, np.float32)


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    norm = float(np.linalg.norm(a))
    return float(np.linalg.norm(a - b)) / norm if norm else float(np.linalg.norm(b) > 0)
