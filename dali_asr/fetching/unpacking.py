"""Unpacking archives of strangers: into one folder, as plain files, within limits, whole or not at all."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dali_asr.errors import ArchiveError, UsageError
from dali_asr.fetching.archives import Member, archive_members, check_member, is_junk
from dali_asr.fetching.tar import FOLDER
from dali_asr.fetching.transfer import Progress, quiet
from dali_asr.files import disk_errors, new_folder, sweep

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

_BUFFER = 1 << 20
_HARMLESS = 64 << 20  # bytes that may be unpacked at any ratio
STAGE = "unpacking"


@dataclass(frozen=True)
class Limits:
    """What may come out of an archive.

    Attributes:
        files: number of files and folders.
        size: bytes of all files together.
        ratio: bytes of all files together, by those of the archive; the first 64 MiB are free.
    """

    files: int = 1_000_000
    size: int = 200 << 30
    ratio: float = 200.0


LIMITS = Limits()


def unpack(archive: Path, dest: Path, limits: Limits = LIMITS, *, shown: str = "", progress: Progress = quiet) -> None:
    """Unpack an archive into a new folder, which appears when it is complete.

    Files get the permissions 0644, folders 0755, less the umask; owners, times and set-id bits are not taken over. What
    macOS adds (`__MACOSX`, `._NAME`) is left out. Names that differ only in case are different files, where the file
    system has them; where it does not, the archive is refused, as one that has a name twice.

    Args:
        archive: a zip file, or a tar file, plain or compressed by gzip, bzip2, xz or zstandard.
        dest: the folder to make.
        limits: what may come out.
        shown: the archive's name in messages; by default its path.
        progress: called with the bytes of the archive that were read, and all of them.

    Raises:
        ArchiveError: the file is no archive, damaged, not safe or beyond the limits.
        DataError: the disk is full or cannot be written.
        UsageError: `dest` exists, or a package that the compression needs is not installed.
    """
    if dest.exists() or dest.is_symlink():
        raise UsageError(f"{dest}: exists; choose another place")
    with ExitStack() as stack:
        with disk_errors(dest):
            sweep(dest.parent)
            partial = stack.enter_context(new_folder(dest, flush=False))
        unpack_into(archive, partial, limits, shown=shown, progress=progress)
        with disk_errors(dest):
            stack.close()


def unpack_into(archive: Path, folder: Path, limits: Limits, *, shown: str, progress: Progress) -> None:
    """Unpack an archive into an empty folder, where an error leaves some of it; otherwise as `unpack`."""
    shown = shown or str(archive)
    total = archive.stat().st_size
    writer = _Writer(folder, limits, total, shown)
    with archive.open("rb") as file:
        for member in archive_members(file, shown):
            name = check_member(member, shown)
            if not is_junk(name):
                writer.write(name, member)
            progress(STAGE, min(member.position, total - 1), total)
    progress(STAGE, total, total)


class _Writer:
    """Writes members into a folder and counts what comes out."""

    def __init__(self, folder: Path, limits: Limits, packed: int, shown: str) -> None:
        self._folder, self._limits, self._shown = folder, limits, shown
        self._max_ratio_size = max(limits.ratio * packed, _HARMLESS)
        self._files = self._size = 0
        self._made = {folder}

    def write(self, name: PurePosixPath, member: Member) -> None:
        """Write a file, or make a folder."""
        self._count_file()
        path, is_folder = self._folder / name, member.kind == FOLDER
        with disk_errors(path):
            self._make_folder(path if is_folder else path.parent, name)
            if not is_folder:
                self._write_file(path, member)

    def _write_file(self, path: Path, member: Member) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(path, flags, 0o644)
        except FileExistsError as error:
            raise self._twice(path.relative_to(self._folder)) from error
        with os.fdopen(file, "wb") as out:
            while data := member.read(_BUFFER):
                self._count_bytes(len(data))
                out.write(data)

    def _make_folder(self, folder: Path, name: PurePosixPath) -> None:
        missing = []
        while folder not in self._made:
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            try:
                path.mkdir(0o755)
            except FileExistsError as error:
                if not stat.S_ISDIR(path.lstat().st_mode):
                    raise self._twice(name) from error
            if path != self._folder / name:
                self._count_file()
            self._made.add(path)

    def _twice(self, name: object) -> ArchiveError:
        return ArchiveError(
            f"{self._shown}: the member {str(name)!r} is there twice; nothing was unpacked: "
            "make the archive again, or unpack it by other means and give the folder"
        )

    def _count_file(self) -> None:
        self._files += 1
        if self._files > self._limits.files:
            raise self._beyond(f"more than {self._limits.files:,} files and folders", "limits.files=N")

    def _count_bytes(self, size: int) -> None:
        self._size += size
        if self._size > self._limits.size:
            raise self._beyond(f"more than {self._limits.size:,} bytes", "limits.size=BYTES")
        if self._size > self._max_ratio_size:
            raise self._beyond(f"more than {self._limits.ratio:g} times its own size", "limits.ratio=N")

    def _beyond(self, what: str, limit: str) -> ArchiveError:
        return ArchiveError(
            f"{self._shown}: unpacks to {what}; nothing was unpacked: raise the limit if you trust it ({limit})"
        )
