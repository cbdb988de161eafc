"""The description of an iteration: all that the fused kernels need to know of it, as one array of int64.

    header                         record of a group                            record of a second group
    EPOCH FIRST SIZE STRIDE …      START SIZE ROWS COLUMNS keys | chunk tables  (or the same group again)

The chunk tables are three rows of C numbers: first position within the group, frames read before the chunk, and shift.

Shape letters: `C` chunks of the largest group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dali_asr.plan.order import ROUNDS, round_keys, rows_and_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.loading.frames import Frames
    from dali_asr.loading.source import Iteration
    from dali_asr.plan import Planner

# Header.
EPOCH = 0
FIRST = 1  # position of the first window
SIZE = 2  # windows of this rank per step
STRIDE = 3  # positions from step to step
COUNT = 4  # windows of the iteration
STEP = 5  # steps since the first epoch
BOUNDARY = 6  # first position of the second group
SEED = 7
HEADER = 8

# Record of a group.
GROUP_START = 0  # first position
GROUP_SIZE = 1  # positions
GRID_ROWS = 2
GRID_COLUMNS = 3
KEYS = 4
TABLES = KEYS + ROUNDS


class Describer:
    """Describes iterations.

    Args:
        planner: plans the steps.
        frames: frames on the device.
    """

    def __init__(self, planner: Planner, frames: Frames) -> None:
        self._planner, self._frames = planner, frames
        self._records: dict[int, NDArray[np.int64]] = {}

    def describe(self, iteration: Iteration) -> NDArray[np.int64]:
        """Return the description of an iteration; the groups of a filler need not be on the device."""
        spec, steps = self._planner.spec, self._planner.steps
        epoch, step = iteration.epoch, iteration.step
        record = self._record if iteration.steps else self._describe_group
        records = [record(epoch, number) for number, _ in iteration.parts]
        first, end = steps.span(step)
        boundary = records[0][GROUP_START] + records[0][GROUP_SIZE]
        seed = spec.seed - (spec.seed >> 63 << 64)  # as a signed integer
        number = epoch * steps.count + step
        header = (epoch, first, end - first, steps.global_batch, iteration.windows, number, boundary, seed)
        return np.concatenate([np.array(header, np.int64), records[0], records[-1]])

    def _record(self, epoch: int, number: int) -> NDArray[np.int64]:
        """Return the record of a group, which stays the same while the group is on the device."""
        if number not in self._records:
            while len(self._records) > 2:  # the oldest first
                del self._records[next(iter(self._records))]
            self._records[number] = self._describe_group(epoch, number)
        return self._records[number]

    def _describe_group(self, epoch: int, number: int) -> NDArray[np.int64]:
        planner, chunks = self._planner, self._planner.layout.max_group_chunks
        groups, group = planner.groups(epoch), number - epoch * planner.layout.group_count
        members = groups.members(group)
        first, end = groups.positions[group : group + 2].tolist()
        size = max(end - first, 1)
        record = np.zeros(TABLES + 3 * chunks, np.int64)
        keys = round_keys(planner.spec.seed, epoch, group=group)
        record[:TABLES] = (first, size, *rows_and_columns(size), *keys)
        starts, before, shifts = record[TABLES:].reshape(3, chunks)
        count = members.stop - members.start
        starts[:count] = groups.starts[members] - first
        starts[count:] = size
        before[:count] = groups.before[members]
        shifts[:count] = self._frames.shifts(number)[groups.chunks[members]]
        return record
