"""What can go wrong for a user, as exceptions whose message is one line.

    DaliAsrError
    ├── UsageError         exit 2   an argument that cannot be: an unknown partition, an output that exists
    │   └── ConfigError    exit 2   a configuration with mistakes, all of them at once
    ├── DataError          exit 1   a file or folder that is not what it should be
    │   └── CheckpointError  exit 1   a run or checkpoint that cannot be used here
    ├── TrainingError      exit 1   a training that came to nothing: a loss that is no number
    ├── DeviceError        exit 1   a device that is missing, or too small
    ├── LoadingError       exit 1   a pipeline that failed; the cause is attached
    └── TrainingInterrupted  exit 128 + N   by signal N; training saved and left

Every message says what is wrong, where, what was received and what to do.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class DaliAsrError(Exception):
    """Base of all errors that a user can cause."""

    exit_code = 1


class UsageError(DaliAsrError):
    """An argument that cannot be right, whatever the data."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration with mistakes.

    Attributes:
        problems: one line a mistake, each opening with its path (`loader.masking.time.width`).
    """

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__("\n  ".join([f"{where}: {count}", *problems]))


class DataError(DaliAsrError):
    """A file or folder that is not what it should be."""


class CheckpointError(DataError):
    """A run or checkpoint that cannot be used here."""


class TrainingError(DaliAsrError):
    """A training that cannot go on: the loss is no finite number any more."""


class DeviceError(DaliAsrError):
    """A device that is missing, or too small for what was asked of it."""


class LoadingError(DaliAsrError):
    """A pipeline that failed while it cut windows; `__cause__` is what it failed of."""


def did_you_mean(received: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean X?` for the nearest allowed name, or nothing when none is near."""
    by_lower = {name.lower(): name for name in allowed}
    near = get_close_matches(received.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""
