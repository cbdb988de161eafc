"""The loaders that are measured side by side. All of them read the same plan.

`dataloader` is the `Dataset` and `DataLoader` of the course, changed only so that windows respect utterances and every
window has its own masks.

Shape letters: `R` rows of the resident buffer, `B` windows of a batch, `W` frames of a window, `D` features.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count, repeat
from typing import TYPE_CHECKING, Any, Literal

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
_PREFETCH = 2  # batches ahead per DataLoader worker
_WORKER_KEEPS = 64 << 20  # bytes; larger freed blocks fragment, and a worker of batches of 112 MB grew beyond 5 GB
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


@dataclass(frozen=True)
class Case:
    """What all contenders read.

    Attributes:
        partition: a labelled partition.
        context: frames before and after a window's own frame, (left, right).
        batch_size: number of windows per batch, B.
        masking: masks of the windows; None for none.
        seed: seed of order and masks.
    """

    partition: Partition
    context: tuple[int, int]
    batch_size: int
    masking: Masking | None
    seed: int = 0

    @property
    def window(self) -> int:
        """Number of frames per window, W."""
        return sum(self.context) + 1

    @property
    def planner(self) -> Planner:
        """Planner of the steps that every contender follows."""
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

    def plans(self, planner: Planner | None = None) -> Iterator[Plan]:
        """Yield the plan of each step, epoch after epoch; by default those of the case's own planner."""
        planner = planner or self.planner
        for epoch in count():
            for step in range(planner.steps.count):
                yield planner.plan(epoch, step)

    def resident(self, device: torch.device) -> ResidentFrames:
        """Return the frames on a device."""
        return ResidentFrames(self.partition, self.spec, device)


@dataclass(frozen=True)
class Contender:
    """A loader to measure.

    Attributes:
        name: name of the loader.
        device: device of its batches.
        batch_size: number of windows per batch, B.
        batches: endless iterator of windows `[B, W, D]` and labels `[B]`.
        ahead: number of batches that it prepares before they are requested.
        expected: the batches that it must deliver; None if they are those of all other contenders.
        loader: the `WindowLoader`, if it is one.
        workers: the batches of a `DataLoader`, whose processes end when it rests.
    """

    name: str
    device: torch.device
    batch_size: int
    batches: Windows
    ahead: int
    expected: Windows | None = None
    loader: WindowLoader | None = None
    workers: DataLoaderBatches | None = None

    def rest(self) -> None:
        """End its processes, because those of all contenders together would fill the memory."""
        if self.workers:
            self.workers.rest()


def keep_freed_memory(below: int = 1 << 30) -> None:
    """Let malloc keep freed blocks smaller than `below` bytes, for all loaders alike.

    A batch made of fresh pages takes twice as long. The DALI loader keeps its memory in any case; without this setting,
    the other loaders would lose time to the allocator.
    """
    for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        ctypes.CDLL(None).mallopt(option, below)


def contenders(case: Case, workers: tuple[int, ...], device: torch.device) -> list[Contender]:
    """Return all contenders: one `DataLoader` per worker count, and the others on the CPU and on `device`."""
    cpu = torch.device("cpu")
    host, size = case.resident(cpu), case.batch_size
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores
    found = [_dataloader(case, host, number) for number in workers]
    found.append(Contender("numpy gather", cpu, size, _numpy_gather(case, host), 0))
    for where in dict.fromkeys((cpu, device)):
        resident = host if where == cpu else case.resident(where)
        found.append(Contender("torch gather", where, size, _torch_gather(case, resident, where), 0))
        found += _ours(case, where, host)
    return found


# The loaders of this package.


def _ours(case: Case, device: torch.device, host: ResidentFrames) -> list[Contender]:
    """Return a loader per graph, and one that streams."""
    graphs: list[Literal["stock", "fused"]] = ["stock"] if fused_problem(device) else ["stock", "fused"]
    found = [_window_loader(f"dali {graph}", case, _loader(case, device, graph)) for graph in graphs]
    assert host.rows is not None
    quarter = host.rows.shape[0] // 4 * row_bytes(case.partition)
    try:
        streaming = _loader(case, device, "auto", quarter)
    except UsageError:  # there are too few utterances to stream
        return found
    expected = _numpy_gather(case, host, streaming.planner)  # the order of streamed frames differs
    return [*found, replace(_window_loader("dali streamed", case, streaming), expected=expected)]


