"""The plan: what each step reads, as a pure function of (seed, epoch, position).

Nothing is stored and nothing is drawn from a generator with hidden state, so that any step of any epoch can be
planned alone, anywhere. The fused kernel has a twin of it, equal to the bit.

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame, `M` bands of a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.errors import UsageError
from dali_asr.plan.groups import Chunks, EpochGroups
from dali_asr.plan.masking import draw_masks
from dali_asr.plan.order import permute, round_keys
from dali_asr.plan.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dali_asr.plan.masking import Masking

MOST_ROWS = 1 << 31  # DALI gathers rows by int32
_RUN_WINDOWS = 8192  # planned together: a call costs as much for 500 as for 5,000


@dataclass(frozen=True)
class Plan:
    """What a step reads, or several in a row.

    Attributes:
        frames: frame numbers, `[B]` int64.
        frequency: first and end feature of each zeroed band, `[B, M, 2]` int32; M is 0 without masks.
        time: first and end frame, within the window, of each zeroed span, `[B, M, 2]` int32.
    """

    frames: NDArray[np.int64]
    frequency: NDArray[np.int32]
    time: NDArray[np.int32]

    def part(self, first: int, end: int) -> Plan:
        """Return the windows from `first` up to `end`."""
        return Plan(self.frames[first:end], self.frequency[first:end], self.time[first:end])

    @classmethod
    def join(cls, plans: Sequence[Plan]) -> Plan:
        """Return the windows of several plans in a row."""
        frames, frequency, time = ([getattr(p, n) for p in plans] for n in ("frames", "frequency", "time"))
        return cls(np.concatenate(frames), np.concatenate(frequency), np.concatenate(time))


@dataclass(frozen=True, eq=False)
class Planner:
    """Plans the steps of a partition.

    Attributes:
        frame_count: F, of the partition.
        batch_size: B, of this rank.
        window: W.
        feature_dim: D.
        seed: of order and masks.
        shuffle: whether an epoch's order is random, else frame order.
        subset: every `subset`-th frame is read.
        drop_last: whether a last batch of fewer windows is dropped, see `Steps`.
        masking: None for no masks.
        rank: which of the processes this is.
        world_size: how many processes share the steps.
        chunks: how the partition is read piece by piece; None where it is one chunk.

    Raises:
        UsageError: an argument out of its range, a mask wider than the window, or groups smaller than a batch.
    """

    frame_count: int
    batch_size: int
    window: int
    feature_dim: int
    seed: int = 0
    shuffle: bool = True
    subset: int = 1
    drop_last: bool = False
    masking: Masking | None = None
    rank: int = 0
    world_size: int = 1
    chunks: Chunks | None = None

    def __post_init__(self) -> None:
        ranges = {
            "frame_count": (self.frame_count, 1, 1 << 62),
            "batch_size": (self.batch_size, 1, MOST_ROWS),
            "subset": (self.subset, 1, MOST_ROWS),
            "seed": (self.seed, 0, 1 << 64),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value < high:
                raise UsageError(f"loader: {name} {value}; expected {low} to {high - 1}")
        if self.masking:
            self.masking.check(window=self.window, feature_dim=self.feature_dim)
        if self.steps.global_batch > self.positions_in_two_groups:
            raise UsageError(
                f"memory for frames: half of it holds {self.positions_in_two_groups:,} windows, a global batch has "
                f"{self.steps.global_batch:,}; raise loader.memory_budget, or lower loader.batch_size or loader.subset"
            )

    @property
    def positions(self) -> int:
        """N, windows that an epoch can read: every `subset`-th frame."""
        return -(-self.frame_count // self.subset)

    @cached_property
    def steps(self) -> Steps:
        """The steps of an epoch."""
        return Steps(self.positions, self.batch_size, self.drop_last, self.rank, self.world_size)

    @property
    def positions_in_two_groups(self) -> int:
        """How many positions in a row certainly lie within two groups: as many as the smallest group has."""
        return self.layout.least_positions(self.subset) if self.layout.group_count > 2 else MOST_ROWS

    def plan(self, epoch: int, step: int, steps: int = 1) -> Plan:
        """Plan a step, or `steps` in a row: a pure function of the planner's attributes and the arguments.

        Steps are planned in runs, of which the last few are kept.
        """
        length, parts = self._run_length, []
        for run in range(step // length, (step + steps - 1) // length + 1):
            plan, starts = self._planned(epoch, run)
            first, end = (min(max(at - run * length, 0), length) for at in (step, step + steps))
            parts.append(plan.part(starts[first], starts[end]))
        return parts[0] if len(parts) == 1 else Plan.join(parts)

    def frames(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the frame numbers of positions in ascending order, `[B]`."""
        groups = self.groups(epoch)
        bounds = np.searchsorted(positions, groups.positions).tolist()
        found = np.empty_like(positions)
        for group, (first, end) in enumerate(pairwise(bounds)):
            if first < end:
                found[first:end] = self._group_frames(epoch, groups, group, positions[first:end])
        return found

    def groups(self, epoch: int) -> EpochGroups:
        """Return the groups of an epoch."""
        return _epoch_groups(self.layout, self.seed, epoch, self.shuffle, self.subset)

    def _group_frames(
        self, epoch: int, groups: EpochGroups, group: int, positions: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        if self.shuffle:
            first, end = groups.positions[group : group + 2].tolist()
            keys = round_keys(self.seed, epoch, group=group)
            positions = first + permute(positions - first, end - first, keys)
        if len(groups.chunks) == 1:
            return positions * self.subset
        chunk = np.searchsorted(groups.starts, positions, side="right") - 1
        return (groups.before[chunk] + positions - groups.starts[chunk]) * self.subset

    def masks(self, epoch: int, step: int, steps: int = 1) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Draw the bands of frequency and time of steps, as in a `Plan`."""
        positions = self._positions(step, steps)
        if self.masking is None:
            nothing = np.zeros((len(positions), 0, 2), np.int32)
            return nothing, nothing
        if self.masking.scope == "window":
            return draw_masks(self.masking, positions, epoch, self.seed, self.window, self.feature_dim)
        numbers = epoch * self.steps.count + step + np.arange(steps, dtype=np.int64)
        drawn = draw_masks(self.masking, numbers, 0, self.seed, self.window, self.feature_dim)
        sizes = [end - first for first, end in map(self.steps.span, range(step, step + steps))]
        return np.repeat(drawn[0], sizes, axis=0), np.repeat(drawn[1], sizes, axis=0)

    @property
    def _run_length(self) -> int:
        return max(1, _RUN_WINDOWS // self.batch_size)

    @cached_property
    def _planned(self) -> Callable[[int, int], tuple[Plan, list[int]]]:
        return lru_cache(maxsize=4)(self._plan_run)

    def _plan_run(self, epoch: int, run: int) -> tuple[Plan, list[int]]:
        """Plan a run of steps; and where each of them begins in it, and the last ends."""
        step = run * self._run_length
        steps = min(self._run_length, self.steps.count - step)
        sizes = [end - first for first, end in map(self.steps.span, range(step, step + steps))]
        plan = Plan(self.frames(epoch, self._positions(step, steps)), *self.masks(epoch, step, steps))
        return plan, np.cumsum([0, *sizes]).tolist()

    def _positions(self, step: int, steps: int) -> NDArray[np.int64]:
        spans = map(self.steps.span, range(step, step + steps))
        return np.concatenate([np.arange(first, end, dtype=np.int64) for first, end in spans])

    @cached_property
    def layout(self) -> Chunks:
        """How the partition is read: its chunks, or one that is all of it."""
        return Chunks.whole(np.array([0, self.frame_count])) if self.chunks is None else self.chunks


@lru_cache(maxsize=8)
def _epoch_groups(chunks: Chunks, seed: int, epoch: int, shuffle: bool, subset: int) -> EpochGroups:
    return EpochGroups.of(chunks, seed, epoch, shuffle=shuffle, subset=subset)
