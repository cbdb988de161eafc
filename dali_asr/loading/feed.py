"""The feed: a DALI pipeline under its source, as batches in the order that is wanted.

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame.
"""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dali_asr.errors import DaliAsrError, LoadingError
from dali_asr.signals import deferred_interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from nvidia.dali.pipeline import Pipeline

    from dali_asr.loading.graph import Graph
    from dali_asr.loading.source import Iteration, StepSource


@dataclass(frozen=True)
class Batch:
    """One step's windows, on the loader's device.

    The batches of one DALI iteration are views of the same memory: one that is kept keeps all of them.

    Attributes:
        windows: `[B, W, D]`, float32 or float16.
        labels: `[B]` int64, of the frames in the middle, −100 where one has none; None in an unlabelled
            partition.
        frame_ids: `[B]` int64, their numbers in the partition.
    """

    windows: torch.Tensor
    labels: torch.Tensor | None
    frame_ids: torch.Tensor


class Feed:
    """Delivers the steps that are wanted, in order.

    The pipeline is built when it is first needed, and again after an error or an interrupt broke into it, when
    nobody knows what it still holds.

    Args:
        source: of steps.
        graph: that cuts them.
        device: where.
        may_skip: whether what DALI works on may be passed over; not where that reads frames that are replaced.
    """

    def __init__(self, source: StepSource, graph: Graph, device: torch.device, *, may_skip: bool) -> None:
        self._source, self._graph, self._device, self._may_skip = source, graph, device, may_skip
        self._pipeline: Pipeline | None = None
        self._outputs: Iterator[Any] | None = None
        self._ready: deque[Batch] = deque()
        self._first_ready = (0, 0)

    def seek(self, epoch: int, step: int) -> None:
        """Deliver this step next."""
        if self._ready and self._first_ready == (epoch, step):
            return
        skipped = bool(self._ready) or self._source.upcoming != (epoch, step)
        self._ready.clear()
        if self._outputs is None or (skipped and not self._may_skip):
            self.stop()
        if skipped or self._source.upcoming != (epoch, step):
            self._source.seek(epoch, step)

    def next(self) -> Batch:
        """Return the next step.

        Raises:
            LoadingError: the pipeline failed.
            DaliAsrError: as the frames that are read on the way.
        """
        while not self._ready:
            iteration, output = self._deliver()
            if not iteration.is_empty:
                self._first_ready = (iteration.epoch, iteration.step)
                self._ready.extend(_batches(output, iteration.sizes))
        epoch, step = self._first_ready
        self._first_ready = (epoch, step + 1)
        return self._ready.popleft()

    def stop(self) -> None:
        """Let the pipeline go, after what it works on; nothing reads the frames from then on."""
        self._outputs = None
        self._ready.clear()
        self._source.issued.clear()
        if self._pipeline:
            self._pipeline._shutdown()  # what DALI calls when a process exits; it has no public name
            self._pipeline = None
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)

    def _deliver(self) -> tuple[Iteration, dict[str, torch.Tensor]]:
        """Return the next iteration of the present turn, and what DALI made of it."""
        with self._on_device():
            outputs = self._start() if self._outputs is None else self._outputs
            self._outputs = None  # until it is known that nothing broke into it
            while True:
                (output,) = self._advance(outputs)
                iteration = self._source.delivered()
                if iteration.turn == self._source.turn:  # else it was prefetched for a loop that was left
                    break
        self._outputs = outputs
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
        # DALI feeds the frames by the stream of torch's current device, whichever that is.
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _start(self) -> Iterator[Any]:
        # DALI's torch plugin takes long to import.
        from nvidia.dali.plugin.pytorch import DALIGenericIterator

        self._pipeline, names = self._graph.pipeline(self._source)
        outputs: Iterator[Any] = DALIGenericIterator([self._pipeline], names, size=-1, prepare_first_batch=False)
        return outputs


def _batches(output: dict[str, torch.Tensor], sizes: tuple[int, ...]) -> list[Batch]:
    """Cut an iteration, the samples of DALI's batch one after the other, into its minibatches."""
    count = sum(sizes)
    cut = {name: torch.split(samples.flatten(0, 1)[:count], list(sizes)) for name, samples in output.items()}
    labels: Any = cut.get("labels", (None,) * len(sizes))
    return [Batch(*parts) for parts in zip(cut["windows"], labels, cut["frame_ids"], strict=True)]
