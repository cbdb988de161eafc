"""The external source: which steps DALI cuts in each iteration, and what it needs to know for that.

One iteration of DALI cuts the windows of one or several steps. A ragged step is an iteration of its own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from nvidia.dali.pipeline import Pipeline

    from dali_asr.loading.frames import Frames
    from dali_asr.plan import Planner


@dataclass(frozen=True)
class Iteration:
    """One iteration of DALI.

    Attributes:
        seek: number of seeks before it was issued.
        epoch: epoch of its steps.
        step: its first step.
        steps: number of steps; 0 for a filler that bridges the time until frames can be read.
        size: windows per step.
        parts: groups that its windows are in, numbered across epochs, and which windows each group has.
    """

    seek: int
    epoch: int
    step: int
    steps: int
    size: int
    parts: tuple[tuple[int, slice], ...]

    @property
    def windows(self) -> int:
        """Number of windows."""
        return self.steps * self.size


class Graph(Protocol):
    """A DALI graph that cuts windows."""

    def arrays(self, iteration: Iteration) -> list[list[NDArray[Any]]]:
        """Return the inputs of an iteration: for each input, one array per sample."""

    def pipeline(self, source: Callable[[int], Any]) -> tuple[Pipeline, list[str]]:
        """Build the pipeline that `source` feeds with these arrays.

        Returns:
            The pipeline and the names of its outputs: `windows`, `frame_ids` and, if labelled, `labels`.
        """


class StepSource:
    """An endless sequence of iterations, epoch after epoch, as inputs of a graph.

    It runs on into the next epoch, so that the pipeline stays full at the end of one.

    Args:
        planner: plans the steps.
        frames: frames on the device.
        graph: turns an iteration into inputs.
        max_steps: maximum number of steps per iteration.

    Attributes:
        issued: pending iterations, oldest first.
        seeks: Number of seeks so far. Iterations issued before the latest seek are discarded.
    """

    def __init__(self, planner: Planner, frames: Frames, graph: Graph, max_steps: int) -> None:
        self.issued: deque[Iteration] = deque()
        self.seeks = 0
        self._planner, self._frames, self._graph, self._max_steps = planner, frames, graph, max_steps
        self._next = (0, 0)

    @property
    def upcoming(self) -> tuple[int, int]:
        """Epoch and step that the pipeline delivers next."""
        for iteration in self.issued:
            if iteration.steps:
                return iteration.epoch, iteration.step
        return self._next

    def seek(self, epoch: int, step: int) -> None:
        """Continue with another step."""
        self.seeks += 1
        self._next = (epoch, step)

    def delivered(self) -> Iteration:
        """Return the oldest pending iteration, which DALI has delivered."""
        iteration = self.issued.popleft()
        self._release()
        return iteration

    def __call__(self, _number: int) -> tuple[list[NDArray[Any]], ...]:
        """Return the inputs of the next iteration.

        Raises:
            DataError: the corpus is damaged or changed.
        """
        iteration = self._next_iteration()
        if not self.issued:
            self._release(iteration)
        if not self._frames.require(iteration.parts[0][0], iteration.parts[-1][0]):
            iteration = Iteration(self.seeks, iteration.epoch, iteration.step, 0, 0, iteration.parts)
        arrays = self._graph.arrays(iteration)
        # State changes last, so that an interrupt before here leaves nothing half counted.
        end = iteration.step + iteration.steps
        at_end = end >= self._planner.steps.count
        self._next = (iteration.epoch + 1, 0) if at_end else (iteration.epoch, end)
        self.issued.append(iteration)
        return tuple(arrays)

    def _next_iteration(self) -> Iteration:
        epoch, step = self._next
        steps = self._planner.steps
        count = max(1, min(self._max_steps, steps.whole - step))
        first, end = steps.span(step)
        size, stride = end - first, steps.global_batch
        groups, group_count = self._planner.groups(epoch), self._planner.layout.group_count
        first_group = groups.find(first) if group_count > 1 else 0
        last_group = groups.find(first + (count - 1) * stride + size - 1) if group_count > 1 else 0
        base = epoch * group_count
        if first_group == last_group:
            return Iteration(self.seeks, epoch, step, count, size, ((base + first_group, slice(None)),))
        whole, rest = divmod(int(groups.positions[first_group + 1]) - first, stride)
        split = whole * size + min(rest, size)  # windows in the first group
        parts = ((base + first_group, slice(0, split)), (base + last_group, slice(split, None)))
        return Iteration(self.seeks, epoch, step, count, size, parts)

    def _release(self, upcoming: Iteration | None = None) -> None:
        oldest = self.issued[0] if self.issued else upcoming
        if oldest:
            self._frames.release(oldest.parts[0][0])


class SourceOfPipeline:
    """The source as one pipeline sees it, which can end for this pipeline alone.

    Args:
        source: source of the iterations.
    """

    def __init__(self, source: StepSource) -> None:
        self._source = source
        self._stopped = False

    def stop(self) -> None:
        """End: every later call raises StopIteration."""
        self._stopped = True

    def __call__(self, number: int) -> tuple[list[NDArray[Any]], ...]:
        """Return the inputs of the next iteration, see `StepSource`.

        Raises:
            StopIteration: the source was stopped.
        """
        if self._stopped:
            raise StopIteration
        return self._source(number)
