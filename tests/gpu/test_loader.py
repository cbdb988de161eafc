"""Both graphs on a GPU, held to the judge and to the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dali_asr import Masking, Partition, WindowLoader
from dali_asr.config import Config
from dali_asr.inventory import ARPABET
from dali_asr.plan import LoaderSpec
from dali_asr.training import train
from tests.judge import assert_judged, same_batch, same_bits
from tests.makers import make_partition
from tests.strategies import loaders, streamed

GRAPHS = pytest.mark.parametrize("graph", ["stock", "fused"])


@GRAPHS
@settings(max_examples=20, deadline=None)
@given(case=loaders())
def test_windows_equal_the_judges_to_the_bit(graph: Any, case: tuple[Any, dict[str, Any]]) -> None:
    partition, arguments = case
    arguments |= {"device": "cuda"}
    loader = WindowLoader(partition, graph=graph, **arguments)
    assert all(batch.windows.is_cuda and batch.frame_ids.is_cuda for batch in loader)
    assert_judged(partition, WindowLoader(partition, graph=graph, **arguments), arguments)


@GRAPHS
@settings(max_examples=12, deadline=None)
@given(case=streamed())
def test_streamed_windows_equal_the_judges_to_the_bit(graph: Any, case: tuple[Any, dict[str, Any]]) -> None:
    partition, arguments = case
    arguments |= {"device": "cuda"}
    loader = WindowLoader(partition, graph=graph, **arguments)
    assert loader.streamed
    assert_judged(partition, loader, arguments)


def test_auto_is_fused() -> None:
    assert WindowLoader(make_partition([9]), context=1, batch_size=2, device="cuda").graph == "fused"


def large(frames: int, dim: int = 28, utterance: int = 1265) -> Partition:
    """Return a partition whose frames hold their own numbers, so that a window can be told from every other."""
    lengths = np.full(-(-frames // utterance), utterance)
    lengths[-1] = frames - lengths[:-1].sum()
    block = np.zeros((frames, dim), np.float32)
    block[:, 0], block[:, -1] = np.arange(frames) >> 12, np.arange(frames) & 4095
    labels = (np.arange(frames) % 40).astype(np.uint8)
    names = tuple(map(str, range(len(lengths))))
    return Partition.from_memory("all", ARPABET, names, lengths, block, labels)


@GRAPHS
def test_frames_beyond_two_to_the_thirty_first_element(graph: Any) -> None:
    """80 million frames of 28 features, 9 GB: the last rows open beyond 2^31 elements."""
    partition = large(80_000_000)
    loader = WindowLoader(partition, context=3, batch_size=4096, device="cuda", graph=graph, seed=4)
    assert loader.spec.frame_count * 28 > 1 << 31
    last = 0
    for step, batch in enumerate(loader):
        middle = batch.windows[:, 3]
        frames = (middle[:, 0].long() << 12) + middle[:, -1].long()
        assert torch.equal(frames, batch.frame_ids)
        assert torch.equal(batch.frame_ids.cpu(), torch.from_numpy(loader.planner.plan(0, step).frame_ids))
        assert torch.equal(batch.labels, batch.frame_ids % 40)
        last = max(last, int(batch.frame_ids.max()))
        if step == 200:
            break
    assert last * 28 > 1 << 31
    loader.close()


def test_an_upload_in_many_blocks_gives_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload in blocks of a few utterances gives the rows that one copy gives."""
    from dali_asr.loading import frames, rows

    monkeypatch.setattr(rows, "_STAGING_BYTES", 2_000)
    partition = make_partition([40, 7, 1, 90, 33, 2])
    spec = LoaderSpec(partition.frame_count, partition.feature_dim, (4, 2), 8)
    on_gpu = frames.ResidentFrames(partition, spec, torch.device("cuda", 0))
    on_cpu = frames.ResidentFrames(partition, spec, torch.device("cpu"))
    assert isinstance(on_gpu.rows, torch.Tensor)
    assert same_bits(on_gpu.rows.cpu().numpy(), np.asarray(on_cpu.rows))


def test_same_batches_as_on_the_cpu() -> None:
    partition = make_partition([300, 20, 500, 1])
    arguments: dict[str, Any] = {"context": 7, "batch_size": 64, "masking": Masking()}
    on_cpu, stock, fused = (
        WindowLoader(partition, device=device, graph=graph, **arguments)  # type: ignore[arg-type]
        for device, graph in (("cpu", "stock"), ("cuda", "stock"), ("cuda", "fused"))
    )
    for _ in range(2):
        for theirs, *ours in zip(on_cpu, stock, fused, strict=True):
            assert all(same_batch(theirs, batch) for batch in ours)


