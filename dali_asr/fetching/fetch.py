"""From a source to a folder: downloaded, verified, unpacked aside, renamed."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dali_asr.errors import ArchiveError, DataError, UsageError, brief
from dali_asr.fetching.download import Downloaded, check_sha256, download, file_sha256
from dali_asr.fetching.gdrive import download_from_drive
from dali_asr.fetching.http import HttpRemote
from dali_asr.fetching.kaggle import KaggleRemote
from dali_asr.fetching.sources import Source
from dali_asr.fetching.stores import StoreRemote
from dali_asr.fetching.transfer import PATIENCE, Patience, Progress, quiet
from dali_asr.fetching.unpacking import LIMITS, Limits, unpack_into
from dali_asr.fetching.work import Record, already_fetched, settled, work_folder
from dali_asr.files import disk_errors, new_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dali_asr.fetching.transfer import Remote
    from dali_asr.fetching.work import WorkFolder

KEPT = "what was fetched is kept, and the same command continues it"


class Fill(Protocol):
    """Called with a file or folder that was obtained, and an empty folder to be filled from it."""

    def __call__(self, obtained: Path, folder: Path) -> None:
        """Fill the folder."""


@dataclass(frozen=True)
class Fetched:
    """A fetched folder.

    Attributes:
        folder: where it is.
        record: what is known of its source.
        before: whether it was there before, so that nothing was done.
    """

    folder: Path
    record: Record
    before: bool = False


def fetch(
    source: str,
    dest: Path,
    *,
    sha256: str | None = None,
    overwrite: bool = False,
    limits: Limits = LIMITS,
    is_complete: Callable[[Path], bool] | None = None,
    fill: Fill | None = None,
    check: Callable[[Path], object] = lambda _: None,
    progress: Progress = quiet,
    patience: Patience = PATIENCE,
) -> Fetched:
    """Fetch an archive and unpack it into a folder, or copy a folder.

    The download is kept beside the destination, in `.NAME.fetch`, until all is done: a process that is started again
    continues it. Processes that fetch at the same time do it once.

    Args:
        source: `kaggle:COMPETITION`, `gdrive:ID`, a link that httpx or fsspec knows, or the path of an archive or
            folder.
        dest: the folder to make; it appears when it is complete, with a record of its source in `fetched.json`.
        sha256: the checksum that the archive must have, 64 hexadecimal digits; None for any.
        overwrite: whether a folder at `dest` is replaced, even if it was fetched from this source.
        limits: what may come out of the archive.
        is_complete: whether a folder is what was looked for. While it is not, and there is a single folder in it, this
            one takes its place. By default, the content of a single top folder does so.
        fill: fills the destination otherwise than by unpacking or copying.
        check: called with the complete folder before it appears; raises `ArchiveError` if it is not what it should be.
        progress: called with a stage, the bytes done, and all of them.
        patience: how long servers are waited for.

    Raises:
        UsageError: an unknown source, a destination that exists, or a missing package.
        ArchiveError: the archive is damaged, not safe or beyond the limits; the download is removed.
        DataError: it cannot be received or written, or its checksum is wrong.
        KeyboardInterrupt: interrupted; its message says what is kept.
    """
    parsed, dest = Source.parse(source), dest.expanduser().absolute()
    sha256 = _digits(sha256)
    version = _local_version(parsed)

    def unpack_or_copy(obtained: Path, folder: Path) -> None:
        if obtained.is_dir():
            _copy(obtained, folder, progress)
        else:
            unpack_into(obtained, folder, limits, shown=parsed.shown, progress=progress)
            _raise_single_folder(folder, is_complete)

    if not overwrite and (record := settled(parsed, version, dest, sha256)):
        return Fetched(dest, record, before=True)
    with work_folder(dest, progress) as work:
        record = already_fetched(parsed, version, dest, sha256, overwrite=overwrite)
        if record:
            return Fetched(dest, record, before=True)
        try:
            obtained = _obtain(parsed, dest, work, sha256, progress, patience)
            record = Record(parsed.shown, version or obtained.version, obtained.size, obtained.sha256 or None)
            with disk_errors(dest), new_folder(dest, flush=False) as folder:
                (fill or unpack_or_copy)(obtained.path, folder)
                check(folder)
                record.write(folder)
        except ArchiveError:
            work.clear()
            raise
        except KeyboardInterrupt as error:
            raise (KeyboardInterrupt(KEPT) if work.is_worth_keeping else error) from error
    return Fetched(dest, record)


def open_remote(source: Source, patience: Patience) -> Remote:
    """Return the remote file of a source, other than one of Google Drive, for which gdown stands."""
    if source.scheme == "kaggle":
        return KaggleRemote(source.name, patience)
    if source.scheme in ("http", "https"):
        return HttpRemote(source.name, source.shown, patience)
    return StoreRemote.of(source, patience)


def _obtain(
    source: Source, dest: Path, work: WorkFolder, sha256: str | None, progress: Progress, patience: Patience
) -> Downloaded:
    """Return the local file or folder of a source, downloaded into the work folder if it is remote."""
    if source.local:
        return _local(source, dest, sha256, progress)
    if source.scheme == "gdrive":
        return download_from_drive(source.name, work.path, sha256=sha256, progress=progress, patience=patience)
    remote = open_remote(source, patience)
    return download(remote, work.path, sha256=sha256, progress=progress, patience=patience)


def _local(source: Source, dest: Path, sha256: str | None, progress: Progress) -> Downloaded:
    path, found = source.path, ""
    if path.is_dir():
        if sha256:
            raise UsageError(f"{path}: is a folder, and a checksum is that of a file; leave it out")
        if dest.resolve().is_relative_to(path.resolve()):
            raise UsageError(f"{dest}: is inside {path}, from which it is made; choose another place")
        return Downloaded(path, None, found, None)
    if sha256:
        found = file_sha256(path, progress)
        check_sha256(source.shown, found, sha256)
    return Downloaded(path, path.stat().st_size, found, None)


def _local_version(source: Source) -> str | None:
    """Return size and time of change of a local file; None for a folder or a remote file."""
    if not source.local:
        return None
    path = source.path
    try:
        stat = path.stat()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{path}: {reason}; give an archive, a folder or a link") from error
    if path.is_dir():
        return None
    if not path.is_file():
        raise DataError(f"{path}: is not a regular file; give an archive, a folder or a link")
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _digits(sha256: str | None) -> str | None:
    if sha256 is None or re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        return sha256.lower() if sha256 else None
    raise UsageError(f"sha256: received {brief(sha256)}; expected 64 hexadecimal digits, as sha256sum prints them")


def _copy(source: Path, folder: Path, progress: Progress) -> None:
    """Copy a folder of the user, with the files that its links lead to."""
    total = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    done = 0

    def copy(one: str, other: str) -> None:
        nonlocal done
        shutil.copyfile(one, other)
        done += (folder.__class__(other)).stat().st_size
        progress("copying", done, max(total, done))

    shutil.copytree(source, folder, copy_function=copy, dirs_exist_ok=True)


def _raise_single_folder(folder: Path, is_complete: Callable[[Path], bool] | None) -> None:
    """Let the content of a single top folder, or of one in it, take the place of what is in a folder."""
    inner = folder
    while not (is_complete and is_complete(inner)):
        entries = list(inner.iterdir())
        if len(entries) != 1 or not entries[0].is_dir() or (is_complete is None and inner != folder):
            break
        inner = entries[0]
    if is_complete and not is_complete(inner):  # nothing known: as with no such function
        return _raise_single_folder(folder, None)
    if inner == folder:
        return None
    aside = inner.rename(folder / ".content")
    for entry in list(folder.iterdir()):
        if entry != aside:
            shutil.rmtree(entry)
    for entry in list(aside.iterdir()):
        entry.rename(folder / entry.name)
    aside.rmdir()
    return None
