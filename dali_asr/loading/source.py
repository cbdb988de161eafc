"""The external source: what DALI cuts next, iteration after iteration.

An iteration is one or several steps whose windows DALI cuts at once. A step that is not whole is an iteration of its
own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.loading.frames import ResidentFrames, StreamedFrames
    from dali_asr.loading.graph import Graph
    from dali_asr.plan.planner import Planner


@dataclass(frozen=True)
class Iteration:
    """What DALI cuts at once.

    Attributes:
        turn: how often the source had been sent elsewhere.
        epoch: of the steps.
        step: the first of them.
        sizes: windows of each step; none in an iteration that only bridges the time until frames can be read.
        parts: which of the windows lie in which group, counted on from epoch to epoch.
    """

    turn: int
    epoch: int
    step: int
    sizes: tuple[int, ...]
    parts: tuple[tuple[int, slice], ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to deliver."""
        return not self.sizes


class StepSource:
    """An endless run of steps, epoch after epoch, as arrays for a graph.

    Running on into the next epoch keeps the pipeline full where an epoch ends. What was issued and is not yet
    delivered stands in `issued`, so that the loader can tell a step that is no longer wanted.

    Args:
        planner: plans the steps.
        frames: where windows are cut from.
        graph: puts an iteration into the form that it takes.
        most_steps: of an iteration.

    Attributes:
        issued: what DALI works on, oldest first.
        turn: how often the source was sent elsewhere.
    """

    def __init__(
        self, planner: Planner, frames: ResidentFrames | StreamedFrames, graph: Graph, most_steps: int
    ) -> None:
        self.issued: deque[Iteration] = deque()
        self.turn = 0
        self._planner, self._frames, self._graph, self._most = planner, frames, graph, most_steps
        self._next = (0, 0)

    @property
    def upcoming(self) -> tuple[int, int]:
        """The epoch and step that the pipeline delivers next."""
        for iteration in self.issued:
            if not iteration.is_empty:
                return iteration.epoch, iteration.step
        return self._next

    def seek(self, epoch: int, step: int) -> None:
        """Go on from another step; what was issued before belongs to an earlier turn."""
        self.turn += 1
        self._next = (epoch, step)

    def delivered(self) -> Iteration:
        """Return the oldest iteration that was issued, which DALI has delivered."""
        iteration = self.issued.popleft()
        self._release()
        return iteration

    def __call__(self, _iteration: int) -> tuple[list[NDArray[Any]], ...]:
        """Return the arrays of the next iteration, one list of one sample an input of the graph."""
        now = self._plan_iteration()
        if not self.issued:
            self._release(now)
        if not self._frames.require(now.parts[0][0], now.parts[-1][0]):
            now = Iteration(now.turn, now.epoch, now.step, (), now.parts)
        arrays = self._graph.arrays(now)
        # Last, so that an interrupt on the way here leaves nothing half counted.
        end = now.step + len(now.sizes)
        self._next = (now.epoch + 1, 0) if end >= self._planner.steps.count else (now.epoch, end)
        self.issued.append(now)
        return tuple(arrays)

    def _plan_iteration(self) -> Iteration:
        epoch, step = self._next
        steps = self._planner.steps
        end = step + 1
        while end < min(step + self._most, steps.count) and steps.is_whole(end) and steps.is_whole(step):
            end += 1
        spans = [steps.span(at) for at in range(step, end)]
        groups = self._planner.groups(epoch)
        before = epoch * (len(groups.positions) - 1)
        first, last = groups.at(spans[0][0]), groups.at(spans[-1][1] - 1)
        boundary = int(groups.positions[first + 1])
        count = sum(max(0, min(end_, boundary) - first_) for first_, end_ in spans)
        parts = [(before + first, slice(0, count)), (before + last, slice(count, None))]
        return Iteration(self.turn, epoch, step, tuple(b - a for a, b in spans), tuple(parts[: last - first + 1]))

    def _release(self, upcoming: Iteration | None = None) -> None:
        oldest = self.issued[0] if self.issued else upcoming
        if oldest:
            self._frames.release(oldest.parts[0][0])
