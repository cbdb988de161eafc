"""The frames on the device: all of a partition's, or two groups of them at a time.

Shape letters: `R` rows, `D` features of a frame, `C` chunks.
"""

from __future__ import annotations

from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.loading.rows import RowLayout, make_rows, write_utterances
from dali_asr.signals import handle_deferred_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    from dali_asr.corpus import Partition
    from dali_asr.loading.rows import DeviceRows, HostRows
    from dali_asr.plan.groups import Chunks, EpochGroups

_LOOK_SECONDS = 0.1  # between looks for Ctrl-C


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
        buffer = make_rows(partition, count, gap, device)
        write_utterances(buffer, gap, partition, (0, len(partition.lengths)), gap, Event())
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
        self._buffer: HostRows | DeviceRows | None = make_rows(partition, 2 * self._slot_rows, self.layout.gap, device)
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
            at = write_utterances(buffer, at, self._partition, (first, end), self.layout.gap, stopped)
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
            handle_deferred_interrupt()

    def stop(self) -> None:
        """Give up, whatever was read."""
        self._stopped.set()
        if self.is_alive():
            self.join()
