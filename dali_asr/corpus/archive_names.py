"""What the members of an archive are, by their names: the features and transcripts of a course folder."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from dali_asr.corpus.archive import read_members
from dali_asr.corpus.features import is_npy_name
from dali_asr.corpus.layouts.course import FEATURES, TRANSCRIPTS, check_pairs
from dali_asr.corpus.packed import PartitionEntry, check_partition_name
from dali_asr.corpus.packing import quiet
from dali_asr.errors import DataError, UsageError, did_you_mean, printable, quoted
from dali_asr.inventory import is_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dali_asr.corpus.packing import Progress
    from dali_asr.fetching.archives import Member


class ArrayName(NamedTuple):
    """Which array a member holds.

    Attributes:
        partition: its name.
        folder: of the partition: that of the features or of the transcripts.
        utterance: its name.
    """

    partition: str
    folder: str
    utterance: str


def is_course_archive(archive: Path) -> bool:
    """Return whether the first array in an archive is one of a course folder; a packed corpus has its arrays elsewhere.

    Raises:
        DataError: as `read_members`.
    """
    for member in read_members(archive):
        path = PurePosixPath(member.name)
        if member.kind == "file" and is_npy_name(path.name):
            return path.parent.name in (FEATURES, TRANSCRIPTS)
    return False


def archive_partitions(archive: Path, progress: Progress = quiet) -> list[str]:
    """Return the names of the partitions of an archive; it is read to its end.

    Args:
        archive: the file.
        progress: called with the bytes of the archive that were read, and all of them.

    Raises:
        DataError: as `read_members` and `ArchiveNames`.
    """
    names, size = ArchiveNames(archive), archive.stat().st_size
    for member in read_members(archive):
        names.add(member)
        progress("verifying the archive", min(member.position, size), size)
    return [partition.name for partition in names.partitions(())]


class ArchiveNames:
    """The names of the arrays in an archive; `PARTITION/mfcc/NAME.npy` may be within further folders.

    Args:
        archive: named in errors.
    """

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._top: str | None = None  # the folder that holds the partitions
        self._found: dict[str, dict[str, set[str]]] = {}  # utterances by partition and folder
        self._found_at: dict[PurePosixPath, set[str]] = {}  # the same by path
        self._places: dict[str, PurePosixPath | None] = {}  # what `_place` returned

    def add(self, member: Member) -> ArrayName | None:
        """Return which array a member holds; None if it is none of a course folder.

        Raises:
            DataError: its name is absolute, leads out of the archive, is invalid or was there before; it is a link or
                a device; or the archive holds two course folders.
        """
        folder, _, file = member.name.rpartition("/")
        if member.kind == "folder":
            place = self._place(member, member.name)
            if place and place.name == TRANSCRIPTS:
                self._utterances(member, place)
            return None
        if folder not in self._places:  # many members share a folder
            self._places[folder] = self._place(member, folder)
        place = self._places[folder]
        if file == "..":
            raise self._refused(member, "leads out of the archive; make the archive again, from within its folder")
        if place is None or not is_npy_name(file):
            return None
        if member.kind != "file":
            raise self._refused(member, "is not a regular file; make the archive again, with files instead of links")
        if not is_text(file):
            raise DataError(f"{self._archive}: the file name {file!r} is not UTF-8; rename it")
        utterances, utterance = self._utterances(member, place), file.removesuffix(".npy")
        if utterance in utterances:
            raise self._refused(member, "is in the archive twice; make the archive again, with one of them")
        utterances.add(utterance)
        return ArrayName(place.parent.name, place.name, utterance)

    def partitions(self, chosen: Sequence[str]) -> tuple[PartitionEntry, ...]:
        """Return the partitions with their utterances, in the order in which they are packed.

        Args:
            chosen: names of the partitions to pack, in this order; empty: all, sorted by name.

        Raises:
            DataError: the archive holds no features, or features and transcripts differ in number or names.
            UsageError: a partition does not exist.
        """
        known = sorted(self._found)
        if not any(folders.get(FEATURES) for folders in self._found.values()):
            raise DataError(
                f"{self._archive}: holds no PARTITION/{FEATURES}/*.npy; give an archive of a course folder, or "
                "unpack it and give the folder"
            )
        for name in chosen:
            if name not in known:
                raise UsageError(
                    f"{self._archive}: no partition {name!r}; it has {quoted(known)}{did_you_mean(name, known)}"
                )
        return tuple(self._entry(name) for name in chosen or known)

    def _entry(self, name: str) -> PartitionEntry:
        folders, where = self._found[name], f"{self._archive}: {name}"
        # With the suffix, as the course sorts them.
        features, transcripts = (
            [file.removesuffix(".npy") for file in sorted(f"{u}.npy" for u in folders.get(folder, ()))]
            for folder in (FEATURES, TRANSCRIPTS)
        )
        if not features:
            raise DataError(f"{where}: has no features; make the archive again, with {name}/{FEATURES}")
        if TRANSCRIPTS in folders:
            check_pairs(where, features, transcripts)
        return PartitionEntry(name, tuple(features), TRANSCRIPTS in folders)

    def _place(self, member: Member, folder: str) -> PurePosixPath | None:
        """Return the path of a folder of a partition; None for other folders and those of systems, as `__MACOSX`."""
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts:
            raise self._refused(member, "leads out of the archive; make the archive again, from within its folder")
        if len(path.parts) < 2 or path.name not in (FEATURES, TRANSCRIPTS):
            return None
        return None if any(part.startswith((".", "__")) for part in path.parts) else path

    def _utterances(self, member: Member, place: PurePosixPath) -> set[str]:
        """Return the utterances of a folder of a partition."""
        if place not in self._found_at:
            partition, top = place.parent.name, str(place.parent.parent)
            if self._top is None:
                self._top = top
            if top != self._top:
                raise self._refused(
                    member, f"a second course folder, beside {printable(self._top)}; give an archive of one of them"
                )
            check_partition_name(partition)
            self._found_at[place] = self._found.setdefault(partition, {}).setdefault(place.name, set())
        return self._found_at[place]

    def _refused(self, member: Member, problem: str) -> DataError:
        return DataError(f"{self._archive}: {printable(member.name)}: {problem}")
