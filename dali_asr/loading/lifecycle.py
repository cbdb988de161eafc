"""The life of a DALI pipeline, from its first iteration to its shutdown.

`Pipeline._shutdown` holds the interpreter lock while it waits for DALI's workers, and a worker that runs a Python
operator needs that lock. So a pipeline is shut down only when no iteration is pending:

    stop the source ──▶ drain (waits for the operator without the lock) ──▶ shut down ──▶ release the frames

One thread of its own does this, because a loader may be dropped anywhere, even inside another loader's operator, where
waiting would never end. Until then a pipeline is kept referenced here, so that the garbage collector never destroys one
that is still running.
"""

from __future__ import annotations

import atexit
import ctypes
import os
from contextlib import nullcontext, suppress
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import torch
from nvidia.dali.pipeline import Pipeline

from dali_asr.signals import handle_deferred_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_POLL_SECONDS = 0.1  # between two looks for Ctrl-C
_running: set[RunningPipeline] = set()


class RunningPipeline:
    """A pipeline and the iterator over its outputs.

    Args:
        pipeline: pipeline to run.
        outputs: iterator over its outputs, which ends once `stop_source` was called and all iterations are delivered.
        stop_source: makes the source end.
        device: where the outputs are.
    """

    def __init__(
        self, pipeline: Pipeline, outputs: Iterator[Any], stop_source: Callable[[], None], device: torch.device
    ) -> None:
        self.outputs: Iterator[Any] | None = outputs
        self._pipeline, self._stop_source, self._device = pipeline, stop_source, device
        self._release: Callable[[], None] | None = None
        self._stopped = False
        self._ended = Event()
        _running.add(self)
        _reaper.start()

    def stop(self, release: Callable[[], None] | None = None) -> None:
        """Stop the source and begin the shutdown; return at once.

        Args:
            release: called when nothing reads the frames any longer.
        """
        if self._stopped:
            return
        self._release, self._stopped = release, True
        self._stop_source()
        _reaper.submit(self)

    @property
    def is_ending(self) -> bool:
        """Whether the shutdown is in progress."""
        return self._stopped and not self._ended.is_set()

    def wait(self) -> None:
        """Wait for the end of the shutdown, or for Ctrl-C."""
        while not self._ended.wait(_POLL_SECONDS):
            handle_deferred_interrupt()

    def shut_down(self) -> None:
        """Drain the pipeline and shut it down."""
        on_device = torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()
        try:
            with on_device:
                self._drain()
            self._pipeline._shutdown()  # DALI calls this when a process exits; it has no public name
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
        finally:
            self.outputs = None
            if self._release:
                self._release()
            self._release = None
            _running.discard(self)
            self._ended.set()

    def abandon(self) -> None:
        """Forget the pipeline without destroying it, in a forked child: its threads live in the parent."""
        backend = self._pipeline._pipe
        if backend is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(backend))
            self._pipeline._pipe = None
        self._ended = Event()  # another thread may have held the lock of the old one
        self._ended.set()

    def _drain(self) -> None:
        """Take the outputs of all pending iterations; each one either arrives or raises the error that ended it."""
        outputs = self.outputs
        while outputs is not None:
            try:
                next(outputs)
            except StopIteration:
                return
            except Exception:  # noqa: BLE001, S112 - it was or will be raised where batches are delivered
                continue


class _Reaper:
    """A daemon thread that shuts pipelines down one after the other."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[RunningPipeline] = SimpleQueue()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start the thread unless it is already running."""
        if self._thread is None:
            thread = Thread(target=self._run, name="dali-asr shuts pipelines down", daemon=True)
            thread.start()
            self._thread = thread

    def submit(self, running: RunningPipeline) -> None:
        """Queue a pipeline; safe in a finalizer, which may interrupt any thread at any instruction."""
        self._jobs.put(running)

    def _run(self) -> None:
        while True:
            running = self._jobs.get()
            with suppress(Exception):
                running.shut_down()
            del running  # it holds the frames


_reaper = _Reaper()


def wait_for_shutdowns() -> None:
    """Wait until the memory of all dropped loaders is free."""
    for running in [running for running in list(_running) if running.is_ending]:
        running.wait()


def _stop_all() -> None:
    """Shut every pipeline down when the interpreter exits; registered after DALI's own hook, so it runs first."""
    pipelines = list(_running)
    for running in pipelines:
        running.stop()
    for running in pipelines:
        running.wait()


def _abandon_all() -> None:
    global _reaper
    for running in _running:
        running.abandon()
    _running.clear()
    Pipeline._pipes.clear()
    _reaper = _Reaper()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_abandon_all)
