"""The frames on the device: a whole partition, or two groups of it at a time.

Shape letters: `R` rows, `D` features of a frame, `C` chunks.
"""

from __future__ import annotations

from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from dali_asr.device import free_memory
from dali_asr.errors import UsageError
from dali_asr.loading.rows import RowLayout, RowWriter, make_rows, reader_count, row_bytes
from dali_asr.plan.groups import Layout
from dali_asr.plan.spec import MAX_ROWS
from dali_asr.signals import handle_deferred_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    from dali_asr.corpus import Partition
    from dali_asr.loading.rows import DeviceRows, HostRows
    from dali_asr.plan import LoaderSpec, Planner

    Array: TypeAlias = NDArray[Any] | torch.Tensor

_SHARE_OF_FREE = {"cpu": 0.5, "cuda": 0.8}  # of memory, for frames, without a budget
_POLL_SECONDS = 0.1  # between two looks for Ctrl-C


class ResidentFrames:
    """All frames of a partition on the device.

    Args:
        partition: partition to read.
        spec: spec of the loader.
        device: where the rows are.

    Attributes:
        layout: where the rows of a window are.
        rows: `[R, D]` in the partition's dtype; a NumPy array on the CPU, otherwise a tensor. None after `close`.
        labels: `[R]` signed integers, −100 for none; None in an unlabelled partition and after `close`.

    Raises:
        DeviceError: the rows do not fit into the free memory of the GPU.
        DataError: the corpus is damaged, or changed since it was opened.
    """

    def __init__(self, partition: Partition, spec: LoaderSpec, device: torch.device) -> None:
        self.layout = RowLayout(partition, spec)
        gap, utterances = spec.gap, len(partition.lengths)
        buffer = make_rows(partition, gap + partition.frame_count + utterances * gap, gap, device)
        RowWriter(partition, buffer, gap, readers=reader_count()).write(gap, 0, utterances, Event())
        buffer.finish()
        self.rows: Array | None = buffer.rows
        self.labels: Array | None = buffer.labels
        self._shifts = np.array([self.layout.shift(gap, 0)])

    def require(self, first: int, last: int) -> bool:  # noqa: ARG002 - all groups are on the device
        """Bring the groups from `first` to `last` to the device; return whether they are there."""
        return True

    def release(self, oldest: int) -> None:
        """Allow groups before `oldest` to be overwritten."""

    def shifts(self, group: int) -> NDArray[np.int64]:  # noqa: ARG002
        """Return the shift of each chunk of a group on the device, see `RowLayout`, `[C]`."""
        return self._shifts

    def close(self) -> None:
        """Drop rows and labels, even if this object is still referenced."""
        self.rows = self.labels = None


