"""A loop that Ctrl-C strikes every few milliseconds; in a process of its own, as it would strike pytest too.

    python -m tests.loading.interrupted

prints how many interrupts arrived, and how many batches the loader gives after them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

from dali_asr import WindowLoader
from tests.makers import make_partition

WANTED, SECONDS = 30, 30


def main() -> None:
    """Iterate until all are caught, or the time is over."""
    loader = WindowLoader(make_partition([8] * 20), context=2, batch_size=5, memory_budget=3000, device="cpu")
    assert loader.streamed
    stop = threading.Event()

    def strike() -> None:
        while not stop.wait(0.003):
            os.kill(os.getpid(), signal.SIGINT)

    caught, begun = 0, time.monotonic()
    sent = threading.Thread(target=strike)
    sent.start()
    try:
        while caught < WANTED and time.monotonic() - begun < SECONDS:
            try:
                for _ in loader:
                    pass
            except KeyboardInterrupt:
                caught += 1
    finally:
        stop.set()
        while sent.is_alive():
            with contextlib.suppress(KeyboardInterrupt):
                sent.join()
    with contextlib.suppress(KeyboardInterrupt):
        list(loader)
    print(caught, len(list(loader)), len(loader))


if __name__ == "__main__":
    main()
