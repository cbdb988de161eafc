"""Output files and folders that appear whole or not at all, and disk errors as one line.

Output is written next to its destination, under a name that ends in `.partial`, and renamed when it is complete. The
writer holds a lock (flock(2)) on the partial file or folder, so that `sweep` can tell what a killed process left behind
from what another process is still writing.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import unicodedata
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from platformdirs import user_cache_path

from dali_asr.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SUFFIX = ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_LIBC = ctypes.CDLL(None, use_errno=True)
_MAX_NAME = 230  # bytes of 255, which leaves some for that of a partial file
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # fcntl.h, linux/fs.h


def cache_folder(kind: str) -> Path:
    """Return the folder of the cache for `corpora`, `downloads` or `mirrors`; it need not exist.

    The variable DALI_ASR_CACHE names the cache; by default it is `$XDG_CACHE_HOME/dali-asr`.
    """
    chosen = os.environ.get("DALI_ASR_CACHE")
    return (Path(chosen) if chosen else user_cache_path("dali-asr", appauthor=False)) / kind


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path` when the block ends without an error.

    The content is flushed to the disk first. A symbolic link at `path` is kept and its target replaced.

    Raises:
        OSError: the disk is full or cannot be written; see `disk_errors`.
    """
    path = path.resolve()
    partial, file = _locked_file(path)
    with file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


def write_file(path: Path, content: bytes) -> None:
    """Write a whole file through `new_file`."""
    with new_file(path) as file:
        file.write(content)


@contextmanager
def new_folder(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Make a folder that takes the place of `path` when the block ends without an error.

    A folder at `path` is exchanged with the new one at once, and then removed.

    Args:
        path: the destination.
        flush: whether the names of files are flushed to the disk; their contents are up to the caller.

    Yields:
        The partial folder, to be filled.

    Raises:
        OSError: the disk is full or cannot be written; see `disk_errors`.
    """
    partial, lock = _locked_folder(path)
    try:
        yield partial
        if flush:
            _flush_folder(partial)
        replace_folder(partial, path)
        if flush:
            _flush_folder(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def replace_folder(partial: Path, path: Path) -> None:
    """Give a complete folder its name, at once; a folder that has it is exchanged and then removed.

    Raises:
        OSError: the names cannot be changed, as between two file systems.
    """
    if not path.exists():
        partial.rename(path)
        return
    _exchange(partial, path)
    shutil.rmtree(partial, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder; it loses its name first, so that no half of it is ever seen."""
    partial = _partial_name(path)
    path.rename(partial)
    shutil.rmtree(partial)


def sweep(folder: Path) -> None:
    """Remove the partial files and folders that killed processes left in a folder.

    What another process is writing is locked and stays.
    """
    for path in partial_paths(folder):
        with suppress(OSError), unused(path):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def partial_paths(folder: Path) -> list[Path]:
    """Return the partial files and folders in a folder, those that are being written included."""
    return sorted(folder.glob(f".*.{'[0-9a-f]' * 8}{_SUFFIX}"))  # named by `_partial_name`


@contextmanager
def unused(path: Path) -> Iterator[None]:
    """Lock a file or folder for the block, during which no process begins to use or write it.

    Raises:
        OSError: a process uses or writes it (`BlockingIOError`), or it cannot be locked.
    """
    lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


@contextmanager
def disk_errors(path: Path, remedy: str = "choose another place") -> Iterator[None]:
    """Turn an `OSError` of the block into one line for the user.

    Args:
        path: named in the message where the error names no file.
        remedy: what to do when the disk is not full.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    try:
        yield
    except OSError as error:
        advice = f"free some space, or {remedy}" if error.errno in _FULL else remedy
        raise DataError(f"{error.filename or path}: {error.strerror or error} while writing; {advice}") from error


def check_output(path: Path, *, overwrite: bool, suffix: str = "") -> None:
    """Refuse an output file that cannot be written, or that exists and may not be overwritten.

    Args:
        path: the file.
        overwrite: whether it may exist.
        suffix: what its name must end in, because the content is of that format alone.

    Raises:
        UsageError: it exists, is a folder, or its name ends otherwise.
        DataError: its folder cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it")
    if not path.name.lower().endswith(suffix):
        raise UsageError(f"{path}: what is written is a {suffix} file; give a name that ends in {suffix}")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: is not a regular file; name one, or - for standard output")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists; choose another file, or overwrite it (overwrite=True)")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise DataError(f"{path}: {above} is not a writable folder; choose another place")


def file_name(name: str, suffix: str) -> str:
    """Return the name of a file in its folder, for any name; different for different names.

    `/`, `%` and NUL are percent-encoded (RFC 3986), and a name of nothing but dots. A name that is too long is cut, and
    its checksum added.

    Args:
        name: Unicode text.
        suffix: of the file, with its dot.
    """
    encoded = "".join(f"%{ord(c):02X}" if c in "/%\0" else c for c in name)
    if not encoded.strip("."):
        encoded = encoded.replace(".", "%2E")
    whole = encoded.encode()
    if len(whole) + len(suffix) > _MAX_NAME:
        digest = f"-{hashlib.sha256(whole).hexdigest()[:16]}"
        encoded = whole[: _MAX_NAME - len(digest) - len(suffix)].decode(errors="ignore") + digest
    return encoded + suffix


def composed(name: str) -> str:
    """Return a name in composed form (Unicode NFC), in which the names of files and those in tables are compared.

    macOS writes `ü` in the names of files as `u` and a combining diaeresis, and texts have it as one character. A file
    is opened by its own name.
    """
    return unicodedata.normalize("NFC", name)


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}")


def _locked_file(path: Path) -> tuple[Path, BinaryIO]:
    """Make a partial file and lock it."""
    while True:
        partial = _partial_name(path)
        file = partial.open("xb")
        _lock(file.fileno())
        if partial.exists():
            return partial, file
        file.close()  # swept before it was locked


def _locked_folder(path: Path) -> tuple[Path, int]:
    """Make a partial folder and lock it; return it and the descriptor of the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        partial = _partial_name(path)
        partial.mkdir()
        try:
            lock = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:  # swept before it was locked
            continue
        _lock(lock)
        if partial.exists():
            return partial, lock
        os.close(lock)


def _lock(descriptor: int) -> None:
    """Lock a partial file or folder; on file systems without locks, a sweep cannot lock it either and leaves it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise


def _exchange(a: Path, b: Path) -> None:
    """Exchange two names at once, so that a kill leaves no moment without the old folder or the new one.

    See renameat2(2). File systems that cannot do it rename twice.
    """
    rename = getattr(_LIBC, "renameat2", None)  # since glibc 2.28
    if rename and rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return
    number = ctypes.get_errno() if rename else errno.ENOSYS
    if number not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(number, os.strerror(number), str(b))
    old = _partial_name(b)
    b.rename(old)
    try:
        a.rename(b)
    except BaseException:
        old.rename(b)
        raise
    old.rename(a)


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
