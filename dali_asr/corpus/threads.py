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
_FLYING_BYTES = 64 << 20  # of arrays that wait to be written


class Threads:
    """Threads that work on members, with a bounded number of bytes in flight."""

    def __init__(self) -> None:
        count = min(max(len(os.sched_getaffinity(0)) - 1, 1), _MAX_THREADS)
        self._pool = ThreadPoolExecutor(count)
        self._flying: deque[tuple[Future[None], int]] = deque()
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(self, size: int, work: Callable[[], None]) -> None:
        """Have a thread work on `size` bytes; raises what earlier work raised."""
        self._flying.append((self._pool.submit(work), size))
        self._bytes += size
        while self._bytes > _FLYING_BYTES:
            self._wait()

    def finish(self) -> None:
        """Wait for all work; raises what it raised."""
        while self._flying:
            self._wait()

    def _wait(self) -> None:
        future, size = self._flying.popleft()
        future.result()
        self._bytes -= size
