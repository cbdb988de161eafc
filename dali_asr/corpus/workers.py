"""Processes that pack utterances side by side, and end with the process that started them."""

from __future__ import annotations

import ctypes
import os
import signal
from collections import deque
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, TypeVar

from dali_asr.signals import blocked_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from loky import ProcessPoolExecutor
    from typing_extensions import Self

_T = TypeVar("_T")
_R = TypeVar("_R")

_CHUNK = 64  # utterances per task
_MAX_PROCESSES = 8  # each takes some 25 MiB, and the disk limits what more could do
_MIN_UTTERANCES = 500  # per process; fewer are packed before a process has started
# glibc returns freed arrays to the system and gets them again, page by page, for the next utterance. That is a quarter
# of the time of packing. With these settings it keeps them, a few MB.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}
_PR_SET_PDEATHSIG = 1  # of prctl(2)


class Workers:
    """Processes that work on chunks of utterances; none for a small corpus.

    loky's processes, unlike multiprocessing's, do not import the caller's `__main__` again.

    Args:
        utterances: number of utterances of the corpus.
    """

    def __init__(self, utterances: int) -> None:
        self._count = min(len(os.sched_getaffinity(0)), _MAX_PROCESSES, utterances // _MIN_UTTERANCES)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._count > 1:
            from loky import ProcessPoolExecutor
            from loky.backend import resource_tracker as loky_tracker

            for tracker in (resource_tracker, loky_tracker):
                tracker.ensure_running()  # started later, they would unblock interrupts
            parent = os.getpid()
            self._pool = ProcessPoolExecutor(
                self._count, env=_KEEP_MEMORY, initializer=_end_with_parent, initargs=(parent,)
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the processes, even in the middle of their work."""
        if self._pool:
            self._pool.shutdown(wait=True, kill_workers=True)

    def map(
        self, work: Callable[[Sequence[_T]], _R], items: Sequence[_T], report: Callable[[int], None]
    ) -> Iterator[_R]:
        """Yield the results of `work` on chunks of `items`, in order; `report` is called with the number done."""
        chunks = chunked(items)
        done = 0
        for chunk, result in zip(chunks, self._results(work, chunks), strict=True):
            done += len(chunk)
            report(done)
            yield result

    def _results(self, work: Callable[[Sequence[_T]], _R], chunks: Sequence[Sequence[_T]]) -> Iterator[_R]:
        """Yield the results, with a bounded number of tasks in flight."""
        if self._pool is None:
            yield from map(work, chunks)
            return
        flying: deque[Future[_R]] = deque()
        for chunk in chunks:
            with blocked_interrupts():  # Ctrl-C reaches every process; the parent alone handles it
                flying.append(self._pool.submit(work, chunk))
            if len(flying) > 2 * self._count:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()


def chunked(items: Sequence[_T]) -> list[Sequence[_T]]:
    """Return utterances, or what belongs to each, in chunks of one task each."""
    return [items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK)]


def _end_with_parent(parent: int) -> None:
    """Have the system kill this process when the parent ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)
