"""The frames on the device: rows of features, with rows of zeros between utterances.

`gap` rows of zeros stand before the first utterance and after each, so that every window is one contiguous run of
rows and none touches another utterance. Each row has its label beside it.

Shape letters: `R` rows, `B` windows of a batch, `D` features of a frame, `U` utterances, `C` chunks.
"""

from __future__ import annotations

from itertools import pairwise
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dali_asr.corpus.partition import NO_LABEL
from dali_asr.errors import DeviceError
from dali_asr.loading.interrupts import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dali_asr.corpus import Partition
    from dali_asr.loading.chunks import Chunks, EpochGroups

ZERO_ROW = 0
_STAGING_BYTES = 16 << 20
_LOOK_SECONDS = 0.1  # between looks for Ctrl-C


class RowLayout:
    """Where a window's rows lie, given where its chunk was put.

    Attributes:
        gap: rows of zeros after an utterance, at least one.
        left: frames of a window before its own.
    """

    def __init__(self, partition: Partition, left: int, right: int) -> None:
        self.gap = max(left, right, 1)
        self.left = left
        self.offsets = partition.offsets

    def first_rows(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row that opens each frame's window, `[B]`, short of the shift of its chunk."""
        utterances = np.searchsorted(self.offsets, frames, side="right") - 1
        first: NDArray[np.int64] = frames + utterances * self.gap
        return first

    def shift(self, row: int, utterance: int) -> int:
        """Return the shift of a chunk: what is to be added to the first rows of its windows.

        Args:
            row: where the chunk's first frame lies.
            utterance: the chunk's first.
        """
        return row - int(self.offsets[utterance]) - utterance * self.gap - self.left


class HostRows:
    """Rows `[R, D]` and labels `[R]` in the memory of the host, as NumPy arrays; no labels in an unlabelled one.

    Attributes:
        rows: `[R, D]`.
        labels: `[R]`.
        most: rows that are opened at once, unless an utterance has more.
    """

    def __init__(self, partition: Partition, count: int) -> None:
        self.rows = np.zeros((count, partition.feature_dim), partition.dtype)
        self.labels = np.full(count, NO_LABEL, partition.inventory.signed_dtype) if partition.labelled else None
        self.most = _STAGING_BYTES // (partition.feature_dim * partition.dtype.itemsize)

    def open(self, first: int, count: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return `count` rows from `first` on, and their labels, to be written."""
        end = first + count
        return self.rows[first:end], None if self.labels is None else self.labels[first:end]

    def finish(self) -> None:
        """Wait until everything is there."""

    def read_until_now(self) -> None:
        """Let rows be overwritten after all that was read of them up to now: on the host, that is over."""


class DeviceRows:
    """Rows `[R, D]` and labels `[R]` in the memory of a GPU, as tensors, written through pinned memory.

    Attributes:
        rows, labels, most: as of `HostRows`.

    Raises:
        DeviceError: they do not fit.
    """

    def __init__(self, partition: Partition, count: int, gap: int, device: torch.device) -> None:
        dtype, label_dtype = (
            torch.from_numpy(np.zeros(0, d)).dtype for d in (partition.dtype, partition.inventory.signed_dtype)
        )
        size = partition.feature_dim * partition.dtype.itemsize
        self.most = max(_STAGING_BYTES // size, int(partition.lengths.max()) + gap)
        self.labels: torch.Tensor | None = None
        try:
            self.rows = torch.zeros((count, partition.feature_dim), dtype=dtype, device=device)
            if partition.labelled:
                self.labels = torch.full((count,), NO_LABEL, dtype=label_dtype, device=device)
        except torch.OutOfMemoryError as error:
            raise _does_not_fit(partition, count * size, device) from error
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(device))
        self._blocks = [_Staging(self.rows, self.labels, self.most) for _ in range(2)]
        self._device = device

    def open(self, first: int, count: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return `count` rows from `first` on, and their labels, to be written."""
        self._send()
        return self._blocks[0].open(first, count)

    def finish(self) -> None:
        """Wait until everything is there."""
        self._send()
        self._stream.synchronize()

    def read_until_now(self) -> None:
        """Let rows be overwritten after all that was read of them up to now."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def _send(self) -> None:
        """Copy the block that was written, and go on with the other when its copy is over."""
        with torch.cuda.stream(self._stream):
            self._blocks[0].send(self.rows, self.labels)
        self._blocks.reverse()
        self._blocks[0].wait()


class _Staging:
    """A run of rows in pinned memory, on its way to the GPU."""

    def __init__(self, rows: torch.Tensor, labels: torch.Tensor | None, count: int) -> None:
        self._rows = torch.empty((count, rows.shape[1]), dtype=rows.dtype, pin_memory=True)
        self._labels = None if labels is None else torch.empty(count, dtype=labels.dtype, pin_memory=True)
        self._sent = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._first = self._count = 0

    def open(self, first: int, count: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        self._first, self._count = first, count
        return self._rows[:count].numpy(), None if self._labels is None else self._labels[:count].numpy()

    def send(self, rows: torch.Tensor, labels: torch.Tensor | None) -> None:
        place, count = slice(self._first, self._first + self._count), self._count
        rows[place].copy_(self._rows[:count], non_blocking=True)
        if labels is not None and self._labels is not None:
            labels[place].copy_(self._labels[:count], non_blocking=True)
        self._sent.record()
        self._count = 0

    def wait(self) -> None:
        self._sent.synchronize()


class ResidentFrames:
    """A partition that lies on the device as a whole.

    Args:
        partition: whose frames.
        left: frames before a window's own.
        right: frames after it.
        device: where the rows lie.

    Attributes:
        layout: where windows lie.
        rows: `[R, D]` in the partition's dtype; a NumPy array on the CPU, else a tensor.
        labels: `[R]`, signed integers, −100 where a row has none; None in an unlabelled partition.

    Raises:
        DeviceError: the rows do not fit the free memory of the GPU.
        DataError: the corpus changed since it was opened.
    """

    def __init__(self, partition: Partition, left: int, right: int, device: torch.device) -> None:
        self.layout = RowLayout(partition, left, right)
        gap = self.layout.gap
        count = gap + partition.frame_count + len(partition.lengths) * gap
        buffer = _rows(partition, count, gap, device)
        _write(buffer, gap, partition, (0, len(partition.lengths)), gap, Event())
        buffer.finish()
        self.rows: Any = buffer.rows
        self.labels: Any = buffer.labels

    def require(self, first: int, last: int) -> bool:  # noqa: ARG002 - all groups are here
        """Have the groups from `first` to `last` on the device; say whether they are."""
        return True

    def release(self, oldest: int) -> None:
        """Allow that groups before `oldest` are overwritten."""

    def shifts(self, group: int) -> NDArray[np.int64]:  # noqa: ARG002
        """Return the shift of each chunk of a group that is here, see `RowLayout`, `[C]`."""
        return np.array([self.layout.shift(self.layout.gap, 0)])

    def close(self) -> None:
        """Let rows and labels go, whoever still holds this object."""
        self.rows = self.labels = None


class StreamedFrames:
    """A partition of which two groups lie on the device: the one in use, and the next while it is read.

    Groups count on from epoch to epoch: group g of epoch e is e·G + g.

    Args:
        partition: whose frames.
        left: frames before a window's own.
        right: frames after it.
        device: where the rows lie.
        chunks: how the partition is cut.
        groups: the groups of an epoch.

    Attributes:
        layout, rows, labels: as of `ResidentFrames`.
    """

    def __init__(
        self,
        partition: Partition,
        left: int,
        right: int,
        device: torch.device,
        chunks: Chunks,
        groups: Callable[[int], EpochGroups],
    ) -> None:
        self.layout = RowLayout(partition, left, right)
        self._partition, self._chunks, self._groups = partition, chunks, groups
        self._slot_rows = chunks.group_rows(self.layout.gap)
        self._buffer: HostRows | DeviceRows | None = _rows(partition, 2 * self._slot_rows, self.layout.gap, device)
        self.rows: Any = self._buffer.rows
        self.labels: Any = self._buffer.labels
        self._shifts = np.zeros((2, len(chunks)), np.int64)
        self._held: list[int | None] = [None, None]
        self._oldest = 0
        self._reading: _Reading | None = None

    def require(self, first: int, last: int) -> bool:
        """Have the groups from `first` to `last` on the device.

        Returns:
            Whether they are; False while the place of one of them is still read by batches under way.

        Raises:
            DataError: the corpus changed, or a label is beyond the inventory.
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
        """Allow that groups before `oldest` are overwritten: all batches under way read later ones."""
        if oldest != self._oldest:
            self._oldest = oldest
            if self._buffer:
                self._buffer.read_until_now()
            self._read_ahead()

    def shifts(self, group: int) -> NDArray[np.int64]:
        """Return the shift of each chunk of a group that is here, see `RowLayout`, `[C]`."""
        shifts: NDArray[np.int64] = self._shifts[group % 2]
        return shifts

    def close(self) -> None:
        """Stop reading, and let rows and labels go, whoever still holds this object."""
        if self._reading:
            self._reading.stop()
        self._reading = self._buffer = self.rows = self.labels = None

    def _may_overwrite(self, group: int) -> bool:
        return self._oldest > group - 2 or self._held[group % 2] is None

    def _read_ahead(self) -> None:
        upcoming = self._oldest + 1
        if self._reading is None and upcoming not in self._held and self._oldest in self._held:
            self._start(upcoming)

    def _start(self, group: int) -> None:
        if self._reading:  # one that nobody waits for
            self._reading.stop()
        self._held[group % 2] = None
        self._reading = _Reading(group, self._read)
        self._reading.start()

    def _await(self, group: int) -> None:
        """Wait for the group that is being read, if it is this one."""
        reading = self._reading
        if reading and group == reading.group:
            reading.wait()
            self._reading = None
            if reading.error:
                raise reading.error
            self._held[group % 2] = group

    def _read(self, number: int, stopped: Event) -> None:
        buffer = self._buffer
        assert buffer
        epoch, group = divmod(number, self._chunks.group_count)
        groups = self._groups(epoch)
        at = number % 2 * self._slot_rows + self.layout.gap
        shifts = self._shifts[number % 2]
        for chunk in groups.chunks[groups.members(group)].tolist():
            first, end = self._chunks.utterances[chunk : chunk + 2].tolist()
            shifts[chunk] = self.layout.shift(at, first)
            at = _write(buffer, at, self._partition, (first, end), self.layout.gap, stopped)
        buffer.finish()


class _Reading(Thread):
    """A group on its way, in a thread of its own that does not keep the process alive; `error` is what ended it."""

    def __init__(self, group: int, work: Callable[[int, Event], None]) -> None:
        super().__init__(name=f"dali-asr reads group {group}", daemon=True)
        self.group = group
        self._work: Callable[[int, Event], None] | None = work
        self._stopped = Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Read."""
        assert self._work
        try:
            self._work(self.group, self._stopped)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = error
        self._work = None  # it holds the frames

    def wait(self) -> None:
        """Wait until the group is there, or Ctrl-C."""
        while self.is_alive():
            self.join(_LOOK_SECONDS)
            check()

    def stop(self) -> None:
        """Give up, whatever was read."""
        self._stopped.set()
        if self.is_alive():
            self.join()


def _rows(partition: Partition, count: int, gap: int, device: torch.device) -> HostRows | DeviceRows:
    return HostRows(partition, count) if device.type == "cpu" else DeviceRows(partition, count, gap, device)


def _write(
    buffer: HostRows | DeviceRows, at: int, partition: Partition, utterances: tuple[int, int], gap: int, stopped: Event
) -> int:
    """Write utterances, each with the gap after it, from row `at` on; return the row after them.

    Raises:
        DataError: the corpus changed since it was opened.
    """
    first, end = utterances
    ends = partition.offsets[first : end + 1] + np.arange(end - first + 1) * gap
    while first < end and not stopped.is_set():
        start = end - len(ends) + 1
        done = int(ends[first - start])
        stop = start + max(first - start + 1, int(np.searchsorted(ends, done + buffer.most, side="right")) - 1)
        count = int(ends[stop - start]) - done
        _fill(*buffer.open(at, count), partition, first, stop, gap)
        first, at = stop, at + count
    return at


def _fill(
    rows: NDArray[Any], labels: NDArray[Any] | None, partition: Partition, first: int, end: int, gap: int
) -> None:
    """Write the utterances from `first` up to `end`, each with the gap after it."""
    starts = partition.offsets[first : end + 1] - partition.offsets[first] + np.arange(end - first + 1) * gap
    bounds = [(start, after - gap) for start, after in pairwise(starts.tolist())]
    partition.read_into([rows[start:stop] for start, stop in bounds], first)
    for _, stop in bounds:
        rows[stop : stop + gap] = 0
    if labels is None:
        return
    read = partition.labels(int(partition.offsets[first]), int(partition.offsets[end]), labels.dtype)
    assert read is not None
    at = 0
    for start, stop in bounds:
        labels[start:stop] = read[at : at + stop - start]
        labels[stop : stop + gap] = NO_LABEL
        at += stop - start


def _does_not_fit(partition: Partition, size: int, device: torch.device) -> DeviceError:
    free, _ = torch.cuda.mem_get_info(device)
    return DeviceError(
        f"{partition.name}: its frames take {size / 2**30:.2f} GiB, {device} has {free / 2**30:.2f} GiB free; "
        "lower loader.memory_budget, and they are streamed"
    )
