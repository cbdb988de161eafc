"""Rows: the features on the device, with rows of zeros between utterances, and how they are written.

    row     0 … gap−1   gap …              …                  …
            zeros       utterance 0        zeros (gap rows)   utterance 1        zeros (gap rows)  …

Every window is one contiguous run of rows and reaches no other utterance. Each row has a label beside it.

Shape letters: `R` rows, `B` windows of a batch, `D` features of a frame.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dali_asr.corpus import NO_LABEL
from dali_asr.errors import DeviceError

if TYPE_CHECKING:
    from threading import Event

    from numpy.typing import NDArray

    from dali_asr.corpus import Partition
    from dali_asr.plan import LoaderSpec

ZERO_ROW = 0
_STAGING_BYTES = 16 << 20  # pinned memory per block of an upload
_BLOCK_BYTES = 64 << 20  # read at once on the host
_MAX_READERS = 4  # threads that read and verify side by side


class RowLayout:
    """Where the rows of a window are, given where its chunk was written.

    Attributes:
        gap: number of zero rows after each utterance, at least one.
        left: number of frames before the window's own.
        offsets: first frame of each utterance, and the number of frames; int64 `[U + 1]`.
    """

    def __init__(self, partition: Partition, spec: LoaderSpec) -> None:
        self.gap = spec.gap
        self.left = spec.context[0]
        self.offsets = partition.offsets

    def first_rows(self, frame_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first row of each frame's window, `[B]`, before the shift of its chunk is added."""
        utterances = np.searchsorted(self.offsets, frame_ids, side="right") - 1
        first: NDArray[np.int64] = frame_ids + utterances * self.gap
        return first

    def shift(self, row: int, utterance: int) -> int:
        """Return the shift of a chunk: what must be added to the first rows of its windows.

        Args:
            row: row of the chunk's first frame.
            utterance: first utterance of the chunk.
        """
        return row - int(self.offsets[utterance]) - utterance * self.gap - self.left


