"""The loaders that are measured beside each other, all reading the same plan.

`dataloader` is the course's `Dataset` and `DataLoader`, changed only so that windows respect utterances and masks
are per window; `unmodified` is it as handed out: windows that run across utterances, one mask a batch.

Shape letters: `R` rows of the resident buffer, `B` windows of a batch, `W` frames of a window, `D` features.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dali_asr.loading import Batch, WindowLoader
from dali_asr.loading.plan import Masking, Planner
from dali_asr.loading.source import ResidentFrames, StepSource, covered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.corpus import Partition

Windows = Iterator[tuple[torch.Tensor, torch.Tensor]]
_PREFETCH = 2  # batches ahead: DALI's queue, and of each DataLoader worker


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
        return Planner(
            frame_count=self.partition.frame_count,
            batch_size=self.batch_size,
            window=self.window,
            feature_dim=self.partition.feature_dim,
            seed=self.seed,
            drop_last=True,
            masking=self.masking,
        )

    def resident(self, device: torch.device) -> ResidentFrames:
        """Return the frames on a device."""
        return ResidentFrames(self.partition, *self.context, device)


@dataclass(frozen=True)
class Contender:
    """A loader under measurement.

    Attributes:
        name: of the loader.
        device: where its batches lie.
        batch_size: B.
        batches: an endless iterator of windows `[B, W, D]` and labels `[B]`.
        ahead: batches that may be ready before they are asked for.
        compared: whether it follows the plan, so that its windows are checked.
    """

    name: str
    device: torch.device
    batch_size: int
    batches: Windows
    ahead: int
    compared: bool = True


def contenders(case: Case, workers: tuple[int, ...], device: torch.device) -> list[Contender]:
    """Return every contender."""
    cpu = torch.device("cpu")
    host, size = case.resident(cpu), case.batch_size
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores
    found = [_dataloader(case, host, count) for count in workers]
    found += [_unmodified(case, count) for count in workers]
    found.append(Contender("numpy gather", cpu, size, _numpy_gather(case, host), 0))
    for where in dict.fromkeys((cpu, device)):
        resident = host if where == cpu else case.resident(where)
        found.append(Contender("torch gather", where, size, _torch_gather(case, resident, where), 0))
        found.append(Contender("dali stock", where, size, _stock(case, where), _PREFETCH))
    return found


class CourseDataset(Dataset[tuple[torch.Tensor, int, int]]):
    """The course's dataset: one window and its label an item."""

    def __init__(self, case: Case, resident: ResidentFrames) -> None:
        self._rows = torch.from_numpy(resident.rows)
        self._first = resident.first_rows(np.arange(case.partition.frame_count))
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
        epoch = 0
        while True:
            for step in range(self._planner.steps):
                number = epoch * self._planner.steps + step
                yield [(number, frame) for frame in self._planner.frames(epoch, step).tolist()]
            epoch += 1


class PlannedCollate:
    """Stacks windows and masks each by the plan of its batch."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    def __call__(self, items: list[tuple[torch.Tensor, int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return windows `[B, W, D]` and labels `[B]`."""
        windows, labels, numbers = zip(*items, strict=True)
        stacked = torch.stack(windows)
        if self._planner.masking:
            drawn = self._planner.masks(*divmod(numbers[0], self._planner.steps))
            stacked.masked_fill_(_zeroed(*drawn, *stacked.shape[1:]), 0)
        return stacked, torch.tensor(labels)


def _dataloader(case: Case, resident: ResidentFrames, workers: int) -> Contender:
    loader = DataLoader(
        CourseDataset(case, resident),
        batch_sampler=PlannedBatches(case.planner),
        collate_fn=PlannedCollate(case.planner),
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
    )
    name = f"dataloader, {workers} workers"
    return Contender(name, torch.device("cpu"), case.batch_size, iter(loader), workers * _PREFETCH)


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
        persistent_workers=workers > 0,
    )
    batches = chain.from_iterable(repeat(loader))
    name = f"unmodified, {workers} workers"
    return Contender(name, torch.device("cpu"), case.batch_size, batches, workers * _PREFETCH, compared=False)


def _numpy_gather(case: Case, resident: ResidentFrames) -> Windows:
    """Gather a batch by one fancy index."""
    planner, labels, rows = case.planner, case.partition.labels(), resident.rows
    assert isinstance(rows, np.ndarray)
    arrange = StepSource(planner, resident, labels, rows.dtype.name)
    for epoch, step in _steps(planner):
        _, order, batch_labels, *mask = arrange.arrays(planner.plan(epoch, step))
        windows = rows[order].reshape(-1, planner.window, planner.feature_dim)
        if mask:
            windows.view(mask[0].dtype)[...] &= mask[0]
        yield torch.from_numpy(windows), torch.from_numpy(batch_labels)


def _torch_gather(case: Case, resident: ResidentFrames, device: torch.device) -> Windows:
    """Gather a batch by one index of whole windows, each a contiguous run of rows, on the device."""
    planner = case.planner
    labels = torch.from_numpy(case.partition.labels()).to(device)
    rows = torch.as_tensor(resident.rows, device=device)
    width = planner.window * planner.feature_dim
    runs = rows.as_strided((len(rows) - planner.window + 1, width), (planner.feature_dim, 1))
    for epoch, step in _steps(planner):
        plan = planner.plan(epoch, step)
        first = torch.from_numpy(resident.first_rows(plan.frames)).to(device, non_blocking=True)
        windows = runs.index_select(0, first).view(-1, planner.window, planner.feature_dim)
        if case.masking:
            zeroed = _zeroed(plan.frequency, plan.time, planner.window, planner.feature_dim, device)
            windows.masked_fill_(zeroed, 0)
        yield windows, labels[torch.from_numpy(plan.frames).to(device, non_blocking=True)]


def _stock(case: Case, device: torch.device) -> Windows:
    loader = WindowLoader(
        case.partition,
        context=case.context,
        batch_size=case.batch_size,
        seed=case.seed,
        masking=case.masking,
        drop_last=True,
        dtype=case.partition.dtype.name,
        graph="stock",
        device=device,
        prefetch=_PREFETCH,
    )
    batch: Batch
    for batch in chain.from_iterable(repeat(loader)):
        assert batch.labels is not None
        yield batch.windows, batch.labels


def _steps(planner: Planner) -> Iterator[tuple[int, int]]:
    epoch = 0
    while True:
        for step in range(planner.steps):
            yield epoch, step
        epoch += 1


def _zeroed(
    frequency: NDArray[np.int32],
    time: NDArray[np.int32],
    window: int,
    feature_dim: int,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Return which values are masked, `[B, W, D]` bool."""
    in_time = torch.from_numpy(covered(time, window)).to(device or "cpu", non_blocking=True)
    in_frequency = torch.from_numpy(covered(frequency, feature_dim)).to(device or "cpu", non_blocking=True)
    return in_time[:, :, None] | in_frequency[:, None, :]
