"""The DALI pipeline that the source feeds, and the batches that it delivers.

    StepSource ──▶ Graph.arrays ──▶ DALI pipeline ──▶ DALIGenericIterator ──▶ Feed ──▶ Batch

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

# DALI reads this when it is loaded. Without it, every batch on the CPU is made of fresh pages, whose first touch costs
# more than the gather: 0.65 instead of 1.15 M windows/s at 4,096 windows on two cores.
os.environ.setdefault("DALI_MALLOC_POOL_THRESHOLD", "64k")

from nvidia.dali import backend, fn, types
from nvidia.dali.pipeline import Pipeline

from dali_asr.corpus import NO_LABEL
from dali_asr.errors import DaliAsrError, LoadingError
from dali_asr.loading.lifecycle import RunningPipeline
from dali_asr.loading.source import SourceOfPipeline
from dali_asr.signals import deferred_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from dali_asr.loading.source import Graph, Iteration, StepSource

DALI_TYPES = {"float32": types.FLOAT, "float16": types.FLOAT16}
OUTPUTS = ("windows", "frame_ids", "labels")  # of a pipeline; without labels in an unlabelled partition


class Batch(NamedTuple):
    """The windows of one step, on the loader's device.

    The batches of one DALI iteration are views of the same memory: keeping one keeps all of them. A pickled or copied
    batch has memory of its own. `torch.load` reads a saved one once `Batch` is imported.

    Attributes:
        windows: `[B, W, D]` float32, float16 or bfloat16.
        labels: `[B]` int64, label of each window's own frame, −100 for none; all −100 in an unlabelled partition.
        frame_ids: `[B]` int64, number of each window's own frame within the partition.
    """

    windows: torch.Tensor
    labels: torch.Tensor
    frame_ids: torch.Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the batch on a device."""
        return Batch(*(tensor.to(device, non_blocking=non_blocking) for tensor in self))

    def pin_memory(self) -> Batch:
        """Return a copy in pinned host memory."""
        return Batch(*(tensor.pin_memory() for tensor in self))

    def __reduce__(self) -> tuple[type[Batch], tuple[torch.Tensor, ...]]:
        return Batch, tuple(tensor.clone() for tensor in self)


torch.serialization.add_safe_globals([Batch])  # it holds tensors and runs no code, so `torch.load` may build it


class Feed:
    """Delivers batches from any step on, in order.

    The pipeline is built when it is first needed, and again after an error or interrupt, when its content is unknown.

    Args:
        source: source of the pipeline.
        graph: graph that cuts the windows.
        device: where the batches are.
        dtype: data type of the windows that are delivered.
        may_skip: whether prefetched iterations may be skipped after a seek. False for streamed frames, whose buffers
            get overwritten.
    """

    def __init__(
        self, source: StepSource, graph: Graph, device: torch.device, dtype: torch.dtype, *, may_skip: bool
    ) -> None:
        self._source, self._graph, self._device, self._may_skip = source, graph, device, may_skip
        self._dtype = dtype
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
                self._ready.extend(_batches(output, iteration, self._dtype))
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

        self._source.issued.clear()
        source = SourceOfPipeline(self._source)
        pipeline, names = self._graph.pipeline(source)
        outputs = DALIGenericIterator([pipeline], names, size=-1, prepare_first_batch=False)
        return RunningPipeline(pipeline, outputs, source.stop, self._device)


def _batches(output: dict[str, torch.Tensor], iteration: Iteration, dtype: torch.dtype) -> Iterable[Batch]:
    """Split the outputs of an iteration into batches; the samples of DALI's batch follow one another."""
    steps, size = iteration.steps, iteration.size

    def split(rows: torch.Tensor) -> Iterable[torch.Tensor]:
        return rows.view(steps, size, *rows.shape[1:]).unbind()

    windows, frame_ids, *labels = (
        output[name].flatten(0, 1)[: iteration.windows] for name in OUTPUTS if name in output
    )
    known = labels[0] if labels else torch.full_like(frame_ids, NO_LABEL)
    return map(Batch, split(windows.to(dtype)), split(known), split(frame_ids))


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
