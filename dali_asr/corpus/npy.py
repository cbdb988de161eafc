"""Reading `.npy` files of unknown quality: never by pickle, and every fault named.

The format is NumPy's own, NEP 1: https://numpy.org/neps/nep-0001-npy-format.html.
"""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.lib import format as npy_format

from dali_asr.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_HEADER_READ = 512  # bytes; a header is 128 in practice
HEADER_SIZE = 128  # of the files that we write
_MOST_ARRAYS = 1000  # of one call to preadv, which takes 1024


@dataclass(frozen=True)
class NpyHeader:
    """What a `.npy` file says of its array.

    Attributes:
        shape: of the array.
        dtype: of its elements.
        fortran_order: whether the first axis runs fastest.
        offset: bytes before the data.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int

    @property
    def data_size(self) -> int:
        """Bytes of data that the file must hold."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class OpenedFile:
    """A file as it was when it was opened, so that what changed since is an error instead of garbage, or a crash.

    Attributes:
        path: of the file.
        inode: its number.
        size: in bytes.
        modified: in nanoseconds since 1970.
    """

    path: Path
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> OpenedFile:
        """Return a file as it is now.

        Raises:
            DataError: it is not there, or cannot be read.
        """
        try:
            now = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        return cls(path, now.st_ino, now.st_size, now.st_mtime_ns)

    def check_unchanged(self) -> None:
        """Check that the file is as it was.

        Raises:
            DataError: it is not.
        """
        self._compare(OpenedFile.of(self.path))

    def read_into(self, arrays: Sequence[NDArray[Any]], offset: int) -> None:
        """Fill contiguous arrays with the bytes from `offset` on, one after the other.

        Read, not mapped: a mapped file that is cut short ends the process.

        Raises:
            DataError: the file changed, before it was read or meanwhile.
        """
        try:
            file = os.open(self.path, os.O_RDONLY)
            try:
                self._compare(self._opened(file))
                for first in range(0, len(arrays), _MOST_ARRAYS):
                    part = [array.data.cast("B") for array in arrays[first : first + _MOST_ARRAYS]]
                    while part and (count := os.preadv(file, part, offset)):  # which may read less than asked
                        offset += count
                        part = _unread(part, count)
                    if part:
                        raise self._changed()
                self._compare(self._opened(file))
            finally:
                os.close(file)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _opened(self, file: int) -> OpenedFile:
        now = os.fstat(file)
        return OpenedFile(self.path, now.st_ino, now.st_size, now.st_mtime_ns)

    def _compare(self, now: OpenedFile) -> None:
        if now != self:
            raise self._changed()

    def _changed(self) -> DataError:
        return DataError(f"{self.path}: changed since it was opened; open the corpus again")


def read_header(path: Path) -> NpyHeader:
    """Read the header of a `.npy` file and check that the data behind it is all there.

    Raises:
        DataError: no such file, empty, not a `.npy`, of pickled objects, or truncated.
    """
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            return _parse(path, os.read(file, _HEADER_READ), os.fstat(file).st_size)
        finally:
            os.close(file)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_array(path: Path) -> NDArray[Any]:
    """Read a `.npy` file whole.

    Raises:
        DataError: as `read_header`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    header = _parse(path, content[:_HEADER_READ], len(content))
    flat = np.frombuffer(content, header.dtype, math.prod(header.shape), header.offset)
    return flat.reshape(header.shape, order="F" if header.fortran_order else "C")


def map_array(path: Path, header: NpyHeader) -> NDArray[Any]:
    """Map a `.npy` file whose header was read and checked.

    Raises:
        DataError: it cannot be opened.
    """
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    try:
        return np.memmap(path, header.dtype, "r", header.offset, header.shape, order)
    except OSError as error:
        raise _unreadable(path, error) from error


def header_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the `HEADER_SIZE` bytes that open a `.npy` file of this shape and dtype."""
    buffer = io.BytesIO()
    described = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(buffer, described)
    content = buffer.getvalue()
    if len(content) != HEADER_SIZE:
        raise AssertionError(f"a .npy header of {len(content)} bytes, not {HEADER_SIZE}")
    return content


def _unread(parts: list[memoryview], count: int) -> list[memoryview]:
    """Return what is left of buffers after their first `count` bytes."""
    for at, part in enumerate(parts):
        if count < len(part):
            return [part[count:], *parts[at + 1 :]]
        count -= len(part)
    return []


def _parse(path: Path, head: bytes, file_size: int) -> NpyHeader:
    if not head:
        raise DataError(f"{path}: the file is empty; write it again with numpy.save")
    try:
        header = _parse_head(head[:HEADER_SIZE] if head[6:10] == b"\x01\x00\x76\x00" else head)
    except (ValueError, TypeError, SyntaxError, TokenError) as error:  # all that damaged headers end in
        kind = "a pickle" if head[:1] == b"\x80" else "not a .npy file, or cut off in its header"
        raise DataError(f"{path}: {kind}; write it again with numpy.save") from error
    if header.dtype.hasobject:
        raise DataError(
            f"{path}: holds Python objects (dtype {header.dtype}), which are never loaded; "
            "save an array of numbers or strings"
        )
    missing = header.offset + header.data_size - file_size
    if missing > 0:
        raise DataError(f"{path}: truncated, {missing} of {header.data_size} bytes of data are missing; copy it again")
    return header


@lru_cache(maxsize=4096)  # many utterances are equally long, and parsing takes longer than reading
def _parse_head(head: bytes) -> NpyHeader:
    stream = io.BytesIO(head)
    version = npy_format.read_magic(stream)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, fortran_order, dtype = read(stream)
    if min(shape, default=0) < 0:
        raise ValueError(f"shape {shape}")
    return NpyHeader(shape, dtype, fortran_order, stream.tell())


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: {(error.strerror or str(error)).lower()}; check the path and its permissions")
