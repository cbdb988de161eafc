"""Alignment files as text: UTF-8 with or without a byte order mark, or UTF-16 with one."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from dali_asr.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_text(path: Path) -> str:
    """Return the content of an alignment file.

    Raises:
        DataError: the file cannot be read, is no regular file, or is in another encoding.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: is not a regular file; remove it, or replace it with one")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}; check the path and permissions") from error
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is neither UTF-8 nor UTF-16; save it as UTF-8") from error


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place of each line that is not blank, as errors name it, and the line without its end.

    Raises:
        DataError: as `read_text`.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", line.rstrip("\r")
