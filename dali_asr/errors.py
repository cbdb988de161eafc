"""Errors that a user can cause, each with a message of one line.

    DaliAsrError
    ├── UsageError             exit 2        an invalid argument: an unknown partition, an output that exists
    │   └── ConfigError        exit 2        an invalid configuration; lists every mistake at once
    ├── DataError              exit 1        a file or folder that is missing, damaged or in the wrong format
    │   ├── SymbolError        exit 1        a symbol or label that the inventory does not have
    │   ├── ArchiveError       exit 1        an archive that is damaged, not safe or beyond the limits
    │   └── CheckpointError    exit 1        a run or checkpoint that cannot be used
    ├── TrainingError          exit 1        training cannot continue: the loss is not finite
    ├── DeviceError            exit 1        a device that is missing or has too little memory
    ├── LoadingError           exit 1        the DALI pipeline failed; the cause is attached
    ├── BenchError             exit 1        loaders under benchmark disagree about the windows
    ├── ExportError            exit 1        an exported model predicts something else than its run
    └── TrainingInterrupted    exit 128 + N  signal N arrived; the training state is saved

    DaliAsrWarning                           work continues, but not as well as it could

Every message says what is wrong, where, what was received and what to do.
"""

from __future__ import annotations

from difflib import get_close_matches
from reprlib import Repr
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


DID_YOU_MEAN = "; did you mean "  # before the suggestion with which a message ends
_SHORT = Repr()
vars(_SHORT).update(maxlevel=3, maxlist=8, maxtuple=8, maxdict=8, maxstring=120, maxother=120)


class DaliAsrError(Exception):
    """Base class of all errors that a user can cause.

    Attributes:
        exit_code: the exit code of the command line.
        reported: whether another process of a distributed training reports the error.
    """

    exit_code = 1
    reported = False


class UsageError(DaliAsrError, ValueError):
    """An invalid argument."""

    exit_code = 2


class ConfigError(UsageError):
    """An invalid configuration.

    Attributes:
        where: the file, or what else holds the configuration.
        problems: one line per mistake, each starting with its path (`loader.masking.time.width`).
    """

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.where, self.problems = where, tuple(problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__("\n  ".join([f"{where}: {count}", *problems]))


class DataError(DaliAsrError):
    """A file or folder that is missing, damaged or in the wrong format."""


class SymbolError(DataError):
    """A symbol or label that the inventory does not have."""


class ArchiveError(DataError):
    """An archive that is damaged, not safe or beyond the limits."""


class CheckpointError(DataError):
    """A run or checkpoint that cannot be used."""


class TrainingError(DaliAsrError):
    """Training cannot continue."""


class DeviceError(DaliAsrError):
    """A device that is missing or has too little memory."""


class LoadingError(DaliAsrError):
    """The DALI pipeline failed; `__cause__` is the original error."""


class BenchError(DaliAsrError):
    """Loaders under benchmark disagree about the windows of a plan."""


class ExportError(DaliAsrError):
    """An exported model predicts something else than the run that it was exported from."""


class TrainingInterrupted(DaliAsrError):  # noqa: N818 - not a fault
    """Ctrl-C or SIGTERM arrived and the training state is saved.

    Attributes:
        exit_code: 128 plus the number of the signal, as shells report it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class DaliAsrWarning(UserWarning):
    """Work continues, but not as well as it could; the message says why."""


def or_leave_out(error: DataError) -> DataError:
    """Return the error of the first of many files that cannot be used, with how to go on without these."""
    return DataError(f"{error}; keep_going=True leaves out what cannot be used")


def brief(value: object) -> str:
    """Return the `repr` of a value for a message, shortened where it is long or deeply nested."""
    return _SHORT.repr(value)


def quoted(names: Iterable[str]) -> str:
    """Return names in quotation marks, so that they are not read as words of the message."""
    return ", ".join(map(repr, names))


def printable(text: str) -> str:
    """Return text with control characters escaped, which could otherwise command the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def did_you_mean(received: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean X?` for the closest allowed name, or an empty string if none is close."""
    near = nearest(received, allowed)
    return f"{DID_YOU_MEAN}{near}?" if near is not None else ""


def nearest(received: str, allowed: Iterable[str]) -> str | None:
    """Return the closest allowed name, or the only one that begins with what was received; None if there is none."""
    by_lower = {name.lower(): name for name in allowed}
    near = get_close_matches(received.lower(), by_lower, n=1, cutoff=0.6)
    longer = [name for name in by_lower if name.startswith(received.lower())] if len(received) > 1 else []
    if not near and len(longer) == 1:
        near = longer
    return by_lower[near[0]] if near else None
