"""The fused graph on the CPU, its kernels interpreted, held to the same judge as the stock graph."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dali_asr import Corpus, Masking, Partition, WindowLoader
from dali_asr.errors import LoadingError
from dali_asr.loading import fused
from dali_asr.plan.order import permute, round_keys
from tests.judge import as_arrays, assert_judged, same_batch
from tests.makers import make_partition
from tests.strategies import loaders, streamed

few = settings(max_examples=14, deadline=None)


def small(case: tuple[Partition, dict[str, Any]]) -> bool:
    """The interpreter takes a millisecond a window."""
    return case[0].frame_count <= 300


def quick(case: tuple[Partition, dict[str, Any]]) -> tuple[Partition, dict[str, Any]]:
    """Limit the number of iterations, each of which takes a third of a second, and of those prefetched for nothing."""
    partition, arguments = case
    if "memory_budget" in arguments:  # the size of a batch is limited by that of a group
        return partition, arguments | {"prefetch": 1, "batches_per_iteration": None}
    return partition, arguments | {
        "prefetch": 1,
        "batch_size": max(arguments["batch_size"], partition.frame_count // 6),
    }


@few
@given(loaders())
def test_windows_equal_the_judges_to_the_bit(case: tuple[Partition, dict[str, Any]]) -> None:
    partition, arguments = quick(case)
    assert_judged(partition, WindowLoader(partition, graph="fused", **arguments), arguments)


@settings(max_examples=5, deadline=None)
@given(streamed().filter(small))
def test_streamed_windows_equal_the_judges_to_the_bit(case: tuple[Partition, dict[str, Any]]) -> None:
    partition, arguments = quick(case)
    loader = WindowLoader(partition, graph="fused", **arguments)
    assert loader.streamed
    assert_judged(partition, loader, arguments, epochs=1)


@settings(max_examples=5, deadline=None)
@given(loaders())
def test_stock_and_fused_give_the_same_batches(case: tuple[Partition, dict[str, Any]]) -> None:
    partition, arguments = case
    pair = [WindowLoader(partition, graph=graph, **arguments) for graph in ("stock", "fused")]
    for _ in range(2):
        assert all(same_batch(a, b) for a, b in zip(*pair, strict=True))


def test_a_state_of_the_other_graph_continues() -> None:
    partition = make_partition([40, 25])
    arguments: dict[str, Any] = {"context": 3, "batch_size": 8, "masking": Masking(), "device": "cpu"}
    stock = WindowLoader(partition, graph="stock", **arguments)
    batches = iter(stock)
    for _ in range(3):
        next(batches)
    resumed = WindowLoader(partition, graph="fused", **arguments)
    resumed.load_state_dict(json.loads(json.dumps(stock.state_dict())))
    assert all(same_batch(a, b) for a, b in zip(batches, resumed, strict=True))


@pytest.mark.parametrize(("world_size", "scope"), [(2, "batch"), (3, "window")])
def test_ranks_share_every_step(world_size: int, scope: Any) -> None:
    partition = make_partition([20, 17])
    arguments: dict[str, Any] = {"context": 3, "masking": Masking(scope=scope)}
    ranks = [
        WindowLoader(
            partition, graph="fused", batch_size=6, rank=rank, world_size=world_size, device="cpu", **arguments
        )
        for rank in range(world_size)
    ]
    alone = WindowLoader(partition, graph="stock", batch_size=6 * world_size, device="cpu", **arguments)
    for batch, *parts in zip(alone, *ranks, strict=True):
        joined = [np.concatenate(arrays) for arrays in zip(*map(as_arrays, parts), strict=True)]
        assert all(a.tobytes() == b.tobytes() for a, b in zip(as_arrays(batch), joined, strict=True))


def test_unlabelled_frames() -> None:
    partition = Corpus.from_arrays([np.ones((9, 2), np.float32)]).partition("all")
    (batch,) = WindowLoader(partition, context=1, batch_size=9, graph="fused", device="cpu")
    assert batch.labels.tolist() == [-100] * 9
    assert batch.windows.sum() == 2 * (9 * 3 - 2)


def test_the_bijection_walks_as_the_plans_does() -> None:
    """One program plans 256 windows at once: of 251 frames, several are beyond the domain's last row and walk."""
    partition = make_partition([251], dim=1)
    loader = WindowLoader(partition, context=0, batch_size=251, graph="fused", device="cpu", seed=9)
    (batch,) = loader
    assert batch.frame_ids.tolist() == permute(np.arange(251), 251, round_keys(9, 0)).tolist()


def test_an_error_inside_the_operator_arrives_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise MemoryError("no room for windows")

    loader = WindowLoader(make_partition([20]), context=1, batch_size=4, graph="fused", device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(fused.FusedGraph, "_launch", broken)
        with pytest.raises(LoadingError, match="MemoryError: no room for windows") as error:
            list(loader)
        assert error.value.__cause__ is not None
    assert len(list(loader)) == len(loader), "the loader is usable after"


def test_a_triton_that_cannot_launch_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a slim image, which has no C compiler for Triton's launchers."""

    class Broken:
        def __getitem__(self, _: Any) -> Any:
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

    monkeypatch.setattr("dali_asr.loading.kernel.probe", Broken())
    fused.fused_problem.cache_clear()
    problem = fused.fused_problem(torch.device("cpu"))
    fused.fused_problem.cache_clear()
    assert problem == (
        "Triton cannot launch kernels (RuntimeError: Failed to find C compiler. "
        "Please specify via CC environment variable.)"
    )
