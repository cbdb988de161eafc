"""The loaders that are measured beside each other, all reading the same plan.

`dataloader` is the course's `Dataset` and `DataLoader`, changed only so that windows respect utterances and masks
are per window; `unmodified` is it as handed out: windows that run across utterances, one mask a batch.

Shape letters: `R` rows of the resident buffer, `B` windows of a batch, `W` frames of a window, `D` features.
"""

from __future__ import annotations

import ctypes
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count, repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dali_asr.errors import UsageError
from dali_asr.loading import Batch, WindowLoader, fused_problem
from dali_asr.loading.frames import ResidentFrames
from dali_asr.loading.rows import row_bytes
from dali_asr.loading.stock import covered, mask_bits, row_order
from dali_asr.plan import LoaderSpec, Masking, Plan, Planner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.corpus import Partition

Windows = Iterator[tuple[torch.Tensor, torch.Tensor]]
_PREFETCH = 2  # batches ahead, of each DataLoader worker
_WORKER_KEEPS = 64 << 20  # bytes; larger blocks tear holes, and a worker of batches of 112 MB grew beyond 5 GB
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


@dataclass(frozen=True)
class Case:
    """What all contenders read.

    Attributes:
        partition: whose windows, labelled.
        context: frames (left, right) of a window's own.
        batch_size: B.
        masking: None for none.
        seed: of order and masks.
    """

    partition: Partition
    context: tuple[int, int]
    batch_size: int
    masking: Masking | None
    seed: int = 0

    @property
    def window(self) -> int:
        """W."""
        return sum(self.context) + 1

    @property
    def planner(self) -> Planner:
        """Plans the steps that every contender follows."""
        return Planner.whole(self.spec)

    @property
    def spec(self) -> LoaderSpec:
        """What decides the sequence that every contender follows."""
        return LoaderSpec(
            frame_count=self.partition.frame_count,
            feature_dim=self.partition.feature_dim,
            context=self.context,
            batch_size=self.batch_size,
            seed=self.seed,
            drop_last=True,
            masking=self.masking,
        )

    def resident(self, device: torch.device) -> ResidentFrames:
        """Return the frames on a device."""
        return ResidentFrames(self.partition, self.spec, device)


@dataclass(frozen=True)
class Contender:
    """A loader under measurement.

    Attributes:
        name: of the loader.
        device: where its batches lie.
        batch_size: B.
        batches: an endless iterator of windows `[B, W, D]` and labels `[B]`.
        ahead: batches that may be ready before they are asked for.
        compared: whether its windows are checked.
        expected: what they are to be; None for the same as of all others.
        loader: that is measured, where it is ours.
        workers: whether it has processes of its own, which end when it rests.
    """

    name: str
    device: torch.device
    batch_size: int
    batches: Windows
    ahead: int
    compared: bool = True
    expected: Windows | None = None
    loader: WindowLoader | None = None
    workers: DataLoaderBatches | None = None

    def rest(self) -> None:
        """End its processes, of which all contenders together would fill the memory."""
        if self.workers:
            self.workers.rest()


def keep_freed_memory(below: int = 1 << 30) -> None:
    """Let malloc keep what is freed of blocks smaller than `below` bytes, for all loaders alike.

    A batch that is made of fresh pages takes twice as long. DALI's loader keeps its memory by itself; the others
    would lose against that, not against the loader.
    """
    for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        ctypes.CDLL(None).mallopt(option, below)


def contenders(case: Case, workers: tuple[int, ...], device: torch.device) -> list[Contender]:
    """Return every contender."""
    cpu = torch.device("cpu")
    host, size = case.resident(cpu), case.batch_size
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores
    found = [_dataloader(case, host, number) for number in workers]
    found += [_unmodified(case, number) for number in workers]
    found.append(Contender("numpy gather", cpu, size, _numpy_gather(case, host, case.planner), 0))
    for where in dict.fromkeys((cpu, device)):
        resident = host if where == cpu else case.resident(where)
        found.append(Contender("torch gather", where, size, _torch_gather(case, resident, where), 0))
        found += _ours(case, where, host)
    return found


