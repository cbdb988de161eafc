"""The DALI pipeline under its source, and the batches that come out of it.

    Planner ──▶ StepSource ──Iteration──▶ Graph.arrays ──▶ DALI pipeline ──▶ DALIGenericIterator ──▶ Feed ──▶ Batch

One iteration of DALI cuts the windows of one or several steps. A ragged step is an iteration of its own.

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

# DALI reads this when it is loaded. Without it, every batch on the CPU is made of fresh pages, whose first touch costs
# more than the gather: 0.65 instead of 1.15 M windows/s at 4,096 windows on two cores.
os.environ.setdefault("DALI_MALLOC_POOL_THRESHOLD", "64k")

from nvidia.dali import backend, fn, types
from nvidia.dali.pipeline import Pipeline

from dali_asr.errors import DaliAsrError, LoadingError
from dali_asr.loading.lifecycle import RunningPipeline
from dali_asr.signals import deferred_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from dali_asr.loading.frames import Frames
    from dali_asr.plan import Planner

DALI_TYPES = {"float32": types.FLOAT, "float16": types.FLOAT16}


class Batch(NamedTuple):
    """The windows of one step, on the loader's device.

    The batches of one DALI iteration are views of the same memory: keeping one keeps all of them.

    Attributes:
        windows: `[B, W, D]`, float32 or float16.
        labels: int64 `[B]`, label of each window's own frame, −100 for none; None in an unlabelled partition.
        frame_ids: int64 `[B]`, number of each window's own frame within the partition.
    """

    windows: torch.Tensor
    labels: torch.Tensor | None
    frame_ids: torch.Tensor


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
        self._stopped = False

    @property
    def upcoming(self) -> tuple[int, int]:
        """Epoch and step that the pipeline delivers next."""
        for iteration in self.issued:
            if iteration.steps:
                return iteration.epoch, iteration.step
        return self._next

    def start(self) -> None:
        """Feed a new pipeline: no iteration is pending in it."""
        self.issued.clear()
        self._stopped = False

    def stop(self) -> None:
        """End: the next call raises StopIteration."""
        self._stopped = True

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
            StopIteration: the source was stopped.
            DataError: the corpus is damaged or changed.
        """
        if self._stopped:
            raise StopIteration
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


class Feed:
    """Delivers batches from any step on, in order.

    The pipeline is built when it is first needed, and again after an error or interrupt, when its content is unknown.

    Args:
        source: source of the pipeline.
        graph: graph that cuts the windows.
        device: where the batches are.
        may_skip: whether prefetched iterations may be skipped after a seek. False for streamed frames, whose buffers
            get overwritten.
    """

    def __init__(self, source: StepSource, graph: Graph, device: torch.device, *, may_skip: bool) -> None:
        self._source, self._graph, self._device, self._may_skip = source, graph, device, may_skip
        self._running: RunningPipeline | None = None
        self._intact = False  # no error or interrupt since the pipeline was built
        self._ready: deque[Batch] = deque()
        self._ready_end = (0, 0)  # epoch, and the step after the last ready batch

    def seek(self, epoch: int, step: int) -> None:
        """Continue with the batch of this step."""
        if self._ready and self._ready_end == (epoch, step + len(self._ready)):
            return
        skipped = bool(self._ready) or self._source.upcoming != (epoch, step)
        self._ready.clear()
        if not self._intact or (skipped and not self._may_skip):
            self.stop()
        if skipped or self._source.upcoming != (epoch, step):
            self._source.seek(epoch, step)

    def next(self) -> Batch:
        """Return the next batch.

        Raises:
            LoadingError: the pipeline failed.
            DaliAsrError: as raised while frames are read.
        """
        while not self._ready:
            iteration, output = self._deliver()
            if iteration.steps:
                self._ready.extend(_batches(output, iteration))
                self._ready_end = (iteration.epoch, iteration.step + iteration.steps)
        return self._ready.popleft()

    def stop(self) -> None:
        """Shut the pipeline down and wait until nothing reads the frames any longer."""
        running = self._detach()
        if running:
            running.stop()
            running.wait()

    def stop_later(self, release: Callable[[], None]) -> None:
        """Begin to shut the pipeline down, then call `release`; never waits."""
        running = self._detach()
        if running:
            running.stop(release)
        else:
            release()

    def _detach(self) -> RunningPipeline | None:
        running, self._running = self._running, None
        self._intact = False
        self._ready.clear()
        self._source.issued.clear()
        return running

    def _deliver(self) -> tuple[Iteration, dict[str, torch.Tensor]]:
        """Return the next iteration since the latest seek, and its outputs."""
        with self._on_device():
            if self._running is None or not self._intact:
                self.stop()
                self._running = self._start()
            outputs = self._running.outputs
            assert outputs is not None
            self._intact = False  # until the outputs are known to have arrived
            while True:
                (output,) = self._advance(outputs)
                iteration = self._source.delivered()
                if iteration.seek == self._source.seeks:
                    break
        self._intact = True
        return iteration, output

    def _advance(self, outputs: Iterator[Any]) -> Any:
        try:
            with deferred_interrupts():
                return next(outputs)
        except DaliAsrError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()
            told = next((line for line in reversed(reason) if "Error" in line), reason[0] if reason else "no message")
            raise LoadingError(f"DALI could not cut windows: {type(error).__name__}: {told.strip()}") from error

    def _on_device(self) -> AbstractContextManager[Any]:
        # DALI feeds the frames on the stream of torch's current device.
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _start(self) -> RunningPipeline:
        # DALI's torch plugin is slow to import.
        from nvidia.dali.plugin.pytorch import DALIGenericIterator

        self._source.start()
        pipeline, names = self._graph.pipeline(self._source)
        outputs = DALIGenericIterator([pipeline], names, size=-1, prepare_first_batch=False)
        return RunningPipeline(pipeline, outputs, self._source.stop, self._device)


def _batches(output: dict[str, torch.Tensor], iteration: Iteration) -> Iterable[Batch]:
    """Split the outputs of an iteration into batches; the samples of DALI's batch follow one another."""
    steps, size = iteration.steps, iteration.size

    def split(name: str) -> Iterable[torch.Tensor]:
        rows = output[name].flatten(0, 1)[: iteration.windows]
        return rows.view(steps, size, *rows.shape[1:]).unbind()

    labels = split("labels") if "labels" in output else repeat(None, steps)
    return map(Batch, split("windows"), labels, split("frame_ids"))


def new_pipeline(device: torch.device, *, prefetch: int, samples: int = 1) -> Pipeline:
    """Return a pipeline with few samples per iteration, one per thread: DALI's bookkeeping is per sample."""
    return Pipeline(
        batch_size=samples,
        num_threads=samples,
        device_id=device.index if device.type == "cuda" else None,
        prefetch_queue_depth=prefetch,
    )


def resident_input(get: Callable[[], Any], device: torch.device, samples: int = 1) -> Any:
    """Return the node of an array that stays on the device; DALI shares it with every sample and does not copy it.

    `get` is called for every iteration: DALI's operators reference each other, and so everything they hold, until
    Python collects garbage. None ends the pipeline.
    """

    def give(_number: int) -> list[Any]:
        array = get()
        if array is None:
            raise StopIteration
        return [array] * samples

    where = "gpu" if device.type == "cuda" else "cpu"
    return fn.external_source(give, device=where, batch=True, no_copy=True)


def release_unused_memory() -> None:
    """Give back the memory that DALI keeps for pipelines that are gone."""
    backend.ReleaseUnusedMemory()  # type: ignore[attr-defined]
