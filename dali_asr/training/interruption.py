"""Ctrl-C and SIGTERM while a run trains: noted, and heeded between two steps."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

from dali_asr.errors import DaliAsrError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(DaliAsrError):  # noqa: N818 - no fault of anybody
    """Ctrl-C or SIGTERM.

    Attributes:
        exit_code: 128 and the signal's number, as shells have it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interruption:
    """Whether the run was asked to stop.

    Attributes:
        signal: by which one; None for none.
    """

    signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it."""
        return 128 + (self.signal or signal.SIGINT)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the signals within the block; a second Ctrl-C ends it at once."""
        if current_thread() is not main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: Any) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
