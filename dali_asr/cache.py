"""The cache: what is in it, when it was used last, and clearing it.

    corpora/      packed course folders
    downloads/    what was fetched
    mirrors/      packed corpora that are kept elsewhere

An entry is a file or folder. `NAME.json` beside it, or `fetched.json` in it, says what it is (`source` and more); its
time of change is that of the last use. What is not complete is in `.NAME.XXXXXXXX.partial`, or in `.NAME.fetch` if it
will be continued. A process that writes an entry locks `NAME.lock`, or `lock` in the work folder; one that uses it
holds a shared lock (flock(2)) on the entry itself. Neither entry is cleared.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dali_asr.errors import DataError
from dali_asr.files import cache_folder, disk_errors, partial_paths, remove_folder, sweep, unused, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

KINDS = ("corpora", "downloads", "mirrors")
_ABOUT, _LOCK = ".json", ".lock"
_RECORD = "fetched.json"  # in what was fetched
_WORK, _WORK_LOCK = ".*.fetch", "lock"  # folders of what is being fetched, and the lock in each
_HELD: dict[Path, int] = {}  # descriptors of the entries that this process uses


@dataclass(frozen=True)
class Entry:
    """A file or folder in the cache.

    Attributes:
        kind: `corpora`, `downloads` or `mirrors`.
        path: the file or folder.
        about: what it is: `source` and more; empty if that is not known.
        size: in bytes, with all files in it.
        used: when it was used last, in seconds since 1970.
        in_use: whether a process uses or writes it.
        partial: whether it is not complete, because it is being written or its writer was killed.
    """

    kind: str
    path: Path
    about: dict[str, Any]
    size: int
    used: float
    in_use: bool
    partial: bool


def record_use(path: Path, about: dict[str, Any]) -> None:
    """Note that an entry is used now, and what it is; keep it from being cleared for as long as this process runs.

    Nothing is noted in a cache that cannot be written, and nothing is locked where the file system has no locks.
    """
    with suppress(OSError):
        _hold(path)
    beside = _beside(path, _ABOUT)
    with suppress(OSError):
        if path.exists() and not beside.exists():
            values = {**about, "source": _origin(str(about.get("source", "")))}
            write_file(beside, (json.dumps(values) + "\n").encode())
        os.utime(beside)


def list_entries() -> list[Entry]:
    """Return everything in the cache, by kind, the least recently used first.

    Raises:
        DataError: it cannot be read.
    """
    return [entry for kind in KINDS for entry in sorted(_entries(kind), key=lambda entry: entry.used)]


def unused_since(entries: Sequence[Entry], seconds: float) -> list[Entry]:
    """Return the entries that were not used in the last `seconds`, and what killed processes left."""
    before = time.time() - seconds
    return [entry for entry in entries if entry.partial or entry.used <= before]


def clear(entries: Sequence[Entry], progress: Callable[[str, int, int], object] = lambda *_: None) -> list[Entry]:
    """Remove entries that no process uses; an entry loses its name first, so that no half of it is ever seen.

    Args:
        entries: what to remove.
        progress: called with a stage, the number of entries done, and that of all.

    Returns:
        Those that were removed.

    Raises:
        DataError: the cache cannot be written.
    """
    removed = []
    for at, entry in enumerate(entries):
        progress("clearing", at, len(entries))
        with disk_errors(entry.path, "check the permissions of the cache"):
            if entry.partial:
                sweep(entry.path.parent)
            if (entry.partial and not entry.path.exists()) or _remove(entry.path):
                removed.append(entry)
    progress("clearing", len(entries), len(entries))
    return removed


def _hold(path: Path) -> None:
    """Lock an entry, shared with other processes that use it, until this process ends."""
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError:
        os.close(lock)
        raise
    if path in _HELD:
        os.close(_HELD[path])  # of the same entry, or of one that took this name before
    _HELD[path] = lock


def _entries(kind: str) -> Iterator[Entry]:
    folder = cache_folder(kind)
    try:
        if not folder.is_dir():
            return
        partial = [*partial_paths(folder), *sorted(folder.glob(_WORK))]
        whole = [p for p in sorted(folder.iterdir()) if p.name[0] != "." and p.suffix not in (_ABOUT, _LOCK)]
        for path in (*partial, *whole):
            with suppress(FileNotFoundError):  # cleared by another process
                yield _entry(kind, path, partial=path in partial)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{error.filename or folder}: {reason}; check the permissions of the cache") from error


def _entry(kind: str, path: Path, *, partial: bool) -> Entry:
    about, used = _describe(path)
    return Entry(kind, path, about, _size(path), used, any(map(_is_locked, _locks(path))), partial)


def _describe(path: Path) -> tuple[dict[str, Any], float]:
    """Return what an entry is, and when it was used last."""
    about: dict[str, Any] = {}
    used = path.stat().st_mtime
    for record in (path / _RECORD, _beside(path, _ABOUT)):
        with suppress(OSError, ValueError):
            used = max(used, record.stat().st_mtime)
            about |= dict(json.loads(record.read_text(encoding="utf-8")))
    return about, used


def _origin(source: str) -> str:
    """Return where a source comes from that is itself an entry of the cache, and others as they are."""
    for path in (Path(source), Path(source).parent):  # or a file in one
        if path.parent in map(cache_folder, KINDS):
            with suppress(OSError):
                return str(_describe(path)[0].get("source", source))
    return source


def _locks(path: Path) -> list[Path]:
    """Return what processes lock that write or use an entry."""
    return [lock for lock in (path, _beside(path, _LOCK), path / _WORK_LOCK) if lock.exists()]


def _is_locked(path: Path) -> bool:
    try:
        with unused(path):
            return False
    except BlockingIOError:
        return True
    except OSError:  # gone, or not ours to lock
        return False


def _remove(path: Path) -> bool:
    """Remove an entry and what stands beside it; return whether it was there and not in use."""
    try:
        with ExitStack() as stack:
            for lock in _locks(path):
                stack.enter_context(unused(lock))
            if path.is_dir():
                remove_folder(path)
            else:
                path.unlink()
            for suffix in (_ABOUT, _LOCK):
                _beside(path, suffix).unlink(missing_ok=True)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _size(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return found.st_size
    total = 0
    with suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in entries:
            total += _size(path / entry.name)
    return total


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
