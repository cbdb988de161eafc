"""Loaders with a Python operator that are built, dropped, collected and left behind, again and again.

    python -m tests.loading.lifecycle_patterns PATTERN=COUNT [PATTERN=COUNT ...]

A watchdog prints all stacks and exits with 1 when nothing has happened for half a minute. The operator is a stand-in
for the fused kernels: Python code that lets other threads run while an iteration is under way.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from dali_asr import Batch, Corpus, WindowLoader
from dali_asr.errors import LoadingError
from dali_asr.loading import fused, loader
from dali_asr.loading.fused import FusedGraph

SECONDS = 30
PARTITION = Corpus.from_arrays([np.ones((60, 3), np.float32)], [[1] * 60]).partition("all")
Hook = Callable[[], None]


def operate(hook: Hook | None = None) -> None:
    """Replace the kernels by Python code that calls `hook` while it runs, and needs no Triton."""

    def launch(self: Any, rows: torch.Tensor, *_: Any) -> list[torch.Tensor]:
        if hook:
            hook()
        for _step in range(3):
            time.sleep(0)  # gives the interpreter lock away
            sum(range(500))
        windows = torch.zeros((self._capacity, 3, 3))
        numbers = torch.zeros(self._capacity, dtype=torch.int64)
        return [windows, numbers, numbers.clone()]

    FusedGraph._launch = launch  # type: ignore[method-assign, assignment]
    for module in (fused, loader):
        setattr(module, "fused_problem", lambda _: None)  # noqa: B010 - `loader` does not export it


def started() -> tuple[WindowLoader, Iterator[Batch]]:
    """Return a loader in the middle of an epoch, with iterations pending."""
    loader = WindowLoader(
        PARTITION, context=1, batch_size=4, graph="fused", device="cpu", batches_per_iteration=1, prefetch=3
    )
    batches = iter(loader)
    next(batches)
    return loader, batches


def dropped(number: int) -> None:
    """Drop a loader in the middle of an epoch, and collect garbage now and then."""
    pair = started()
    cycle: list[Any] = [pair] if number % 2 else []
    cycle.append(cycle)
    del pair, cycle
    if number % 3 == 0:
        gc.collect()


def closed(_number: int) -> None:
    """Close a loader in the middle of an epoch."""
    loader, _ = started()
    loader.close()


def one_of_two(_number: int) -> None:
    """Drop one loader while another one goes on."""
    first, second = started(), started()
    del first
    gc.collect()
    next(second[1])


def in_a_thread(_number: int) -> None:
    """Make and drop a loader in another thread."""

    def work() -> None:
        started()
        gc.collect()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def after_an_error(number: int) -> None:
    """Drop or use a loader after an error in its operator."""

    def fail() -> None:
        raise MemoryError

    loader, batches = started()
    operate(fail)
    try:
        list(batches)
        raise AssertionError("the error of the operator was lost")
    except LoadingError:
        operate()
    if number % 2:
        assert len(list(loader)) == len(loader)


def inside_an_operator(_number: int) -> None:
    """Collect a dropped loader inside the operator of another one."""
    cycle: list[Any] = [started()]
    cycle.append(cycle)
    del cycle
    operate(lambda: (gc.collect(), None)[1])
    loader, batches = started()
    next(batches)
    operate()
    loader.close()


def at_exit(_number: int) -> None:
    """Leave a loader in the middle of an epoch when the interpreter exits."""
    faulthandler.cancel_dump_traceback_later()  # its thread does not survive the fork
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        kept = started()
        globals()["kept"] = kept
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


PATTERNS = {
    f.__name__: f for f in (dropped, closed, one_of_two, in_a_thread, after_an_error, inside_an_operator, at_exit)
}


def main() -> None:
    """Repeat patterns."""
    operate()
    gc.collect()
    gc.freeze()  # so that collecting is quick
    done = 0
    for pattern, count in (argument.split("=") for argument in sys.argv[1:]):
        for number in range(int(count)):
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            PATTERNS[pattern](number)
            done += 1
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    globals()["kept"] = started()  # left in the middle of an epoch when the interpreter exits
    print("done", done)


if __name__ == "__main__":
    main()
