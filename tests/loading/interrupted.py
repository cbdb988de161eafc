"""A loop that Ctrl-C strikes every few milliseconds; in a process of its own, as it would strike pytest too.

    python -m tests.loading.interrupted

prints how many interrupts arrived, and how many batches the loader gives after them.
"""

from __future__ import annotations

import os
import signal
import threading
import time

from dali_asr import WindowLoader
from tests.makers import make_partition

WANTED, SECONDS = 30, 30


class Ear:
    """Raises an interrupt where it is listened for, once; elsewhere it passes."""

    listens = False

    def __call__(self, *_: object) -> None:
        if self.listens:
            self.listens = False
            raise KeyboardInterrupt


def main() -> None:
    """Iterate until all are caught, or the time is over."""
    loader = WindowLoader(make_partition([8] * 20), context=2, batch_size=5, memory_budget=3000, device="cpu")
    assert loader.streamed
    ear, stop = Ear(), threading.Event()
    signal.signal(signal.SIGINT, ear)

    def strike() -> None:
        while not stop.wait(0.003):
            os.kill(os.getpid(), signal.SIGINT)

    sent = threading.Thread(target=strike)
    sent.start()
    caught, begun = 0, time.monotonic()
    while caught < WANTED and time.monotonic() - begun < SECONDS:
        try:
            ear.listens = True
            while ear.listens:  # which a destructor may swallow, as Python has it
                for _ in loader:
                    pass
        except KeyboardInterrupt:
            caught += 1
    stop.set()
    sent.join()
    list(loader)
    print(caught, len(list(loader)), len(loader))


if __name__ == "__main__":
    main()
