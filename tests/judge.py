"""The judge of the loader: plain NumPy that loops over frames and shares no code with what it judges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dali_asr.loading import Plan


def judge_windows(utterances: Sequence[NDArray[Any]], left: int, right: int, plan: Plan, dtype: str) -> NDArray[Any]:
    """Return the windows `[B, W, D]` of a plan, value by value in loops over frames."""
    owner = [(u, t) for u, frames in enumerate(utterances) for t in range(len(frames))]
    windows = np.zeros((len(plan.frames), left + 1 + right, utterances[0].shape[1]), dtype)
    for b, number in enumerate(plan.frames):
        u, t = owner[int(number)]
        for w in range(left + 1 + right):
            source = t - left + w
            if 0 <= source < len(utterances[u]):
                windows[b, w] = utterances[u][source].astype(dtype)
        for first, end in plan.time[b]:
            windows[b, first:end] = 0
        for first, end in plan.frequency[b]:
            windows[b, :, first:end] = 0
    return windows


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Say whether two arrays are equal in shape, dtype and every bit; −0.0 is not 0.0."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
