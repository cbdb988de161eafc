"""The stock graph on a GPU, held to the judge and to the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dali_asr import Masking, WindowLoader
from dali_asr.config import Config
from dali_asr.errors import DeviceError
from dali_asr.training import train
from tests.judge import judge_windows, same_bits
from tests.loading.test_loader import loaders
from tests.makers import make_partition


@settings(max_examples=40, deadline=None)
@given(loaders())
def test_windows_equal_the_judges_to_the_bit(case: tuple[Any, dict[str, Any]]) -> None:
    partition, arguments = case
    loader = WindowLoader(partition, **(arguments | {"device": "cuda"}))
    utterances = list(partition.frames())
    for step, batch in enumerate(loader):
        assert batch.windows.is_cuda
        assert batch.frames.is_cuda
        plan = loader.planner.plan(0, step)
        left, right = arguments["context"]
        expected = judge_windows(utterances, left, right, plan, arguments["dtype"])
        assert same_bits(batch.windows.cpu().numpy(), expected)
        assert batch.labels is not None
        assert np.array_equal(batch.labels.cpu().numpy(), partition.labels()[plan.frames])


def test_many_staging_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload in blocks of a few utterances gives the rows that one copy gives."""
    from dali_asr.loading import frames

    monkeypatch.setattr(frames, "_STAGING_BYTES", 2_000)
    partition = make_partition([40, 7, 1, 90, 33, 2])
    on_gpu = frames.ResidentFrames(partition, 4, 2, torch.device("cuda", 0))
    on_cpu = frames.ResidentFrames(partition, 4, 2, torch.device("cpu"))
    assert isinstance(on_gpu.rows, torch.Tensor)
    assert same_bits(on_gpu.rows.cpu().numpy(), np.asarray(on_cpu.rows))


def test_same_batches_as_on_the_cpu() -> None:
    partition = make_partition([300, 20, 500, 1])
    loaders = (
        WindowLoader(partition, context=7, batch_size=64, masking=Masking(), device=device)
        for device in ("cuda", "cpu")
    )
    for on_gpu, on_cpu in zip(*loaders, strict=True):
        assert same_bits(on_gpu.windows.cpu().numpy(), on_cpu.windows.numpy())


def test_batches_survive_competing_allocations() -> None:
    """Batches that are kept while torch allocates on its own stream keep their values."""
    loader = WindowLoader(make_partition([5000]), context=20, batch_size=500, device="cuda")
    kept = []
    for batch in loader:
        noise = torch.randn(2_000_000, device="cuda")
        kept.append((batch.windows, batch.windows.clone(), noise.sum()))
    torch.cuda.synchronize()
    assert all(torch.equal(windows, copy) for windows, copy, _ in kept)


def test_a_batch_that_is_dropped_while_the_gpu_still_reads_it() -> None:
    """The GPU is kept busy, a sum of each batch is queued behind it, and the batch is let go at once.

    DALI must not write the next windows into memory that the queued sums have yet to read.
    """
    partition = make_partition([4000])
    sums = []
    for batch in WindowLoader(partition, context=20, batch_size=500, shuffle=False, device="cuda", prefetch=1):
        torch.cuda._sleep(50_000_000)  # type: ignore[no-untyped-call]
        sums.append(batch.windows.double().sum())
        del batch
    on_cpu = WindowLoader(partition, context=20, batch_size=500, shuffle=False, device="cpu")
    expected = [batch.windows.double().sum().item() for batch in on_cpu]
    assert [s.item() for s in sums] == pytest.approx(expected, rel=1e-9)


def test_closing_gives_the_memory_back() -> None:
    partition = make_partition([200_000])
    free = []
    for _ in range(6):
        loader = WindowLoader(partition, context=10, batch_size=4096, device="cuda")
        next(iter(loader))
        loader.close()
        torch.cuda.empty_cache()
        free.append(torch.cuda.mem_get_info()[0])
    assert min(free[1:]) > free[0] - 50e6, "the corpus alone takes 4 MB, its batches 13 MB each"


def test_a_corpus_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    free = torch.cuda.mem_get_info()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, free[1]))
    with pytest.raises(DeviceError, match=r"GiB free; set data.dtype: float16"):
        WindowLoader(make_partition([500]), context=1, batch_size=2, device="cuda")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_is_not_the_current_one() -> None:
    partition = make_partition([300, 20, 500])
    pair = [WindowLoader(partition, context=7, batch_size=64, device=d) for d in ("cuda:1", "cpu")]
    for on_gpu, on_cpu in zip(*pair, strict=True):
        assert same_bits(on_gpu.windows.cpu().numpy(), on_cpu.windows.numpy())


def test_the_demo_trains(tmp_path: Any) -> None:
    config = Config.load("demo", ["training.epochs=1", "training.precision=bf16"])
    result = train(config, run=tmp_path / "run")
    assert result.epochs[-1]["dev"]["accuracy"] > 0.5
