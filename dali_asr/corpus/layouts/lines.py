"""Text files with a line per utterance, or several: where the lines of each are, so that they are read when needed.

A line opens with the name of its utterance and a space or tab.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dali_asr.corpus.regular import open_regular, reading
from dali_asr.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Lines:
    """Consecutive lines of an utterance in a text file.

    Attributes:
        path: the file.
        number: of the first line, from 1.
        offset: of the first line, in bytes.
        size: of all lines, in bytes.
    """

    path: Path
    number: int
    offset: int
    size: int

    @property
    def where(self) -> str:
        """The place of the first line, as errors name it."""
        return f"{self.path}, line {self.number}"

    def read(self) -> list[list[str]]:
        """Read the fields of each line, without the name of the utterance.

        Raises:
            DataError: the file cannot be read, changed, or is not UTF-8.
        """
        with open_regular(self.path) as file, reading(self.path):
            content = os.pread(file, self.size, self.offset)
        return [line.split()[1:] for line in decoded(self.where, content).splitlines() if line.strip()]


def index_lines(path: Path) -> Mapping[str, Lines]:
    """Return where the lines of each utterance are, in the order of the file.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or the lines of an utterance do not follow each other.
    """
    found: dict[str, Lines] = {}
    last, offset = "", 0
    with reading(path), open_regular(path) as file, open(file, "rb", closefd=False) as stream:
        for number, line in enumerate(stream, 1):
            fields = line.split(None, 1)
            if fields:
                name = decoded(f"{path}, line {number}", fields[0])
                if name in found and name != last:
                    raise DataError(
                        f"{path}, line {number}: {name} is also in line {found[name].number}; "
                        "put the lines of an utterance together"
                    )
                first = found.get(name, Lines(path, number, offset, 0))
                found[name] = Lines(path, first.number, first.offset, offset + len(line) - first.offset)
                last = name
            offset += len(line)
    return found


def decoded(where: str, content: bytes) -> str:
    """Return bytes as text.

    Raises:
        DataError: they are not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: is not UTF-8; write the file again") from error
