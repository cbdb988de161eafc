"""States: the parts of equal length into which a segment of labels is divided, as in a hidden Markov model.

Shape letters: `F` frames of a partition, `K` states of a label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.corpus.partition import Partition


def frame_states(partition: Partition, states: int) -> NDArray[np.int8]:
    """Return in which part of its segment each frame is, `[F]`, from 0 to K − 1.

    Silence is not divided: its state is 0.

    Args:
        partition: with labels.
        states: number of states of a label, K.
    """
    labels, offsets = partition.labels(dtype=np.int32), partition.offsets
    assert labels is not None
    begins = np.ones(len(labels), np.bool_)
    begins[1:] = labels[1:] != labels[:-1]
    begins[offsets[:-1]] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, len(labels)))
    found = state_of(np.arange(len(labels)) - starts.repeat(lengths), lengths.repeat(lengths), states).astype(np.int8)
    silence = partition.inventory.silence()
    if silence is not None:
        found[labels == silence] = 0
    return found


def state_of(frame: NDArray[np.int64], frames: NDArray[np.int64], states: int) -> NDArray[np.int64]:
    """Return the state of a frame, counted from 0, of a segment of so many frames: the part that holds its center."""
    found: NDArray[np.int64] = (2 * frame + 1) * states // (2 * frames)
    return found
