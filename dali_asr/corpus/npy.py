"""Reading `.npy` files of unknown quality: nothing is unpickled, and every fault names its file.

The format is NEP 1: https://numpy.org/neps/nep-0001-npy-format.html.

Shape letters: `N` rows, `D` columns.
"""

from __future__ import annotations

import ast
import io
import math
import os
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy_format

from dali_asr.corpus.regular import OpenedFile, open_regular, read_regular
from dali_asr.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.corpus.regular import Verify

HEADER_SIZE = 128  # bytes; of the files that we write
_MAX_HEADER = 4096  # bytes read; NumPy writes 128 for arrays of numbers and strings
_MAX_DIMENSIONS = 32
_MAGIC = b"\x93NUMPY"
_DTYPE = re.compile(r"[<>|=]?[biufcSU]\d{1,9}")
_MAX_CODE_POINT = 0x10FFFF


@dataclass(frozen=True)
class NpyHeader:
    """The header of a `.npy` file.

    Attributes:
        shape: of the array.
        dtype: of its elements.
        fortran_order: whether the first axis varies fastest.
        offset: of the data, in bytes from the start of the file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int

    @property
    def data_size(self) -> int:
        """Size of the data in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class NpyFile:
    """An opened `.npy` file whose header was checked; rows are read from it on demand.

    Attributes:
        file: its identity.
        header: its header.
    """

    file: OpenedFile
    header: NpyHeader

    @classmethod
    def open(cls, path: Path) -> NpyFile:
        """Read the header of a `.npy` file and check that the file holds all of its data.

        Raises:
            DataError: the file is missing, empty, truncated, not a regular file, or not a `.npy` file of numbers or
                strings.
        """
        with open_regular(path) as descriptor:
            file = OpenedFile.of_descriptor(path, descriptor)
            return cls(file, read_header(path, os.read(descriptor, _MAX_HEADER), file.size))

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.file.path

    def read_rows_into(self, arrays: Sequence[NDArray[Any]], first: int, verify: Verify | None = None) -> None:
        """Fill contiguous arrays of the file's dtype, one after the other, with its rows from `first` on.

        Args:
            arrays: arrays to fill.
            first: first row.
            verify: see `OpenedFile.read_into`.

        Raises:
            DataError: the file changed since it was opened; or as raised by `verify`.
        """
        header = self.header
        offset = header.offset + first * math.prod(header.shape[1:]) * header.dtype.itemsize
        self.file.read_into(arrays, offset, verify)

    def read_rows(self, first: int, count: int) -> NDArray[Any]:
        """Return `count` rows `[count, D]` of a 2-D array, in either order.

        Raises:
            DataError: the file changed since it was opened.
        """
        rows, columns = self.header.shape
        read = np.empty((count, columns), self.header.dtype, "F" if self.header.fortran_order else "C")
        if not self.header.fortran_order:
            self.read_rows_into([read], first)
            return read
        for at, column in enumerate(read.T):
            self.file.read_into([column], self.header.offset + (at * rows + first) * self.header.dtype.itemsize)
        return read


def read_array(path: Path) -> NDArray[Any]:
    """Read a whole `.npy` file.

    Raises:
        DataError: as `NpyFile.open`, or a string that is not Unicode text.
    """
    return parse_array(path, read_regular(path))


def parse_array(path: Path | str, content: bytes) -> NDArray[Any]:
    """Return the array in the content of a `.npy` file; `path` is named in errors.

    Raises:
        DataError: as `read_array`.
    """
    header = read_header(path, content[:_MAX_HEADER], len(content))
    flat = np.frombuffer(content, header.dtype, math.prod(header.shape), header.offset)
    if header.dtype.kind == "U":
        points = flat.view(header.dtype.byteorder.replace("|", "=") + "u4")
        if points.size and points.max() > _MAX_CODE_POINT:
            raise DataError(f"{path}: damaged, it holds characters beyond Unicode; copy it again")
    array: NDArray[Any] = flat.reshape(header.shape, order="F" if header.fortran_order else "C")
    return array


def header_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the `HEADER_SIZE` bytes that open a `.npy` file of this shape and dtype."""
    buffer = io.BytesIO()
    described = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(buffer, described)
    content = buffer.getvalue()
    if len(content) != HEADER_SIZE:
        raise AssertionError(f"a .npy header of {len(content)} bytes, not {HEADER_SIZE}")
    return content


def read_header(path: Path | str, head: bytes, file_size: int) -> NpyHeader:
    """Return the header of a `.npy` file.

    Args:
        path: named in errors.
        head: the first bytes of the file, at least 4,096 if it has them.
        file_size: in bytes.

    Raises:
        DataError: the file is empty, truncated, or not a `.npy` file of numbers or strings.
    """
    if not head:
        raise DataError(f"{path}: the file is empty; write it again with numpy.save")
    try:
        # Utterances of the same length share one header of 128 bytes, and parsing it takes longer than reading it.
        shape, descr, fortran_order, offset = _parse_header(head[:HEADER_SIZE] if head[8:10] == b"\x76\x00" else head)
    except ValueError as error:
        kind = "a pickle" if head[:1] == b"\x80" else "not a .npy file, or cut off in its header"
        raise DataError(f"{path}: {kind}; write it again with numpy.save") from error
    header = NpyHeader(shape, _to_dtype(path, descr), fortran_order, offset)
    if math.prod(n for n in shape if n) * header.dtype.itemsize > sys.maxsize:
        raise DataError(f"{path}: has shape {str(shape)[:80]}, which is too large; write it again with numpy.save")
    missing = offset + header.data_size - file_size
    if missing > 0:
        raise DataError(f"{path}: truncated, {missing} of {header.data_size} bytes of data are missing; copy it again")
    return header


@lru_cache(maxsize=4096)
def _parse_header(head: bytes) -> tuple[tuple[int, ...], str, bool, int]:
    """Return shape, dtype description, Fortran order and offset of the data.

    Raises:
        ValueError: the header is damaged.
    """
    version, length_bytes = tuple(head[6:8]), 2 if head[6:7] == b"\x01" else 4
    if head[:6] != _MAGIC or version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError("not a .npy file")
    start = 8 + length_bytes
    end = start + int.from_bytes(head[8:start], "little")
    if len(head) < end:
        raise ValueError("the header is cut off")
    try:
        values = ast.literal_eval(head[start:end].decode("utf-8" if version == (3, 0) else "latin1").strip())
    except (TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError("the header is not a literal") from error
    if not isinstance(values, dict) or set(values) != {"descr", "fortran_order", "shape"}:
        raise ValueError("the header lacks a key")
    shape, fortran_order = values["shape"], values["fortran_order"]
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS or type(fortran_order) is not bool:
        raise ValueError("shape or order is invalid")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("the shape is invalid")
    return shape, values["descr"] if isinstance(values["descr"], str) else repr(values["descr"]), fortran_order, end


def _to_dtype(path: Path | str, descr: str) -> np.dtype[Any]:
    if descr in ("|O", "O"):
        raise DataError(
            f"{path}: holds Python objects (dtype object), which are never loaded; save an array of numbers or strings"
        )
    try:
        dtype = np.dtype(descr) if _DTYPE.fullmatch(descr) else None
    except (TypeError, ValueError, OverflowError):
        dtype = None
    if dtype is None or not dtype.itemsize:
        raise DataError(f"{path}: has dtype {descr[:80]}; save an array of numbers or strings")
    return dtype
