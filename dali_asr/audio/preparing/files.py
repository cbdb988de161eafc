"""The recordings and alignments below a folder."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from dali_asr.audio.recordings import SUFFIXES
from dali_asr.errors import DataError, printable
from dali_asr.files import composed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# In this order: a recording that has several alignments is labelled by the first, since `.lab` and `.txt` files beside
# recordings are often transcripts.
ALIGNMENT_SUFFIXES = (".textgrid", ".phn", ".ctm", ".lab", ".txt")
_SPHERE_HEADER = 1024  # bytes
_COMPRESSED = re.compile(rb"sample_coding -s\d+ \S*(shorten|shortpack|wavpack)")


@dataclass(frozen=True)
class File:
    """A file below a folder.

    Attributes:
        path: of the file.
        folders: the names of the folders from the searched one down to the file's own, composed.
        stem: the file's name without suffixes of recordings and alignments, composed.
    """

    path: Path
    folders: tuple[str, ...]
    stem: str

    @property
    def suffix(self) -> str:
        """The last suffix, in lower case."""
        return self.path.suffix.lower()


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        recordings: those that can be used, in the order of their paths.
        unusable: further recordings.
        alignments: in the order of their paths.
        tables: the further files that were asked for.
        problems: a line for each folder that cannot be read, and for recordings that cannot be used.
    """

    recordings: list[File] = field(default_factory=list)
    unusable: list[File] = field(default_factory=list)
    alignments: list[File] = field(default_factory=list)
    tables: list[File] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def search(folder: Path, tables: Iterable[str] = ()) -> Found:
    """Find the recordings and alignments below a folder, hidden files left out.

    Args:
        folder: to search, with everything below it.
        tables: names of further files that are wanted.

    Raises:
        DataError: the folder does not exist, or is none.
    """
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {state}; give a folder of recordings and alignments")
    found = Found()
    for path in _files(folder, found.problems):
        file = File(path, tuple(map(composed, path.relative_to(folder).parts[:-1])), composed(_stem(path.name)))
        if file.suffix in SUFFIXES:
            found.recordings.append(file)
        elif file.suffix in ALIGNMENT_SUFFIXES:
            found.alignments.append(file)
        elif path.name in tables:
            found.tables.append(file)
    _keep_usable(found)
    return found


def common_depth(files: Sequence[File]) -> int:
    """Return the number of folders that all files are in."""
    levels = zip(*(file.folders for file in files), strict=False)
    return sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, levels))


def _files(folder: Path, problems: list[str]) -> Iterator[Path]:
    """Yield all files, in order; links to folders are followed, each folder once."""
    seen = set()

    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: {(error.strerror or str(error)).lower()}; allow reading it, or remove it")

    for top, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        state = os.stat(top)  # noqa: PTH116 - os.walk gives texts
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(top, name) for name in sorted(names) if not name.startswith("."))


def _stem(name: str) -> str:
    """Return a name without suffixes of recordings and alignments: `SA1` of `SA1.WAV.wav`."""
    path = PurePath(name)
    while path.suffix.lower() in (*SUFFIXES, *ALIGNMENT_SUFFIXES) and path.stem:
        path = PurePath(path.stem)
    return path.name


def _keep_usable(found: Found) -> None:
    """Keep one recording of each name in each folder, and say which cannot be used.

    Of TIMIT's recordings in SPHERE and copies of them that were converted, the copies are kept.
    """
    by_place: dict[tuple[Path, str], list[File]] = defaultdict(list)
    for file in found.recordings:
        by_place[file.path.parent, file.stem].append(file)
    found.recordings = []
    for files in by_place.values():
        best = [file for file in files if not _sphere_header(file.path)] if len(files) > 1 else files
        best = best or files
        if len(best) > 1:
            names = " and ".join(printable(str(file.path)) for file in best)
            found.problems.append(f"{names}: two recordings of one name; keep one of them")
        elif _COMPRESSED.search(_sphere_header(best[0].path)):
            name = printable(str(best[0].path))
            found.problems.append(f"{name}: is compressed NIST SPHERE; convert it: sph2pipe -f wav IN OUT")
        else:
            found.recordings += best
            continue
        found.unusable += best


def _sphere_header(path: Path) -> bytes:
    """Return the header of a recording in NIST's SPHERE format; nothing for other files."""
    try:
        with path.open("rb") as file:
            header = file.read(_SPHERE_HEADER)
    except OSError:
        return b""  # said when it is read
    return header if header.startswith(b"NIST_1A") else b""
