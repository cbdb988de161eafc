"""Steps: every position once, the same global batches on any number of ranks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dali_asr import Masking, WindowLoader
from dali_asr.errors import UsageError
from dali_asr.plan import LoaderSpec
from dali_asr.plan.steps import Steps
from tests.judge import as_arrays, same_batch
from tests.makers import make_partition


@given(st.integers(0, 400), st.integers(1, 50), st.booleans())
def test_batches_cut_the_epoch_into_runs(positions: int, batch_size: int, drop_last: bool) -> None:
    steps = Steps(positions, batch_size, drop_last)
    bounds = [steps.bounds(step) for step in range(steps.count)]
    sizes = [end - first for first, end in bounds]
    if drop_last:
        assert sizes == [batch_size] * (positions // batch_size)
        return
    assert sum(sizes) == positions
    assert all(end == first for (_, end), (first, _) in pairwise(bounds))
    assert len(sizes) == -(-positions // batch_size), "as many as a DataLoader has"
    assert max(sizes, default=0) <= batch_size
    assert min(sizes, default=batch_size) >= min(batch_size, positions) // 2
    assert min(sizes, default=2) >= 2 or positions == 1 or batch_size <= 2
    assert (steps.min_size, steps.max_size) == (min(sizes, default=0), max(sizes, default=0))
    assert all(size == batch_size for size in sizes[: steps.whole])


@given(st.integers(1, 400), st.integers(1, 12), st.sampled_from([2, 3, 4, 8]), st.booleans())
def test_ranks_share_every_step(positions: int, least: int, world_size: int, drop_last: bool) -> None:
    """The union of their batches is the global batch of one rank, in the same order; nobody has fewer than two."""
    batch_size = least + 3
    alone = Steps(positions, batch_size * world_size, drop_last)
    if positions < 2 * world_size and not drop_last:
        with pytest.raises(UsageError, match=f"{positions} windows for {world_size} ranks"):
            LoaderSpec(positions, 1, (0, 0), batch_size, drop_last=drop_last, world_size=world_size)
        return
    ranks = [Steps(positions, batch_size, drop_last, rank, world_size) for rank in range(world_size)]
    assert {rank.count for rank in ranks} == {alone.count}
    for step in range(alone.count):
        spans = [rank.span(step) for rank in ranks]
        assert (spans[0][0], spans[-1][1]) == alone.bounds(step)
        assert all(end == first for (_, end), (first, _) in pairwise(spans))
        assert all(2 <= end - first <= batch_size for first, end in spans)


@settings(max_examples=15, deadline=None)
@given(st.integers(5, 15), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]), st.booleans(), st.data())
def test_a_state_continues_on_another_world_size(
    length: int, before: int, after: int, streamed: bool, data: st.DataObject
) -> None:
    """The global sequence of windows, masks and labels is that of one rank alone."""
    partition = make_partition([length] * 12)
    arguments: dict[str, Any] = {"context": 4, "seed": 5, "device": "cpu"}
    arguments["masking"] = None if length % 3 == 0 else Masking(scope="batch" if length % 3 == 1 else "window")
    if streamed:  # two groups of four utterances
        arguments["memory_budget"] = 2 * (4 + 4 * (length + 4)) * (5 * 4 + 1)

    def ranks(world_size: int) -> list[WindowLoader]:
        return [
            WindowLoader(partition, batch_size=16 // world_size, rank=rank, world_size=world_size, **arguments)
            for rank in range(world_size)
        ]

    (alone,) = ranks(1)
    assert alone.streamed == streamed
    expected = [as_arrays(batch) for _ in range(2) for batch in alone]
    first = ranks(before)
    stop = data.draw(st.integers(1, len(alone)))
    read: list[list[Any]] = [[] for _ in range(before)]
    for loader, batches in zip(first, read, strict=True):
        for batch in loader:
            batches.append(as_arrays(batch))
            if len(batches) == stop:
                break
    states = [loader.state_dict() for loader in first]
    assert all(state == states[0] for state in states)
    second = ranks(after)
    tails: list[list[Any]] = [[] for _ in range(after)]
    for loader, batches in zip(second, tails, strict=True):
        loader.load_state_dict(states[0])
        while len(batches) < len(expected) - stop:
            batches += [as_arrays(batch) for batch in loader]
    joined = [[np.concatenate(parts) for parts in zip(*step, strict=True)] for step in zip(*read, strict=True)]
    joined += [[np.concatenate(parts) for parts in zip(*step, strict=True)] for step in zip(*tails, strict=True)]
    for ours, theirs in zip(joined, expected, strict=True):
        assert all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))


def test_a_state_of_another_global_batch_is_refused() -> None:
    partition = make_partition([40])
    state = WindowLoader(partition, context=1, batch_size=8).state_dict()
    one_of_two = WindowLoader(partition, context=1, batch_size=8, rank=1, world_size=2)
    with pytest.raises(UsageError, match=r"global_batch 8 \(here 16\)"):
        one_of_two.load_state_dict(state)
    halves = WindowLoader(partition, context=1, batch_size=4, rank=0, world_size=2)
    halves.load_state_dict(state)
    assert same_batch(
        next(iter(halves)), next(iter(WindowLoader(partition, context=1, batch_size=4, rank=0, world_size=2)))
    )
