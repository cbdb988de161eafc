"""Groups: how a partition that exceeds the memory budget is read, part by part.

A chunk is a run of utterances. Each epoch orders the chunks by a keyed bijection; a group is a run of chunks in that
order and fits the memory budget as a whole; a second keyed bijection orders the frames of a group. So the frame at a
position stays a formula. A partition that fits is one group of one chunk.

    chunks of the partition   0  1  2  3  4  5
    order of an epoch         4  1  5  0  3  2
    groups                   [4  1  5][0  3  2]

Shape letters: `U` utterances, `C` chunks, `G` groups, `F` frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.errors import UsageError
from dali_asr.plan.order import Stream, permute, round_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNKS_PER_GROUP = 64  # roughly; more chunks mix better, fewer are read faster


@dataclass(frozen=True, eq=False)
class Layout:
    """The chunks of a partition, and how many of them a group holds.

    Attributes:
        utterances: first utterance of each chunk, and U; int64 `[C + 1]`.
        frames: first frame of each chunk, and F; int64 `[C + 1]`.
        chunk_frames: approximate number of frames per chunk; 0 if the partition is one chunk.
        chunks_per_group: maximum number of chunks per group.
    """

    utterances: NDArray[np.int64]
    frames: NDArray[np.int64]
    chunk_frames: int
    chunks_per_group: int

    @classmethod
    def whole(cls, offsets: NDArray[np.int64]) -> Layout:
        """Return the layout of one chunk for utterances at `offsets` `[U + 1]`."""
        return cls(np.array([0, len(offsets) - 1]), offsets[[0, -1]], 0, 1)

    @classmethod
    def split(cls, offsets: NDArray[np.int64], chunk_frames: int, chunks_per_group: int) -> Layout:
        """Cut a partition into chunks of about `chunk_frames` frames, each of whole utterances."""
        starts = np.searchsorted(offsets[:-1], np.arange(0, int(offsets[-1]), chunk_frames))
        bounds = np.unique(np.append(starts, len(offsets) - 1))
        return cls(bounds, offsets[bounds], chunk_frames, chunks_per_group)

    @classmethod
    def fit(
        cls, offsets: NDArray[np.int64], gap: int, max_rows: int, row_bytes: int, budget: int | None = None
    ) -> Layout:
        """Cut a partition so that two groups, with `gap` rows between utterances, take at most `max_rows` rows.

        The error names the `budget` in bytes that the rows follow from, if there is one.

        Raises:
            UsageError: two chunks alone take more.
        """
        chunk_frames = max(int(np.diff(offsets).min()), max_rows // 2 // _CHUNKS_PER_GROUP)
        chunks = cls.split(offsets, chunk_frames, 1)
        taken = np.cumsum(np.sort(chunks.rows(gap))[::-1])
        per_group = int(np.searchsorted(taken, max_rows // 2 - gap, side="right"))
        if not per_group:
            memory = "memory for frames" if budget is None else "memory_budget"
            raise UsageError(
                f"loader: {memory} {max_rows * row_bytes if budget is None else budget:,} bytes, but two chunks of "
                f"utterances may take {2 * (int(taken[0]) + gap) * row_bytes:,}; raise memory_budget, or free memory"
            )
        return cls.split(offsets, chunk_frames, per_group)

    def __len__(self) -> int:
        return len(self.frames) - 1

    @property
    def is_whole(self) -> bool:
        """Whether the partition is one chunk, which is resident."""
        return self.chunk_frames == 0

    @property
    def group_count(self) -> int:
        """Number of groups per epoch, G."""
        return -(-len(self) // self.chunks_per_group)

    @cached_property
    def group_bounds(self) -> NDArray[np.int64]:
        """First chunk of each group in an epoch's order of chunks, and C; `[G + 1]`."""
        return len(self) * np.arange(self.group_count + 1) // self.group_count

    @cached_property
    def max_group_chunks(self) -> int:
        """Number of chunks in the largest group."""
        return int(np.diff(self.group_bounds).max())

    def rows(self, gap: int) -> NDArray[np.int64]:
        """Return the number of rows of each chunk, with `gap` rows after every utterance, `[C]`."""
        taken: NDArray[np.int64] = np.diff(self.frames) + np.diff(self.utterances) * gap
        return taken

    def group_rows(self, gap: int) -> int:
        """Return the number of rows of the largest group of any epoch, with a gap before its first utterance."""
        return gap + int(np.sort(self.rows(gap))[-self.max_group_chunks :].sum())

    def positions(self, subset: int) -> NDArray[np.int64]:
        """Return the number of frames divisible by `subset` before each chunk, `[C + 1]`."""
        before: NDArray[np.int64] = -(-self.frames // subset)
        return before

    def min_group_positions(self, subset: int) -> int:
        """Return a lower bound of the number of positions in a group, over all epochs."""
        chunks = int(np.diff(self.group_bounds).min())
        return int(np.sort(np.diff(self.positions(subset)))[:chunks].sum())

    def order(self, seed: int, epoch: int, *, shuffle: bool) -> NDArray[np.int64]:
        """Return the chunks in the order of an epoch, `[C]`."""
        chunks = np.arange(len(self))
        if not shuffle:
            return chunks
        return permute(chunks, len(self), round_keys(seed, epoch, stream=Stream.CHUNKS))


@dataclass(frozen=True, eq=False)
class EpochGroups:
    """The groups of one epoch.

    Attributes:
        chunks: chunks in the epoch's order, int64 `[C]`.
        starts: first position of each of them, and N; int64 `[C + 1]`.
        bounds: index of each group's first chunk within `chunks`, and C; int64 `[G + 1]`.
        before: number of frames read before each of them in the partition, int64 `[C]`.
    """

    chunks: NDArray[np.int64]
    starts: NDArray[np.int64]
    bounds: NDArray[np.int64]
    before: NDArray[np.int64]

    @classmethod
    def of(cls, layout: Layout, seed: int, epoch: int, *, shuffle: bool, subset: int) -> EpochGroups:
        """Return the groups of an epoch."""
        order = layout.order(seed, epoch, shuffle=shuffle)
        before = layout.positions(subset)
        starts = np.concatenate([[0], np.cumsum(np.diff(before)[order])])
        return cls(order, starts, layout.group_bounds, before[order])

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """First position of each group, and N; `[G + 1]`."""
        return self.starts[self.bounds]

    def find(self, position: int) -> int:
        """Return the group that holds a position."""
        return int(np.searchsorted(self.positions, position, side="right")) - 1

    def members(self, group: int) -> slice:
        """Return which of the epoch's chunks belong to a group."""
        return slice(int(self.bounds[group]), int(self.bounds[group + 1]))
