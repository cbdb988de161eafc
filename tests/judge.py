"""The judge of the loader: plain NumPy that loops over frames and shares no code with what it judges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dali_asr import Partition, WindowLoader
    from dali_asr.plan import Plan


def judge_windows(utterances: Sequence[NDArray[Any]], left: int, right: int, plan: Plan, dtype: str) -> NDArray[Any]:
    """Return the windows `[B, W, D]` of a plan, value by value in loops over frames."""
    owner = [(u, t) for u, frames in enumerate(utterances) for t in range(len(frames))]
    windows = np.zeros((len(plan.frame_ids), left + 1 + right, utterances[0].shape[1]), dtype)
    for b, number in enumerate(plan.frame_ids):
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


def as_arrays(batch: Any) -> tuple[Any, ...]:
    return tuple(tensor.cpu().numpy() for tensor in batch)


def same_batch(a: Any, b: Any) -> bool:
    return all(same_bits(x, y) for x, y in zip(as_arrays(a), as_arrays(b), strict=True))


def assert_judged(partition: Partition, loader: WindowLoader, arguments: dict[str, Any], epochs: int = 2) -> None:
    """Hold whole epochs of a loader to the judge.

    So no window crosses an utterance, labels belong to their frames, and each frame comes once an epoch.
    """
    utterances = list(partition.frames())
    truth = partition.labels()
    assert truth is not None
    for epoch in range(epochs):
        read = []
        for step, batch in enumerate(loader):
            windows, labels, frames = as_arrays(batch)
            plan = loader.planner.plan(epoch, step)
            left, right = arguments["context"]
            assert same_bits(windows, judge_windows(utterances, left, right, plan, arguments["dtype"]))
            assert labels.dtype == frames.dtype == np.int64
            assert np.array_equal(frames, plan.frame_ids)
            assert np.array_equal(labels, truth[frames])
            read.append(frames)
        assert len(read) == len(loader)
        seen = np.concatenate([np.zeros(0, np.int64), *read])
        assert len(np.unique(seen)) == len(seen)
        if not arguments["drop_last"]:
            assert np.array_equal(np.sort(seen), np.arange(0, partition.frame_count, arguments["subset"]))