@GRAPHS
@pytest.mark.parametrize("budget", [None, 40_000])
def test_batches_survive_competing_allocations(graph: Any, budget: int | None) -> None:
    """Batches, kept or let go, keep their values while torch allocates and writes on its own streams."""
    partition = make_partition([100] * 50)
    arguments: dict[str, Any] = {"context": 20, "batch_size": 100, "masking": Masking(), "memory_budget": budget}
    expected = [batch.windows.clone() for batch in WindowLoader(partition, device="cpu", graph="stock", **arguments)]
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    for _ in range(4):
        loader = WindowLoader(partition, device="cuda", graph=graph, batches_per_iteration=3, **arguments)
        kept: list[torch.Tensor] = []
        for batch in loader:
            with torch.cuda.stream(side):
                for size in (1000, 100 * 41 * 5, 300 * 41 * 5, 1 << 20):
                    torch.full((size,), float("nan"), device="cuda")
            torch.full((100 * 41 * 5,), float("nan"), device="cuda")
            kept.append(batch.windows if len(kept) % 2 else batch.windows.clone())
        torch.cuda.synchronize()
        assert all(torch.equal(a.cpu(), b) for a, b in zip(kept, expected, strict=True))
        loader.close()


@GRAPHS
@pytest.mark.parametrize("budget", [None, 40_000])
def test_dropped_batches_are_not_overwritten_while_the_gpu_reads_them(graph: Any, budget: int | None) -> None:
    """The GPU is kept busy, a sum of each batch is queued behind it, and the batch is let go at once.

    DALI must not write the next windows into memory that the queued sums have yet to read, nor the reading of the
    next group into rows that windows have yet to be cut from.
    """
    partition = make_partition([100] * 40)
    arguments: dict[str, Any] = {"context": 20, "batch_size": 100, "memory_budget": budget, "prefetch": 1}
    sums = []
    for batch in WindowLoader(partition, device="cuda", graph=graph, batches_per_iteration=1, **arguments):
        torch.cuda._sleep(20_000_000)  # type: ignore[no-untyped-call]
        sums.append(batch.windows.double().sum())
        del batch
    on_cpu = WindowLoader(partition, device="cpu", graph="stock", **arguments)
    expected = [batch.windows.double().sum().item() for batch in on_cpu]
    assert [s.item() for s in sums] == pytest.approx(expected, rel=1e-9)


def used() -> int:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return int(total - free)


@GRAPHS
@pytest.mark.parametrize("budget", [None, 16 << 20])
def test_closing_gives_the_memory_back(graph: Any, budget: int | None) -> None:
    partition = large(1_000_000)
    before = []
    for _ in range(20):
        loader = WindowLoader(partition, context=10, batch_size=4096, device="cuda", graph=graph, memory_budget=budget)
        next(iter(loader))
        loader.close()
        before.append(used())
    assert max(before[1:]) < before[0] + 20e6, "the frames alone take 112 MB"


@GRAPHS
@pytest.mark.parametrize("masking", [None, True])
def test_predicted_memory_is_within_ten_percent(graph: Any, masking: bool | None) -> None:
    """Within 10 %, the CUDA context apart."""
    partition = large(20_000_000)
    warm = WindowLoader(make_partition([50]), context=30, batch_size=8, device="cuda", graph=graph, masking=None)
    list(warm)
    warm.close()
    before = used()
    loader = WindowLoader(partition, context=30, batch_size=4096, device="cuda", graph=graph, masking=masking)
    for step, _ in enumerate(loader):
        if step == 100:
            break
    taken = used() - before
    assert taken == pytest.approx(loader.memory.total, rel=0.1)
    loader.close()


def test_a_corpus_that_does_not_fit_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    partition, total = make_partition([40] * 60), torch.cuda.mem_get_info()[1]
    whole = WindowLoader(partition, context=1, batch_size=8, device="cuda")
    assert not whole.streamed
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60_000, total))
    assert WindowLoader(partition, context=1, batch_size=8, device="cuda", batches_per_iteration=1).streamed


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_other_than_the_current_one() -> None:
    partition = make_partition([300, 20, 500])
    pair = [WindowLoader(partition, context=7, batch_size=64, device=d) for d in ("cuda:1", "cpu")]
    for on_gpu, on_cpu in zip(*pair, strict=True):
        assert same_bits(on_gpu.windows.cpu().numpy(), on_cpu.windows.numpy())


def test_the_demo_trains(tmp_path: Any) -> None:
    config = Config.load("demo", ["training.epochs=1", "training.precision=bf16"])
    result = train(config, run=tmp_path / "run")
    assert result.epochs[-1]["dev"]["accuracy"] > 0.5
