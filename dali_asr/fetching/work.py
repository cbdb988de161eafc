"""The folder beside a destination in which it is fetched: one process at a time, continued by the next one."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from dali_asr.errors import DataError, UsageError
from dali_asr.files import disk_errors, sweep, write_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dali_asr.fetching.sources import Source
    from dali_asr.fetching.transfer import Progress

RECORD = "fetched.json"
FILE, STATE = "file", "state.json"  # of a download: what was received, and which version it is of
_LOCK = "lock"
_POLL = 0.2  # seconds


@dataclass(frozen=True)
class Record:
    """What a fetched folder keeps about its source, in `fetched.json`.

    Attributes:
        source: as given, without user name and password.
        version: of the file, such as its ETag; of a local file, its size and time of change; None if not known.
        size: of the file in bytes; None for a folder.
        sha256: of the file, 64 hexadecimal digits; None if it was not computed.
        time: when it was fetched, UTC.
    """

    source: str
    version: str | None = None
    size: int | None = None
    sha256: str | None = None
    time: str = ""

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """Return the record of a fetched folder; None if there is none."""
        try:
            return cls(**json.loads((folder / RECORD).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Write the record into a folder."""
        values = asdict(self) | {"time": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        write_file(folder / RECORD, f"{json.dumps(values, indent=1)}\n".encode())


class WorkFolder:
    """A locked folder for what is not complete yet.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def clear(self) -> None:
        """Remove what is in it, except for the lock."""
        for entry in self.path.iterdir():
            if entry.name == _LOCK:
                continue
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    @property
    def is_worth_keeping(self) -> bool:
        """Whether another process can continue what is in it."""
        entries = (entry for entry in self.path.iterdir() if entry.name != _LOCK and entry.suffix != ".json")
        return any(entry.is_dir() or entry.stat().st_size for entry in entries)


@contextmanager
def work_folder(dest: Path, progress: Progress, kind: str = "fetch") -> Iterator[WorkFolder]:
    """Open the work folder of a destination, and wait until no other process uses it.

    Its name is that of the destination with a dot before and the kind of work behind it. It is removed at the end of
    the block, or after an error, unless there is something to continue.

    Raises:
        DataError: it cannot be written.
    """
    path = _work_path(dest, kind)
    lock = FileLock(path / _LOCK)
    with disk_errors(path):
        dest.parent.mkdir(parents=True, exist_ok=True)
        sweep(dest.parent)
        _acquire(lock, path, progress)
    work, done = WorkFolder(path), False
    try:
        yield work
        done = True
    finally:
        try:
            if done or not work.is_worth_keeping:
                _remove(work)
        finally:
            lock.release()


def settled(source: Source, version: str | None, dest: Path, sha256: str | None) -> Record | None:
    """Return the record of a destination that was fetched before and has no work folder; needs no right to write.

    Raises:
        UsageError, DataError: as `already_fetched`.
    """
    if _work_path(dest).exists():  # perhaps of a process that was killed before it removed it
        return None
    return already_fetched(source, version, dest, sha256, overwrite=False)


def already_fetched(
    source: Source, version: str | None, dest: Path, sha256: str | None, *, overwrite: bool
) -> Record | None:
    """Return the record of a destination that was fetched from this source before; None if it is to be fetched.

    Raises:
        UsageError: something else is there, or what may be overwritten was not fetched.
        DataError: it has another checksum.
    """
    with disk_errors(dest):
        if not dest.is_symlink() and (not dest.exists() or (dest.is_dir() and not any(dest.iterdir()))):
            return None
    record = Record.read(dest)
    if overwrite:
        if record is None:
            raise UsageError(f"{dest}: exists and was not fetched, so it is not overwritten; choose another place")
        return None
    if record and record.source == source.shown and (not source.local or record.version == version):
        if sha256 and record.sha256 != sha256:
            raise DataError(
                f"{dest}: was fetched from {source.shown} with SHA-256 {record.sha256}, expected {sha256}; "
                "fetch it again (overwrite=True)"
            )
        return record
    raise UsageError(f"{dest}: exists; choose another place, or overwrite it (overwrite=True)")


def _work_path(dest: Path, kind: str = "fetch") -> Path:
    return dest.with_name(f".{dest.name}.{kind}")


def _acquire(lock: FileLock, path: Path, progress: Progress) -> None:
    stage = "waiting for another process"
    while True:
        path.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # removed by the process that was waited for
            try:
                lock.acquire(timeout=0)
            except Timeout:
                progress(stage, 0, 1)
                while not _acquired(lock):
                    _watch(path, progress)
                progress(stage, 1, 1)
            return


def _acquired(lock: FileLock) -> bool:
    with suppress(Timeout):
        lock.acquire(timeout=_POLL, poll_interval=_POLL / 4)
    return lock.is_locked


def _watch(path: Path, progress: Progress) -> None:
    """Show how far the download of another process is."""
    with suppress(OSError, ValueError, KeyError):
        total = json.loads((path / STATE).read_bytes())["size"]
        progress("fetching", (path / FILE).stat().st_size, total or 1)


def _remove(work: WorkFolder) -> None:
    work.clear()
    (work.path / _LOCK).unlink()
    with suppress(OSError):  # another process is waiting in it
        os.rmdir(work.path)  # noqa: PTH106