class StreamedFrames:
    """Two groups of a partition on the device: the one in use, and the next one while it is read.

    Groups are numbered across epochs: group g of epoch e is e·G + g.

    Args:
        partition: partition to read.
        planner: spec, layout and groups.
        device: where the rows are.

    Attributes:
        layout, rows, labels: as in `ResidentFrames`.
    """

    def __init__(self, partition: Partition, planner: Planner, device: torch.device) -> None:
        self.layout = RowLayout(partition, planner.spec)
        self._partition, self._planner = partition, planner
        gap = self.layout.gap
        self._slot_rows = planner.layout.group_rows(gap)
        self._buffer: HostRows | DeviceRows | None = make_rows(partition, 2 * self._slot_rows, gap, device)
        self.rows: Array | None = self._buffer.rows
        self.labels: Array | None = self._buffer.labels
        self._shifts = np.zeros((2, len(planner.layout)), np.int64)
        self._held: list[int | None] = [None, None]
        self._oldest = 0
        self._reader: _GroupReader | None = None

    def require(self, first: int, last: int) -> bool:
        """Bring the groups from `first` to `last` to the device.

        Returns:
            Whether they are there. False while pending batches still read what one of them must overwrite.

        Raises:
            DataError: the corpus is damaged or changed, or a label is outside the inventory.
        """
        for group in range(first, last + 1):
            self._await(group)
            if self._held[group % 2] != group:
                if not self._may_overwrite(group):
                    return False
                self._start(group)
                self._await(group)
        self._read_ahead()
        return True

    def release(self, oldest: int) -> None:
        """Allow groups before `oldest` to be overwritten: no pending batch reads them."""
        if oldest != self._oldest:
            self._oldest = oldest
            if self._buffer:
                self._buffer.order_after_reads()
            self._read_ahead()

    def shifts(self, group: int) -> NDArray[np.int64]:
        """Return the shift of each chunk of a group on the device, see `RowLayout`, `[C]`."""
        shifts: NDArray[np.int64] = self._shifts[group % 2]
        return shifts

    def close(self) -> None:
        """Stop reading, and drop rows and labels, even if this object is still referenced."""
        if self._reader:
            self._reader.stop()
        self._reader = self._buffer = self.rows = self.labels = None

    def _may_overwrite(self, group: int) -> bool:
        return self._oldest > group - 2 or self._held[group % 2] is None

    def _read_ahead(self) -> None:
        upcoming = self._oldest + 1
        if self._reader is None and upcoming not in self._held and self._oldest in self._held:
            self._start(upcoming)

    def _start(self, group: int) -> None:
        if self._reader:  # reads a group that nobody waits for
            self._reader.stop()
        self._held[group % 2] = None
        self._reader = _GroupReader(group, self._read)
        self._reader.start()

    def _await(self, group: int) -> None:
        """Wait for a group if it is being read."""
        reader = self._reader
        if reader and group == reader.group:
            reader.wait()
            self._reader = None
            if reader.error:
                raise reader.error
            self._held[group % 2] = group

    def _read(self, number: int, stopped: Event) -> None:
        buffer, layout, gap = self._buffer, self._planner.layout, self.layout.gap
        assert buffer
        epoch, group = divmod(number, layout.group_count)
        groups = self._planner.groups(epoch)
        at = number % 2 * self._slot_rows + gap
        shifts, writer = self._shifts[number % 2], RowWriter(self._partition, buffer, gap)
        for chunk in groups.chunks[groups.members(group)].tolist():
            first, end = layout.utterances[chunk : chunk + 2].tolist()
            shifts[chunk] = self.layout.shift(at, first)
            at = writer.write(at, first, end, stopped)
        buffer.finish()


Frames: TypeAlias = ResidentFrames | StreamedFrames


class _GroupReader(Thread):
    """Reads one group in a daemon thread; `error` is the exception that ended it."""

    def __init__(self, group: int, work: Callable[[int, Event], None]) -> None:
        super().__init__(name=f"dali-asr reads group {group}", daemon=True)
        self.group = group
        self._work: Callable[[int, Event], None] | None = work
        self._stopped = Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Read the group."""
        assert self._work
        try:
            self._work(self.group, self._stopped)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = error
        self._work = None  # it references the frames

    def wait(self) -> None:
        """Wait until the group is read, or for Ctrl-C."""
        while self.is_alive():
            self.join(_POLL_SECONDS)
            handle_deferred_interrupt()

    def stop(self) -> None:
        """Stop reading and wait for the thread to end."""
        self._stopped.set()
        if self.is_alive():
            self.join()


def frame_budget(device: torch.device, memory_budget: int | None, batch_bytes: int) -> int:
    """Return the bytes for frames and labels: the budget, or a share of the memory that the batches leave free."""
    if memory_budget is not None:
        return memory_budget
    return max(0, int((free_memory(device) - batch_bytes) * _SHARE_OF_FREE[device.type]))


def choose_layout(
    partition: Partition, spec: LoaderSpec, device: torch.device, memory_budget: int | None, batch_bytes: int
) -> Layout:
    """Decide how a partition is read: as one chunk if it fits, otherwise in groups of chunks.

    Args:
        partition: partition to read.
        spec: spec of the loader.
        device: where its rows will be.
        memory_budget: bytes for frames and labels; None for a share of the memory that the batches leave free.
        batch_bytes: bytes of the batches.

    Raises:
        UsageError: the budget is smaller than two chunks; or several ranks must agree on a layout and have no budget.
    """
    size = row_bytes(partition)
    rows = min(frame_budget(device, memory_budget, batch_bytes) // size, MAX_ROWS - 1)
    whole = Layout.whole(partition.offsets)
    if whole.group_rows(spec.gap) <= rows:
        return whole
    if memory_budget is None and spec.world_size > 1:  # each rank sees a different amount of free memory
        raise UsageError(
            f"{partition.name}: its frames exceed the memory that is free on {device}; set memory_budget to "
            "the same value on every rank to stream them"
        )
    return Layout.fit(partition.offsets, spec.gap, rows, size, memory_budget)