def _window_loader(name: str, case: Case, loader: WindowLoader) -> Contender:
    return Contender(name, loader.device, case.batch_size, _endless(loader), loader.batches_ahead, loader=loader)


def _loader(
    case: Case, device: torch.device, graph: Literal["auto", "stock", "fused"], memory_budget: int | None = None
) -> WindowLoader:
    return WindowLoader(
        case.partition,
        context=case.context,
        batch_size=case.batch_size,
        seed=case.seed,
        masking=case.masking,
        drop_last=True,
        dtype=case.partition.dtype.name,
        graph=graph,
        device=device,
        memory_budget=memory_budget,
    )


def _endless(loader: WindowLoader) -> Windows:
    batch: Batch
    for batch in chain.from_iterable(repeat(loader)):
        yield batch.windows, batch.labels


# The DataLoader of the course.


class DataLoaderBatches(Iterator[tuple[torch.Tensor, torch.Tensor]]):
    """Batches of a DataLoader, epoch after epoch. It starts again from the first batch after each rest.

    Args:
        loader: a DataLoader of windows and labels.
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
    """The dataset of the course: an item is one window, its label, and the number of its batch."""

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

    def __init__(self, case: Case) -> None:
        self._case = replace(case, masking=None)  # workers draw the masks

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number, plan in enumerate(self._case.plans()):
            yield [(number, frame) for frame in plan.frame_ids.tolist()]


class PlannedCollate:
    """Stacks the windows of a batch and masks them by its plan."""

    def __init__(self, case: Case) -> None:
        self._planner = case.planner

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
        batch_sampler=PlannedBatches(case),
        collate_fn=PlannedCollate(case),
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
        worker_init_fn=_begin_worker,
    )
    batches = DataLoaderBatches(loader)
    name = f"dataloader, {workers} workers"
    return Contender(name, torch.device("cpu"), case.batch_size, batches, workers * _PREFETCH, workers=batches)


def _begin_worker(_number: int) -> None:
    """Return inherited free memory, which a worker would fill with copies of its own, and keep less of it."""
    ctypes.CDLL(None).malloc_trim(0)
    keep_freed_memory(below=_WORKER_KEEPS)


# Gathering whole batches.


def _numpy_gather(case: Case, resident: ResidentFrames, planner: Planner | None = None) -> Windows:
    """Gather a batch with one fancy index."""
    labels, rows = case.partition.labels(), resident.rows
    feature_dim = case.partition.feature_dim
    assert isinstance(rows, np.ndarray)
    assert labels is not None
    for plan in case.plans(planner):
        order = row_order(_first_rows(resident, plan.frame_ids), plan, case.window)
        windows = rows[order].reshape(-1, case.window, feature_dim)
        if case.masking:
            bits = mask_bits(plan, feature_dim, rows.dtype.name)
            windows.view(bits.dtype)[...] &= bits
        yield torch.from_numpy(windows), torch.from_numpy(labels[plan.frame_ids])


def _torch_gather(case: Case, resident: ResidentFrames, device: torch.device) -> Windows:
    """Gather a batch on the device with one index of whole windows, each a contiguous run of rows."""
    feature_dim = case.partition.feature_dim
    labels = torch.from_numpy(case.partition.labels()).to(device)
    rows = torch.as_tensor(resident.rows, device=device)
    runs = rows.as_strided((len(rows) - case.window + 1, case.window * feature_dim), (feature_dim, 1))
    for plan in case.plans():
        first = torch.from_numpy(_first_rows(resident, plan.frame_ids)).to(device, non_blocking=True)
        windows = runs.index_select(0, first).view(-1, case.window, feature_dim)
        if case.masking:
            windows.masked_fill_(_zeroed(plan.time, plan.frequency, case.window, feature_dim, device), 0)
        yield windows, labels[torch.from_numpy(plan.frame_ids).to(device, non_blocking=True)]


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
    """Return whether each value is masked, `[B, W, D]` bool."""
    in_time = torch.from_numpy(covered(time, window)).to(device or "cpu", non_blocking=True)
    in_frequency = torch.from_numpy(covered(frequency, feature_dim)).to(device or "cpu", non_blocking=True)
    return in_time[:, :, None] | in_frequency[:, None, :]
