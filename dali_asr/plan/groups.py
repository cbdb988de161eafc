"""Chunks and groups: how a partition that exceeds the memory budget is read, piece by piece.

A chunk is a run of utterances. Each epoch puts the chunks in an order of its own, by a keyed bijection; consecutive
chunks of that order are a group, which lies on the device as a whole; and the frames of a group are read in an
order of its own, by a keyed bijection too. So a position's frame stays a formula. A partition that fits is one
group of one chunk.

Shape letters: `U` utterances, `C` chunks, `G` groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.errors import UsageError
from dali_asr.plan.order import permute, round_keys
from dali_asr.plan.philox import Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNKS_A_GROUP = 64  # about; more mix better, fewer are read faster


@dataclass(frozen=True, eq=False)
class Chunks:
    """Runs of utterances that are read together.

    Attributes:
        utterances: first utterance of each chunk, and U; `[C + 1]` int64.
        frames: first frame of each chunk, and F; `[C + 1]` int64.
        target: frames of a chunk, roughly; 0 where the partition is one chunk.
        most: chunks of a group, at most.
    """

    utterances: NDArray[np.int64]
    frames: NDArray[np.int64]
    target: int
    most: int

    @classmethod
    def whole(cls, offsets: NDArray[np.int64]) -> Chunks:
        """Return a partition of utterances at `offsets` `[U + 1]` as one chunk."""
        return cls(np.array([0, len(offsets) - 1]), offsets[[0, -1]], 0, 1)

    @classmethod
    def split(cls, offsets: NDArray[np.int64], target: int, most: int) -> Chunks:
        """Cut a partition into chunks of about `target` frames, each of whole utterances."""
        starts = np.searchsorted(offsets[:-1], np.arange(0, int(offsets[-1]), target))
        bounds = np.unique(np.append(starts, len(offsets) - 1))
        return cls(bounds, offsets[bounds], target, most)

    @classmethod
    def fit(cls, offsets: NDArray[np.int64], gap: int, rows: int, row_bytes: int) -> Chunks:
        """Cut a partition so that two groups, with `gap` rows between utterances, take at most `rows` rows.

        Raises:
            UsageError: two chunks alone take more.
        """
        target = max(int(np.diff(offsets).min()), rows // 2 // _CHUNKS_A_GROUP)
        chunks = cls.split(offsets, target, 1)
        largest = np.cumsum(np.sort(chunks.rows(gap))[::-1])
        most = int(np.searchsorted(largest, rows // 2 - gap, side="right"))
        if not most:
            raise UsageError(
                f"memory for frames: {rows * row_bytes:,} bytes, two chunks of utterances may take "
                f"{2 * (int(largest[0]) + gap) * row_bytes:,}; raise loader.memory_budget, or free memory"
            )
        return cls.split(offsets, target, most)

    def __len__(self) -> int:
        return len(self.frames) - 1

    @property
    def group_count(self) -> int:
        """G, groups of an epoch."""
        return -(-len(self) // self.most)

    @cached_property
    def group_bounds(self) -> NDArray[np.int64]:
        """First chunk of each group, in an epoch's order of chunks; `[G + 1]`."""
        return len(self) * np.arange(self.group_count + 1) // self.group_count

    def rows(self, gap: int) -> NDArray[np.int64]:
        """Return the rows that each chunk takes, with `gap` rows after every utterance, `[C]`."""
        taken: NDArray[np.int64] = np.diff(self.frames) + np.diff(self.utterances) * gap
        return taken

    def group_rows(self, gap: int) -> int:
        """Return the rows that the largest group of any epoch takes, with a gap before its first utterance."""
        most = int(np.diff(self.group_bounds).max())
        return gap + int(np.sort(self.rows(gap))[-most:].sum())

    def positions(self, subset: int) -> NDArray[np.int64]:
        """Return how many frames that are multiples of `subset` stand before each chunk, `[C + 1]`."""
        before: NDArray[np.int64] = -(-self.frames // subset)
        return before

    def least_positions(self, subset: int) -> int:
        """Return the positions that the smallest group of any epoch has, at least."""
        least = int(np.diff(self.group_bounds).min())
        return int(np.sort(np.diff(self.positions(subset)))[:least].sum())

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
        chunks: in the epoch's order, `[C]` int64.
        starts: position at which each of them begins, and N; `[C + 1]` int64.
        bounds: first of them in each group, `[G + 1]` int64.
        before: frames read that stand before each of them in the partition, `[C]` int64.
    """

    chunks: NDArray[np.int64]
    starts: NDArray[np.int64]
    bounds: NDArray[np.int64]
    before: NDArray[np.int64]

    @classmethod
    def of(cls, chunks: Chunks, seed: int, epoch: int, *, shuffle: bool, subset: int) -> EpochGroups:
        """Return the groups that (seed, epoch) make of chunks."""
        order = chunks.order(seed, epoch, shuffle=shuffle)
        before = chunks.positions(subset)
        starts = np.concatenate([[0], np.cumsum(np.diff(before)[order])])
        return cls(order, starts, chunks.group_bounds, before[order])

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """First position of each group, and N; `[G + 1]`."""
        return self.starts[self.bounds]

    def at(self, position: int) -> int:
        """Return the group of a position."""
        return int(np.searchsorted(self.positions, position, side="right")) - 1

    def members(self, group: int) -> slice:
        """Return which of the epoch's chunks make up a group."""
        return slice(int(self.bounds[group]), int(self.bounds[group + 1]))
