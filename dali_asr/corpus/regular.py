"""Reading regular files: never a pipe or a device, never through a memory map, and every fault names its file."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dali_asr.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from numpy.typing import NDArray

    Verify: TypeAlias = Callable[[int, Sequence[NDArray[Any]]], None]

_MAX_BUFFERS = 1000  # per call of preadv, which accepts 1024
_RUN_BYTES = 512 << 10  # read at once: what was read is verified while it is in the cache


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into one line for the user.

    Args:
        path: named in the message where the error names no file.

    Raises:
        DataError: the file or folder cannot be read.
    """
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{error.filename or path}: {reason}; check the path and its permissions") from error


@contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """Open a regular file for reading; yields its descriptor.

    Raises:
        DataError: the file cannot be opened, or is a folder, a pipe or a device.
    """
    with reading(path):
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would block without O_NONBLOCK
        try:
            mode = os.fstat(file).st_mode
            if stat.S_ISFIFO(mode):
                raise DataError(f"{path}: is a pipe, not a regular file; put its content into a file instead")
            if not stat.S_ISREG(mode):
                raise DataError(f"{path}: is not a regular file; replace it with one, or remove it")
            yield file
        finally:
            os.close(file)


def read_regular(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        DataError: as `open_regular`.
    """
    with open_regular(path) as file, os.fdopen(file, "rb", buffering=0, closefd=False) as stream:
        return stream.readall()


@dataclass(frozen=True)
class OpenedFile:
    """The identity of a file at the time it was opened: a file that changed since is an error.

    Attributes:
        path: of the file.
        inode: its inode number.
        size: in bytes.
        modified: time of the last change, in nanoseconds since 1970.
    """

    path: Path
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> OpenedFile:
        """Return the identity of the file that is at `path` now.

        Raises:
            DataError: the file is missing or cannot be accessed.
        """
        with reading(path):
            return cls._from(path, path.stat())

    @classmethod
    def of_descriptor(cls, path: Path, file: int) -> OpenedFile:
        """Return the identity of an open file."""
        return cls._from(path, os.fstat(file))

    @classmethod
    def _from(cls, path: Path, found: os.stat_result) -> OpenedFile:
        return cls(path, found.st_ino, found.st_size, found.st_mtime_ns)

    def check_unchanged(self) -> None:
        """Check that inode, size and time of change are those of the opened file.

        Raises:
            DataError: one of them differs.
        """
        self._compare(OpenedFile.of(self.path))

    def read_into(self, arrays: Sequence[NDArray[Any]], offset: int, verify: Verify | None = None) -> None:
        """Fill contiguous arrays, one after the other, with the bytes from `offset` on.

        Several threads may read at once. Accessing a memory map of a file that was cut short would end the process;
        here it is an error.

        Args:
            arrays: arrays to fill.
            offset: position of the first byte in the file.
            verify: called with runs of filled arrays, while their bytes are still in the CPU's cache, and the index of
                the first of them.

        Raises:
            DataError: the file changed before or during the read; or as raised by `verify`.
        """
        with open_regular(self.path) as file:
            self._compare(self.of_descriptor(self.path, file))
            for first, end in _runs([array.nbytes for array in arrays]):
                part = [array.data.cast("B") for array in arrays[first:end]]
                while part and (count := os.preadv(file, part, offset)):  # may read less than asked
                    offset += count
                    part = _unfilled(part, count)
                if part:
                    raise self._changed()
                if verify:
                    verify(first, arrays[first:end])
            self._compare(self.of_descriptor(self.path, file))

    def _compare(self, now: OpenedFile) -> None:
        if (now.inode, now.size, now.modified) != (self.inode, self.size, self.modified):
            raise self._changed()

    def _changed(self) -> DataError:
        return DataError(f"{self.path}: changed since it was opened; open the corpus again")


def _unfilled(parts: list[memoryview], count: int) -> list[memoryview]:
    """Return what remains of buffers after their first `count` bytes were filled."""
    for at, part in enumerate(parts):
        if count < len(part):
            return [part[count:], *parts[at + 1 :]]
        count -= len(part)
    return []


def _runs(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield runs of arrays to read at once, each with at most `_MAX_BUFFERS` of them and about `_RUN_BYTES` bytes."""
    first = total = 0
    for at, size in enumerate(sizes):
        if at > first and (total + size > _RUN_BYTES or at - first == _MAX_BUFFERS):
            yield first, at
            first, total = at, 0
        total += size
    if sizes:
        yield first, len(sizes)
