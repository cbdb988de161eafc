"""`bench loader`: the DALI loader and the loaders that people use today, measured in one run."""

from __future__ import annotations

import ctypes
import gc
import os
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dali_asr.bench.contenders import Case, contenders, keep_freed_memory
from dali_asr.bench.measure import CHECKED_BATCHES, check, copy_bandwidth, measure
from dali_asr.corpus import Corpus
from dali_asr.device import resolve_device
from dali_asr.environment import environment
from dali_asr.errors import UsageError
from dali_asr.inventory import ARPABET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dali_asr.bench.contenders import Contender
    from dali_asr.bench.measure import Result
    from dali_asr.corpus import Partition
    from dali_asr.corpus.packing import Progress
    from dali_asr.plan import Masking

FEATURE_DIM, UTTERANCE_FRAMES = 28, 1265  # of train-clean-100


def synthetic_corpus(frames: int, seed: int = 0) -> Corpus:
    """Return a corpus of one partition, `all`, of random frames in utterances of 1,265 frames of 28 features."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((frames, FEATURE_DIM), dtype=np.float32)
    labels = rng.integers(0, 40, frames)
    cuts = np.arange(UTTERANCE_FRAMES, frames, UTTERANCE_FRAMES)
    return Corpus.from_arrays(np.split(features, cuts), np.split(labels, cuts), ARPABET)


def bench_loader(
    partition: Partition,
    progress: Progress,
    *,
    masking: Masking,
    context: tuple[int, int] = (30, 30),
    batch_sizes: Sequence[int] = (512, 4096, 16384),
    dtypes: Sequence[str] = ("float32", "float16"),
    workers: Sequence[int] | None = None,
    repeats: int = 5,
    seconds: float = 0.5,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure all loaders in every case: batch size and dtype, with and without masks.

    Args:
        partition: a labelled partition.
        progress: called with the progress of each case.
        masking: masks of the cases with masks.
        context: frames before and after a window's own frame, (left, right).
        batch_sizes: windows per batch.
        dtypes: dtypes of frames and windows. The first is measured without and with masks, the others with masks.
        workers: worker counts of the DataLoaders; by default 0, 2, 4, half the cores and all cores.
        repeats: number of times that each loader is timed.
        seconds: minimum duration of each repeat.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, measured in addition to the CPU.

    Returns:
        Machine, versions, settings and all repeats, as JSON values.

    Raises:
        BenchError: two loaders give different windows for the same plan.
        UsageError: the partition has no labels, or too few frames for a batch.
    """
    where = resolve_device(device)
    workers = _worker_counts(len(os.sched_getaffinity(0))) if workers is None else tuple(workers)
    _check_partition(partition, max(batch_sizes))
    keep_freed_memory()
    roofs = {str(d): copy_bandwidth(d) for d in dict.fromkeys((torch.device("cpu"), where))}
    cases = []
    for dtype in dtypes:
        stored = _stored_as(partition, dtype)
        for batch_size in batch_sizes:
            for masks in (None, masking) if dtype == dtypes[0] else (masking,):
                stage = f"batch {batch_size}, {dtype}, masks {'on' if masks else 'off'}"
                entered = contenders(Case(stored, context, batch_size, masks), workers, where)
                check(entered)
                results = measure(entered, repeats=repeats, seconds=seconds, progress=partial(progress, stage))
                key = {"batch_size": batch_size, "dtype": dtype, "masks": masks is not None}
                cases.append({**key, "results": _to_json(results, roofs)})
                _close(entered)
    return {
        "benchmark": "loader",
        **environment(where),
        "corpus": {
            "partition": partition.name,
            "frames": partition.frame_count,
            "feature_dim": partition.feature_dim,
            "dtype": partition.dtype.name,
        },
        "settings": {
            "context": context,
            "masking": asdict(masking),
            "workers": workers,
            "repeats": repeats,
            "seconds": seconds,
        },
        "copy_bandwidth": roofs,
        "cases": cases,
    }


def _to_json(results: list[Result], roofs: dict[str, float]) -> list[dict[str, Any]]:
    """Return the results of a case, with everything derived from them."""
    dataloader = max(r.median for r in results if r.name.startswith("dataloader"))
    return [
        {
            **asdict(r),
            "median": r.median,
            "spread": r.spread,
            "gigabytes_per_second": r.gigabytes_per_second,
            "ratio_to_dataloader": r.median / dataloader,
            "share_of_copy_bandwidth": r.share(roofs[r.device]),
        }
        for r in results
    ]


def _close(entered: list[Contender]) -> None:
    """End the DataLoaders' workers, release our loaders' frames, and return freed memory to the system.

    Otherwise the workers of the next case inherit the memory, and each fills it with copies of its own.
    """
    while entered:
        contender = entered.pop()
        if contender.loader:
            contender.loader.close()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _worker_counts(cores: int) -> tuple[int, ...]:
    return tuple(sorted({0, 2, 4, cores // 2, cores} - {1}))


def _stored_as(partition: Partition, dtype: str) -> Partition:
    """Return a partition whose frames are in memory in another dtype."""
    return partition if partition.dtype.name == dtype else partition.astype(dtype)


def _check_partition(partition: Partition, largest: int) -> None:
    if not partition.labelled:
        raise UsageError(f"{partition.name}: has no labels, which the benchmark needs; name a labelled partition")
    if partition.frame_count < CHECKED_BATCHES * largest:
        raise UsageError(
            f"{partition.name}: {partition.frame_count} frames are too few for batches of {largest}; "
            "give a smaller batch size, or more frames"
        )
