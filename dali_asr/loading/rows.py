"""Rows of features on the device, with rows of zeros between utterances, and how they are written.

`gap` rows of zeros stand before the first utterance and after each, so that every window is one contiguous run of
rows and none touches another utterance. Each row has its label beside it.

Shape letters: `R` rows, `B` windows of a batch, `D` features of a frame.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dali_asr.corpus.partition import NO_LABEL
from dali_asr.errors import DeviceError

if TYPE_CHECKING:
    from threading import Event

    from numpy.typing import NDArray

    from dali_asr.corpus import Partition

ZERO_ROW = 0
_STAGING_BYTES = 16 << 20


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


def make_rows(partition: Partition, count: int, gap: int, device: torch.device) -> HostRows | DeviceRows:
    """Return rows for a partition on a device; `gap` is that of its utterances."""
    return HostRows(partition, count) if device.type == "cpu" else DeviceRows(partition, count, gap, device)


def write_utterances(
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
