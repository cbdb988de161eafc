"""Ctrl-C and SIGTERM: deferred while C code runs, recorded while a model trains, blocked while processes start."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Pending:
    """The program's own handler of SIGINT, and whether an interrupt waits for it; there is one per process."""

    handler: Callable[..., Any] | None = None
    arrived = False


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Handle an interrupt that arrives within the block when the block ends.

    C code that asks a Python object for an attribute may clear any exception it gets, a KeyboardInterrupt included.
    Only the main thread receives signals; elsewhere this does nothing.
    """
    handler = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or not callable(handler) or handler is _defer:
        yield
        return
    _Pending.handler, _Pending.arrived = handler, False
    signal.signal(signal.SIGINT, _defer)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        handle_deferred_interrupt()


def handle_deferred_interrupt() -> None:
    """Handle an interrupt that was deferred, if there is one: for long waits within the block."""
    if _Pending.arrived and current_thread() is main_thread():
        _Pending.arrived = False
        if _Pending.handler:
            _Pending.handler(signal.SIGINT, None)


@contextmanager
def blocked_interrupts() -> Iterator[None]:
    """Block Ctrl-C, also in processes started within the block: the terminal sends it to all of them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopRequest:
    """Records Ctrl-C and SIGTERM, so that a loop can stop at a place of its choice.

    Attributes:
        signal: the signal that arrived; None if none did.
    """

    signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """128 plus the number of the signal, as shells report it."""
        return 128 + (self.signal or signal.SIGINT)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the signals that arrive within the block; a second Ctrl-C raises KeyboardInterrupt."""
        if current_thread() is not main_thread():
            yield
            return
        before = {number: signal.signal(number, self._record) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _record(self, number: int, _frame: Any) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


def _defer(*_: Any) -> None:
    _Pending.arrived = True
