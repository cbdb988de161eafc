"""Archives as sources of a corpus: read member by member, and nothing is written under their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dali_asr.corpus.regular import open_regular, reading
from dali_asr.fetching.archives import Member, archive_kind, archive_members

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEAD = 512  # bytes that tell what a file is


def is_archive(path: Path) -> bool:
    """Return whether a path is a file that opens like an archive.

    Raises:
        DataError: the file cannot be read.
    """
    with reading(path):
        if not path.is_file():
            return False
    with open_regular(path) as file, open(file, "rb", closefd=False) as stream:
        return archive_kind(stream.read(_HEAD)) is not None


def read_members(path: Path) -> Iterator[Member]:
    """Yield the members of an archive.

    Raises:
        DataError, UsageError: as `archive_members`, or the file cannot be read.
    """
    with open_regular(path) as file, open(file, "rb", closefd=False) as stream:
        yield from archive_members(stream, str(path))
