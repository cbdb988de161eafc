"""Labels of frames as spans, and what the folds say, without the jitter of single frames.

Shape letters: `T` frames of an utterance, `C` labels.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.segments import FrameTiming

_CHANGE = 4.0  # nats that a change of label costs


def frame_edges(frames: int, timing: FrameTiming) -> list[float]:
    """Return the times in seconds at which the first frames begin, and the last ends; the first begins at 0."""
    return [0.0, *timing.edges(frames)[1:].tolist()]


def label_spans(values: NDArray[Any]) -> list[tuple[int, int, Any]]:
    """Return the runs of equal values `[T]`: first frame, frame after the last one, value."""
    bounds = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    return [(a, b, values[a]) for a, b in pairwise(bounds)]


def smoothed_labels(log_posteriors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the most probable labels `[T]` if every change of label costs some nats (Viterbi), of `[T, C]`."""
    length = len(log_posteriors)
    stays = np.ones(log_posteriors.shape, np.bool_)
    best = np.zeros(length, np.int64)
    score = log_posteriors[0].astype(np.float64)
    for frame in range(1, length):
        best[frame] = score.argmax()
        changed = score[best[frame]] - _CHANGE
        stays[frame] = score >= changed
        score = np.maximum(score, changed) + log_posteriors[frame]
    labels = np.empty(length, np.int64)
    labels[-1] = score.argmax()
    for frame in range(length - 1, 0, -1):
        labels[frame - 1] = labels[frame] if stays[frame, labels[frame]] else best[frame]
    return labels
