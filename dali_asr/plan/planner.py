"""The plan: what each step reads, as a pure function of (spec, layout, epoch, step).

Nothing is stored and no generator keeps a state, so any step of any epoch can be planned alone, anywhere. The fused
kernel computes the same plan, equal to the bit.

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame, `M` bands per window.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.errors import UsageError
from dali_asr.plan.groups import EpochGroups, Layout
from dali_asr.plan.masking import draw_masks
from dali_asr.plan.order import permute, round_keys
from dali_asr.plan.spec import MAX_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dali_asr.plan.spec import LoaderSpec
    from dali_asr.plan.steps import Steps

_RUN_WINDOWS = 8192  # planned together: a call costs as much for 500 windows as for 5,000


@dataclass(frozen=True)
class Plan:
    """What one step reads, or several consecutive steps.

    Attributes:
        frame_ids: frame numbers, int64 `[B]`.
        time: first and end frame, within the window, of each masked span; int32 `[B, M, 2]`, M is 0 without masks.
        frequency: first and end feature of each masked band, int32 `[B, M, 2]`.
    """

    frame_ids: NDArray[np.int64]
    time: NDArray[np.int32]
    frequency: NDArray[np.int32]

    def part(self, first: int, end: int) -> Plan:
        """Return the windows from `first` up to `end`."""
        return Plan(self.frame_ids[first:end], self.time[first:end], self.frequency[first:end])

    @classmethod
    def join(cls, plans: Sequence[Plan]) -> Plan:
        """Return the windows of several plans, one after the other."""
        frame_ids, time, frequency = ([getattr(p, n) for p in plans] for n in ("frame_ids", "time", "frequency"))
        return cls(np.concatenate(frame_ids), np.concatenate(time), np.concatenate(frequency))


@dataclass(frozen=True, eq=False)
class Planner:
    """Plans the steps of a partition.

    Attributes:
        spec: what decides the sequence.
        layout: chunks and groups in which the partition is read.

    Raises:
        UsageError: a group has fewer windows than a global batch.
    """

    spec: LoaderSpec
    layout: Layout

    def __post_init__(self) -> None:
        if self.steps.global_batch > self.windows_in_two_groups:
            raise UsageError(
                f"memory for frames: half of it holds {self.windows_in_two_groups:,} windows, but a global batch has "
                f"{self.steps.global_batch:,}; raise memory_budget, or lower batch_size or subset"
            )

    @classmethod
    def whole(cls, spec: LoaderSpec) -> Planner:
        """Return the planner of a partition that is read as one chunk."""
        return cls(spec, Layout.whole(np.array([0, spec.frame_count])))

    @property
    def steps(self) -> Steps:
        """The steps of an epoch."""
        return self.spec.steps

    @cached_property
    def windows_in_two_groups(self) -> int:
        """Number of consecutive windows that certainly lie within two groups: those of the smallest group."""
        return self.layout.min_group_positions(self.spec.subset) if self.layout.group_count > 2 else MAX_ROWS

    def plan(self, epoch: int, step: int, steps: int = 1) -> Plan:
        """Plan a step, or `steps` consecutive ones.

        Steps are planned in runs, and the latest runs are cached.
        """
        length, parts = self._run_length, []
        for run in range(step // length, (step + steps - 1) // length + 1):
            plan, starts = self._planned(epoch, run)
            first, end = (min(max(at - run * length, 0), length) for at in (step, step + steps))
            parts.append(plan.part(starts[first], starts[end]))
        return parts[0] if len(parts) == 1 else Plan.join(parts)

    def frame_ids(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the frame numbers at positions in ascending order, `[B]`."""
        groups = self.groups(epoch)
        bounds = np.searchsorted(positions, groups.positions).tolist()
        found = np.empty_like(positions)
        for group, (first, end) in enumerate(pairwise(bounds)):
            if first < end:
                found[first:end] = self._group_frame_ids(epoch, groups, group, positions[first:end])
        return found

    def groups(self, epoch: int) -> EpochGroups:
        """Return the groups of an epoch."""
        return _epoch_groups(self.layout, self.spec.seed, epoch, self.spec.shuffle, self.spec.subset)

    def masks(self, epoch: int, step: int, steps: int = 1) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Draw the bands of time and frequency of consecutive steps, as in a `Plan`."""
        spec, masking = self.spec, self.spec.masking
        positions = self._positions(step, steps)
        if masking is None:
            nothing = np.zeros((len(positions), 0, 2), np.int32)
            return nothing, nothing
        if masking.scope == "window":
            return draw_masks(masking, positions, epoch, spec.seed, spec.window, spec.feature_dim)
        numbers = epoch * self.steps.count + step + np.arange(steps, dtype=np.int64)
        time, frequency = draw_masks(masking, numbers, 0, spec.seed, spec.window, spec.feature_dim)
        sizes = self._sizes(step, steps)
        return np.repeat(time, sizes, axis=0), np.repeat(frequency, sizes, axis=0)

    def _group_frame_ids(
        self, epoch: int, groups: EpochGroups, group: int, positions: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        spec = self.spec
        if spec.shuffle:
            first, end = groups.positions[group : group + 2].tolist()
            keys = round_keys(spec.seed, epoch, group=group)
            positions = first + permute(positions - first, end - first, keys)
        if len(groups.chunks) == 1:
            return positions * spec.subset
        chunk = np.searchsorted(groups.starts, positions, side="right") - 1
        return (groups.before[chunk] + positions - groups.starts[chunk]) * spec.subset

    @property
    def _run_length(self) -> int:
        return max(1, _RUN_WINDOWS // self.spec.batch_size)

    @cached_property
    def _planned(self) -> Callable[[int, int], tuple[Plan, list[int]]]:
        return lru_cache(maxsize=4)(self._plan_run)

    def _plan_run(self, epoch: int, run: int) -> tuple[Plan, list[int]]:
        """Plan a run of steps; return it and the index of each step's first window, and of the end."""
        step = run * self._run_length
        steps = min(self._run_length, self.steps.count - step)
        plan = Plan(self.frame_ids(epoch, self._positions(step, steps)), *self.masks(epoch, step, steps))
        return plan, np.cumsum([0, *self._sizes(step, steps)]).tolist()

    def _positions(self, step: int, steps: int) -> NDArray[np.int64]:
        spans = map(self.steps.span, range(step, step + steps))
        return np.concatenate([np.arange(first, end, dtype=np.int64) for first, end in spans])

    def _sizes(self, step: int, steps: int) -> list[int]:
        return [end - first for first, end in map(self.steps.span, range(step, step + steps))]


@lru_cache(maxsize=8)
def _epoch_groups(layout: Layout, seed: int, epoch: int, shuffle: bool, subset: int) -> EpochGroups:
    return EpochGroups.of(layout, seed, epoch, shuffle=shuffle, subset=subset)
