"""Threads that work on what one thread reads."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

_MAX_THREADS = 4  # one thread decompresses about as fast as that many normalize
_TASK_BYTES = 1 << 20
_FLYING_BYTES = 64 << 20  # of arrays that wait to be written


class Threads:
    """Threads that work on members, with a bounded number of bytes in flight."""

    def __init__(self) -> None:
        count = min(max(len(os.sched_getaffinity(0)) - 1, 1), _MAX_THREADS)
        self._pool = ThreadPoolExecutor(count)
        self._waiting: list[Callable[[], None]] = []
        self._waiting_bytes = self._bytes = 0
        self._flying: deque[tuple[Future[None], int]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(self, size: int, work: Callable[[], None]) -> None:
        """Have a thread work on `size` bytes; raises what earlier work raised."""
        self._waiting.append(work)
        self._waiting_bytes += size
        if self._waiting_bytes >= _TASK_BYTES:
            self._submit()

    def finish(self) -> None:
        """Wait for all work; raises what it raised."""
        self._submit()
        while self._flying:
            self._wait()

    def _submit(self) -> None:
        """Hand over what waits, as one task: handing over costs as much as a small array does."""
        self._flying.append((self._pool.submit(_run, self._waiting), self._waiting_bytes))
        self._bytes += self._waiting_bytes
        self._waiting, self._waiting_bytes = [], 0
        while self._bytes > _FLYING_BYTES:
            self._wait()

    def _wait(self) -> None:
        future, size = self._flying.popleft()
        future.result()
        self._bytes -= size


def _run(tasks: list[Callable[[], None]]) -> None:
    for task in tasks:
        task()