def _ours(case: Case, device: torch.device, host: ResidentFrames) -> list[Contender]:
    """Return the loaders of this package on a device: each graph, and one that streams."""
    found = []
    for graph in ("stock", *(["fused"] if fused_problem(device) is None else [])):
        loader = _loader(case, device, graph)
        found.append(_contender(f"dali {graph}", case, loader))
    quarter = len(_rows(host)) // 4 * row_bytes(case.partition)
    try:
        streaming = _loader(case, device, "auto", quarter)
    except UsageError:  # too few utterances to be streamed
        return found
    expected = _numpy_gather(case, host, streaming.planner)  # whose order is its own
    return [*found, _contender("dali streamed", case, streaming, expected)]


def _rows(host: ResidentFrames) -> NDArray[Any]:
    assert isinstance(host.rows, np.ndarray)
    return host.rows


def _contender(name: str, case: Case, loader: WindowLoader, expected: Windows | None = None) -> Contender:
    ahead = loader.batches_ahead
    return Contender(name, loader.device, case.batch_size, _endless(loader), ahead, expected=expected, loader=loader)


class DataLoaderBatches(Iterator[tuple[torch.Tensor, torch.Tensor]]):
    """The batches of a DataLoader, epoch after epoch, and from the beginning after each rest.

    Args:
        loader: of windows and labels.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        self._batches: Windows | None = None

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._batches is None:
            self._batches = chain.from_iterable(repeat(self._loader))
        return next(self._batches)

    def rest(self) -> None:
        """End the workers."""
        self._batches = None


class CourseDataset(Dataset[tuple[torch.Tensor, int, int]]):
    """The course's dataset: one window and its label an item."""

    def __init__(self, case: Case, resident: ResidentFrames) -> None:
        self._rows = torch.from_numpy(resident.rows)
        self._first = _first_rows(resident, np.arange(case.partition.frame_count))
        self._labels = case.partition.labels()
        self._window = case.window

    def __len__(self) -> int:
        return len(self._first)

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, int, int]:
        number, frame = item
        first = self._first[frame]
        assert self._labels is not None
        return self._rows[first : first + self._window], int(self._labels[frame]), number


class PlannedBatches:
    """A batch sampler that follows the plan, epoch after epoch: lists of (number of the batch, frame)."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number, plan in enumerate(_plans(self._planner)):
            yield [(number, frame) for frame in plan.frame_ids.tolist()]


class PlannedCollate:
    """Stacks windows and masks each by the plan of its batch."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    def __call__(self, items: list[tuple[torch.Tensor, int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return windows `[B, W, D]` and labels `[B]`."""
        windows, labels, numbers = zip(*items, strict=True)
        stacked = torch.stack(windows)
        if self._planner.spec.masking:
            drawn = self._planner.masks(*divmod(numbers[0], self._planner.steps.count))
            stacked.masked_fill_(_zeroed(*drawn, *stacked.shape[1:]), 0)
        return stacked, torch.tensor(labels)


def _dataloader(case: Case, resident: ResidentFrames, workers: int) -> Contender:
    loader = DataLoader(
        CourseDataset(case, resident),
        batch_sampler=PlannedBatches(Planner.whole(replace(case.spec, masking=None))),
        collate_fn=PlannedCollate(case.planner),
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
        worker_init_fn=_begin_worker,
    )
    batches = DataLoaderBatches(loader)
    name = f"dataloader, {workers} workers"
    return Contender(name, torch.device("cpu"), case.batch_size, batches, workers * _PREFETCH, workers=batches)


def _begin_worker(_number: int) -> None:
    """Let a worker give back what was free when it was forked, which it would fill with copies, and keep less."""
    ctypes.CDLL(None).malloc_trim(0)
    keep_freed_memory(below=_WORKER_KEEPS)


class UnmodifiedDataset(Dataset[tuple[torch.Tensor, int]]):
    """The dataset as handed out: zeros at both ends of the whole, none between utterances."""

    def __init__(self, case: Case) -> None:
        left, right = case.context
        frames = np.concatenate(list(case.partition.frames()))
        self._rows = torch.from_numpy(np.pad(frames, ((left, right), (0, 0))))
        self._labels = case.partition.labels()
        self._window = case.window

    def __len__(self) -> int:
        return len(self._rows) - self._window + 1

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        assert self._labels is not None
        return self._rows[index : index + self._window], int(self._labels[index])


