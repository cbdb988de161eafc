"""Ctrl-C while DALI works.

Where C code asks for an attribute of a Python object and the answer is an exception, some of it clears whatever
exception it gets; a KeyboardInterrupt that strikes there is lost, and the program goes on. So it is noted while DALI
works, and raised after.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_noted = False


@contextmanager
def deferred() -> Iterator[None]:
    """Raise a KeyboardInterrupt that strikes within the block when it ends.

    Only where Ctrl-C has Python's own meaning, and in the main thread, which alone hears of it.
    """
    global _noted
    if current_thread() is not main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _noted = False
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    check()


def check() -> None:
    """Raise the KeyboardInterrupt that was noted, if one was: for what takes long within such a block."""
    global _noted
    if _noted:
        _noted = False
        raise KeyboardInterrupt


def _note(*_: Any) -> None:
    global _noted
    _noted = True
