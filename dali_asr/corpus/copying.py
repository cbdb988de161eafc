"""Copying runs of bytes from one file into another."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_BLOCK = 8 << 20  # bytes
_UNSUPPORTED = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)

Run = tuple[int, int, int]  # offsets in source and destination, and size, in bytes


def copy_runs(source: Path, dest: Path, runs: Iterable[Run]) -> None:
    """Copy runs of bytes of a file into another, which is there; several threads may write to it at once.

    Raises:
        OSError: a file cannot be read or written.
    """
    with source.open("rb", buffering=0) as read, dest.open("r+b", buffering=0) as write:
        for run in _joined(runs):
            _copy(read.fileno(), write.fileno(), *run)


def _joined(runs: Iterable[Run]) -> Iterator[Run]:
    """Yield runs, those that follow each other in both files as one."""
    start, target, size = 0, 0, 0
    for a, b, count in runs:
        if size and (a, b) == (start + size, target + size):
            size += count
            continue
        if size:
            yield start, target, size
        start, target, size = a, b, count
    if size:
        yield start, target, size


def _copy(read: int, write: int, start: int, target: int, size: int) -> None:
    while size:
        try:
            count = os.copy_file_range(read, write, min(size, _BLOCK), start, target)  # within the system
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            count = os.pwrite(write, os.pread(read, min(size, _BLOCK), start), target)
        if not count:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        start, target, size = start + count, target + count, size - count