class UnmodifiedCollate:
    """Stacks windows and draws one mask for all of them."""

    def __init__(self, masking: Masking | None) -> None:
        self._masking = masking

    def __call__(self, items: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return windows `[B, W, D]` and labels `[B]`."""
        windows, labels = zip(*items, strict=True)
        stacked = torch.stack(windows)
        if self._masking:
            draw = random.Random()  # noqa: S311 - masks, not secrets
            for bands, axis in ((self._masking.frequency, 2), (self._masking.time, 1)):
                for _ in range(draw.randint(*bands.count)):
                    width = draw.randint(*bands.width)
                    first = draw.randint(0, stacked.shape[axis] - width)
                    stacked.narrow(axis, first, width).zero_()
        return stacked, torch.tensor(labels)


def _unmodified(case: Case, workers: int) -> Contender:
    loader = DataLoader(
        UnmodifiedDataset(case),
        batch_size=case.batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=UnmodifiedCollate(case.masking),
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
        worker_init_fn=_begin_worker,
    )
    batches, cpu = DataLoaderBatches(loader), torch.device("cpu")
    name = f"unmodified, {workers} workers"
    return Contender(name, cpu, case.batch_size, batches, workers * _PREFETCH, compared=False, workers=batches)


def _numpy_gather(case: Case, resident: ResidentFrames, planner: Planner) -> Windows:
    """Gather a batch by one fancy index."""
    labels, rows = case.partition.labels(), resident.rows
    assert isinstance(rows, np.ndarray)
    assert labels is not None
    for plan in _plans(planner):
        order = row_order(_first_rows(resident, plan.frame_ids), plan, planner.spec.window)
        windows = rows[order].reshape(-1, planner.spec.window, planner.spec.feature_dim)
        if case.masking:
            bits = mask_bits(plan, planner.spec.feature_dim, rows.dtype.name)
            windows.view(bits.dtype)[...] &= bits
        yield torch.from_numpy(windows), torch.from_numpy(labels[plan.frame_ids])


def _torch_gather(case: Case, resident: ResidentFrames, device: torch.device) -> Windows:
    """Gather a batch by one index of whole windows, each a contiguous run of rows, on the device."""
    planner = case.planner
    labels = torch.from_numpy(case.partition.labels()).to(device)
    rows = torch.as_tensor(resident.rows, device=device)
    width = planner.spec.window * planner.spec.feature_dim
    runs = rows.as_strided((len(rows) - planner.spec.window + 1, width), (planner.spec.feature_dim, 1))
    for plan in _plans(planner):
        first = torch.from_numpy(_first_rows(resident, plan.frame_ids)).to(device, non_blocking=True)
        windows = runs.index_select(0, first).view(-1, planner.spec.window, planner.spec.feature_dim)
        if case.masking:
            zeroed = _zeroed(plan.time, plan.frequency, planner.spec.window, planner.spec.feature_dim, device)
            windows.masked_fill_(zeroed, 0)
        yield windows, labels[torch.from_numpy(plan.frame_ids).to(device, non_blocking=True)]


def _loader(case: Case, device: torch.device, graph: str, memory_budget: int | None = None) -> WindowLoader:
    return WindowLoader(
        case.partition,
        context=case.context,
        batch_size=case.batch_size,
        seed=case.seed,
        masking=case.masking,
        drop_last=True,
        dtype=case.partition.dtype.name,
        graph=graph,  # type: ignore[arg-type]
        device=device,
        memory_budget=memory_budget,
    )


def _endless(loader: WindowLoader) -> Windows:
    batch: Batch
    for batch in chain.from_iterable(repeat(loader)):
        assert batch.labels is not None
        yield batch.windows, batch.labels


def _plans(planner: Planner) -> Iterator[Plan]:
    """Yield the plan of each step, epoch after epoch."""
    for epoch in count():
        for step in range(planner.steps.count):
            yield planner.plan(epoch, step)


def _first_rows(resident: ResidentFrames, frames: NDArray[np.int64]) -> NDArray[np.int64]:
    first: NDArray[np.int64] = resident.layout.first_rows(frames) + resident.shifts(0)[0]
    return first


def _zeroed(
    time: NDArray[np.int32],
    frequency: NDArray[np.int32],
    window: int,
    feature_dim: int,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Return which values are masked, `[B, W, D]` bool."""
    in_time = torch.from_numpy(covered(time, window)).to(device or "cpu", non_blocking=True)
    in_frequency = torch.from_numpy(covered(frequency, feature_dim)).to(device or "cpu", non_blocking=True)
    return in_time[:, :, None] | in_frequency[:, None, :]
