"""`bench loader`: the DALI loader beside the loaders that people use today, in one run."""

from __future__ import annotations

import ctypes
import gc
import os
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dali_asr.bench.contenders import Case, contenders, keep_freed_memory
from dali_asr.bench.measure import CHECKED_BATCHES, Result, check, copy_bandwidth, measure
from dali_asr.corpus import Corpus
from dali_asr.device import resolve_device
from dali_asr.environment import environment
from dali_asr.errors import UsageError
from dali_asr.plan import Masking

if TYPE_CHECKING:
    from dali_asr.bench.contenders import Contender
    from dali_asr.corpus import Partition
    from dali_asr.corpus.packing import Progress

FEATURE_DIM = 28


@dataclass(frozen=True)
class BenchSettings:
    """How the loaders are measured.

    Attributes:
        context: frames (left, right) of a window's own.
        batch_sizes: B, one after the other.
        dtypes: of frames and windows; the first with masks off and on, the others with masks.
        masking: the masks of the cases that have them.
        workers: of the DataLoaders; by default none, two, four, half as many as there are cores, and as many.
        repeats: of each contender.
        seconds: of each repeat, at least.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; the CPU is measured in any case.
    """

    context: tuple[int, int] = (30, 30)
    batch_sizes: tuple[int, ...] = (512, 4096, 16384)
    dtypes: tuple[str, ...] = ("float32", "float16")
    masking: Masking = field(default_factory=Masking)
    workers: tuple[int, ...] = field(default_factory=lambda: _worker_counts(len(os.sched_getaffinity(0))))
    repeats: int = 5
    seconds: float = 0.5
    device: str = "auto"

    def cases(self) -> list[tuple[int, str, Masking | None]]:
        """Return batch size, dtype and masking of each case."""
        return [
            (batch_size, dtype, masking)
            for dtype in self.dtypes
            for batch_size in self.batch_sizes
            for masking in (None, self.masking)
            if masking or dtype == self.dtypes[0]
        ]


@dataclass(frozen=True)
class CaseResult:
    """The results of one batch size and dtype, with or without masks."""

    batch_size: int
    dtype: str
    masks: bool
    results: list[Result]

    @property
    def dataloader(self) -> float:
        """Windows per second of the DataLoader at its best worker count."""
        return max(r.median for r in self.results if r.name.startswith("dataloader"))


@dataclass(frozen=True)
class LoaderResults:
    """What `bench loader` found.

    Attributes:
        cases: one after the other.
        roofs: bytes a second that a copy within each device reads and writes.
    """

    cases: list[CaseResult]
    roofs: dict[str, float]


def synthetic_corpus(frames: int, seed: int = 0) -> Corpus:
    """Return a corpus of one partition, `all`, of random frames.

    It has 28 features, and utterances of 1,265 frames, which is train-clean-100's mean.
    """
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((frames, FEATURE_DIM), dtype=np.float32)
    labels = rng.integers(0, 40, frames)
    cuts = np.arange(1265, frames, 1265)
    return Corpus.from_arrays(np.split(features, cuts), np.split(labels, cuts))


def bench_loader(partition: Partition, settings: BenchSettings, progress: Progress) -> LoaderResults:
    """Measure all contenders in every case.

    Raises:
        BenchError: two loaders give different windows for the same plan.
        UsageError: a partition without labels, or of too few frames for a batch.
    """
    device = resolve_device(settings.device)
    _check_partition(partition, settings)
    keep_freed_memory()
    roofs = {str(where): copy_bandwidth(where) for where in dict.fromkeys((torch.device("cpu"), device))}
    cases = []
    for batch_size, dtype, masking in settings.cases():
        case = Case(_stored_as(partition, dtype), settings.context, batch_size, masking)
        entered = contenders(case, settings.workers, device)
        check(entered)
        stage = f"batch {batch_size}, {dtype}, masks {'on' if masking else 'off'}"
        measured = measure(
            entered, repeats=settings.repeats, seconds=settings.seconds, progress=partial(progress, stage)
        )
        cases.append(CaseResult(batch_size, dtype, masking is not None, measured))
        _close(entered)
    return LoaderResults(cases, roofs)


def _close(entered: list[Contender]) -> None:
    """End the DataLoaders' workers, let our loaders' frames go, and give freed memory back.

    Else the workers of the next case inherit it, and each fills it with copies of its own.
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
    """Return a partition with its frames in memory in another dtype."""
    return partition if partition.dtype.name == dtype else partition.astype(dtype)


def _check_partition(partition: Partition, settings: BenchSettings) -> None:
    if not partition.labelled:
        raise UsageError(f"{partition.name}: has no labels, which the loaders are to deliver; name another partition")
    largest = max(settings.batch_sizes)
    if partition.frame_count < CHECKED_BATCHES * largest:
        raise UsageError(
            f"{partition.name}: {partition.frame_count} frames are too few for batches of {largest}; "
            "give a smaller --batch-size, or more frames"
        )


def to_json(partition: Partition, settings: BenchSettings, results: LoaderResults) -> dict[str, Any]:
    """Return the results with machine, versions, settings and all repeats, as JSON values."""
    return {
        "benchmark": "loader",
        **environment(resolve_device(settings.device)),
        "corpus": {
            "partition": partition.name,
            "frames": partition.frame_count,
            "feature_dim": partition.feature_dim,
            "dtype": partition.dtype.name,
        },
        "settings": asdict(settings),
        "copy_bandwidth": results.roofs,
        "cases": [
            {
                "batch_size": case.batch_size,
                "dtype": case.dtype,
                "masks": case.masks,
                "results": [
                    {
                        **asdict(r),
                        "median": r.median,
                        "spread": r.spread,
                        "gigabytes_per_second": r.gigabytes_per_second,
                        "ratio_to_dataloader": r.median / case.dataloader,
                        "share_of_copy_bandwidth": r.share(results.roofs[r.device]),
                    }
                    for r in case.results
                ],
            }
            for case in results.cases
        ],
    }