class HostRows:
    """Rows and labels in host memory.

    Attributes:
        rows: `[R, D]` in the partition's dtype.
        labels: `[R]` signed integers, −100 for none; None in an unlabelled partition.
        max_open: maximum number of rows to open at once, unless one utterance has more.
    """

    def __init__(self, partition: Partition, count: int) -> None:
        self.rows: NDArray[Any] = np.zeros((count, partition.feature_dim), partition.dtype)
        self.labels: NDArray[Any] | None = None
        if partition.labelled:
            self.labels = np.full(count, NO_LABEL, partition.inventory.signed_dtype)
        self.max_open = _BLOCK_BYTES // (partition.feature_dim * partition.dtype.itemsize)

    def open(self, first: int, count: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return `count` rows from `first` on, and their labels, for writing."""
        end = first + count
        return self.rows[first:end], None if self.labels is None else self.labels[first:end]

    def finish(self) -> None:
        """Wait until everything is written."""

    def order_after_reads(self) -> None:
        """Make later writes wait for reads that are already queued. On the host there are none."""


class DeviceRows:
    """Rows and labels in the memory of a GPU, written through pinned memory.

    Attributes:
        rows, labels, max_open: as in `HostRows`, as tensors.

    Raises:
        DeviceError: they do not fit.
    """

    def __init__(self, partition: Partition, count: int, gap: int, device: torch.device) -> None:
        dtype, label_dtype = (
            torch.from_numpy(np.zeros(0, d)).dtype for d in (partition.dtype, partition.inventory.signed_dtype)
        )
        row_size = partition.feature_dim * partition.dtype.itemsize
        self.max_open = max(_STAGING_BYTES // row_size, int(partition.lengths.max()) + gap)
        self.labels: torch.Tensor | None = None
        try:
            self.rows = torch.zeros((count, partition.feature_dim), dtype=dtype, device=device)
            if partition.labelled:
                self.labels = torch.full((count,), NO_LABEL, dtype=label_dtype, device=device)
        except torch.OutOfMemoryError as error:
            raise _does_not_fit(partition, count * row_size, device) from error
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(device))
        self._blocks = [_StagingBlock(self.rows, self.labels, self.max_open) for _ in range(2)]
        self._device = device

    def open(self, first: int, count: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return `count` rows from `first` on, and their labels, for writing."""
        self._send()
        return self._blocks[0].open(first, count)

    def finish(self) -> None:
        """Wait until everything is written."""
        self._send()
        self._stream.synchronize()

    def order_after_reads(self) -> None:
        """Make later writes wait for reads that are already queued."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def _send(self) -> None:
        """Copy the block that was written, and switch to the other one once its own copy is done."""
        with torch.cuda.stream(self._stream):
            self._blocks[0].send(self.rows, self.labels)
        self._blocks.reverse()
        self._blocks[0].wait()


class _StagingBlock:
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


def make_rows(partition: Partition, count: int, gap: int, device: torch.device) -> HostRows | DeviceRows:
    """Return `count` rows of zeros on a device."""
    return HostRows(partition, count) if device.type == "cpu" else DeviceRows(partition, count, gap, device)


def row_bytes(partition: Partition) -> int:
    """Return the bytes of one row: its features and its label."""
    label = partition.inventory.signed_dtype.itemsize if partition.labelled else 0
    return partition.feature_dim * partition.dtype.itemsize + label


class RowWriter:
    """Reads utterances and writes them to rows, each with the gap after it.

    Args:
        partition: partition to read.
        buffer: rows to write.
        gap: number of zero rows after each utterance.
        readers: number of threads that read and verify side by side; 1 for the calling thread.
    """

    def __init__(self, partition: Partition, buffer: HostRows | DeviceRows, gap: int, *, readers: int = 1) -> None:
        self._partition, self._buffer, self._gap, self._readers = partition, buffer, gap, readers

    def write(self, at: int, first: int, end: int, stopped: Event) -> int:
        """Write the utterances from `first` up to `end` to row `at` and after; return the row that follows them.

        Raises:
            DataError: the corpus is damaged, or changed since it was opened.
        """
        starts = self._starts(first, end)
        with ThreadPoolExecutor(self._readers) as pool:
            utterance = first
            while utterance < end and not stopped.is_set():
                done = int(starts[utterance - first])
                fitting = int(np.searchsorted(starts, done + self._buffer.max_open, side="right")) - 1
                stop = max(utterance + 1, first + fitting)
                count = int(starts[stop - first]) - done
                self._fill(*self._buffer.open(at, count), utterance, stop, pool)
                utterance, at = stop, at + count
        return at

    def _starts(self, first: int, end: int) -> NDArray[np.int64]:
        """Return the first row of each utterance, and the row after the last gap, counted from the first one's."""
        offsets = self._partition.offsets[first : end + 1]
        starts: NDArray[np.int64] = offsets - offsets[0] + np.arange(end - first + 1) * self._gap
        return starts

    def _fill(
        self, rows: NDArray[Any], labels: NDArray[Any] | None, first: int, end: int, pool: ThreadPoolExecutor
    ) -> None:
        bounds = [(start, after - self._gap) for start, after in pairwise(self._starts(first, end).tolist())]
        places = [rows[start:stop] for start, stop in bounds]
        reads = []
        if self._readers == 1:
            self._partition.read_into(places, first)
        else:
            shares = [len(places) * part // self._readers for part in range(self._readers + 1)]
            parts = [(a, b) for a, b in pairwise(shares) if a < b]
            reads = [pool.submit(self._partition.read_into, places[a:b], first + a) for a, b in parts]
        for _, stop in bounds:
            rows[stop : stop + self._gap] = 0
        if labels is not None:
            self._fill_labels(labels, bounds, first, end)
        for read in reads:
            read.result()

    def _fill_labels(self, labels: NDArray[Any], bounds: list[tuple[int, int]], first: int, end: int) -> None:
        offsets = self._partition.offsets
        stored = self._partition.labels(int(offsets[first]), int(offsets[end]), labels.dtype)
        assert stored is not None
        at = 0
        for start, stop in bounds:
            labels[start:stop] = stored[at : at + stop - start]
            labels[stop : stop + self._gap] = NO_LABEL
            at += stop - start


def reader_count() -> int:
    """Return the number of threads that read a whole partition side by side."""
    return min(len(os.sched_getaffinity(0)), _MAX_READERS)


def _does_not_fit(partition: Partition, size: int, device: torch.device) -> DeviceError:
    free, _ = torch.cuda.mem_get_info(device)
    return DeviceError(
        f"{partition.name}: its frames take {size / 2**30:.2f} GiB, but {device} has {free / 2**30:.2f} GiB free; "
        "lower memory_budget to stream them"
    )
