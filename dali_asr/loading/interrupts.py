"""Ctrl-C while DALI works.

Where C code asks for an attribute of a Python object and the answer is an exception, some of it clears whatever
exception it gets; a KeyboardInterrupt that strikes there is lost, and the program goes on. So the signal is noted while
DALI works, and handled after.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Noted:
    """The handler that the program had, and whether a signal came meanwhile; signals belong to the process."""

    handler: Callable[..., Any] | None = None
    came = False


@contextmanager
def deferred() -> Iterator[None]:
    """Handle an interrupt that strikes within the block when it ends; in the main thread, which alone hears of it."""
    handler = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or not callable(handler) or handler is _note:
        yield
        return
    _Noted.handler, _Noted.came = handler, False
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    check()


def check() -> None:
    """Handle the interrupt that was noted, if one was: for what takes long within such a block."""
    if _Noted.came and current_thread() is main_thread():
        _Noted.came = False
        if _Noted.handler:
            _Noted.handler(signal.SIGINT, None)


def _note(*_: Any) -> None:
    _Noted.came = True
