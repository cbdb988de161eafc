"""Corpora that are elsewhere: fetched into a folder of the user's choice, or once into the cache.

A source is an archive or folder of course data, or a packed corpus that lies in a bucket or behind a link. The cache
keeps an archive of course data as it is, because packing reads it; others are unpacked there.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dali_asr.cache import record_use
from dali_asr.corpus.archive import is_archive
from dali_asr.corpus.archive_names import archive_partitions, is_course_archive
from dali_asr.corpus.layouts import layout_title
from dali_asr.corpus.pack import pack_corpus
from dali_asr.corpus.packed import CHECKSUMS, FRAMES, LABELS, MANIFEST, OFFSETS, is_packed, verify
from dali_asr.corpus.packing import PackSettings, quiet
from dali_asr.errors import ArchiveError, DataError, UsageError
from dali_asr.fetching.fetch import Fetched, fetch, open_remote
from dali_asr.fetching.http import HttpRemote
from dali_asr.fetching.mirror import mirror
from dali_asr.fetching.sources import Source
from dali_asr.fetching.stores import StoreRemote
from dali_asr.fetching.transfer import PATIENCE
from dali_asr.fetching.unpacking import LIMITS, Limits, unpack, unpack_into
from dali_asr.fetching.work import RECORD, Record
from dali_asr.files import cache_folder, disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dali_asr.corpus.packing import Progress
    from dali_asr.fetching.transfer import Remote

_ARCHIVE = "archive"  # in the cache
_PACKED_FILES = (MANIFEST, CHECKSUMS, OFFSETS, LABELS, FRAMES)


def fetch_corpus(
    source: str,
    dest: Path,
    *,
    sha256: str | None = None,
    overwrite: bool = False,
    limits: Limits = LIMITS,
    pack: PackSettings | None = None,
    progress: Progress = quiet,
) -> Fetched:
    """Fetch a corpus into a folder, and pack it if asked to; processes that do it at the same time do it once.

    The cache is not used: what it holds may be older than the source, and an archive that was unpacked there can no
    longer be compared with `sha256`.

    Args:
        source: as of `fetch`; also a packed corpus or a folder of course data in a bucket, or a packed corpus behind a
            link.
        dest: the folder to make; it appears when it is complete.
        sha256: the checksum that an archive must have; None for any.
        overwrite: whether a folder at `dest` is replaced.
        limits: what may come out of an archive.
        pack: how to pack; None to keep the files as they are.
        progress: called with a stage, what is done, and all of it.

    Raises:
        UsageError: an unknown source, a destination that exists, or a missing package.
        ArchiveError: the archive is damaged, not safe or beyond the limits.
        DataError: it cannot be received or written, or is damaged, or what is to be packed holds no corpus.
    """
    parsed, dest = Source.parse(source), dest.expanduser().absolute()
    record = None if overwrite else Record.read(dest)
    known = record is not None and record.source == parsed.shown
    if not known and (remotes := _remote_files(parsed)) is not None:
        if sha256:
            raise UsageError(f"{parsed.shown}: is a folder, and a checksum is that of a file; leave it out")
        if pack and MANIFEST not in remotes:
            raise UsageError(f"{parsed.shown}: is a folder; fetch it without packing, and pack the folder then")
        return _mirror(parsed, remotes, dest, overwrite=overwrite, progress=progress)
    packing = _Packing(pack, limits, progress, parsed.shown) if pack else None
    fetched = fetch(
        source,
        dest,
        sha256=sha256,
        overwrite=overwrite,
        limits=limits,
        is_complete=is_corpus,
        fill=packing,
        progress=progress,
    )
    if pack and not is_packed(dest):
        raise UsageError(
            f"{dest}: was fetched before and not packed; choose another place, or overwrite it (overwrite=True)"
        )
    return fetched


def local_corpus(root: str, progress: Progress = quiet) -> Path:
    """Return the folder of a corpus; one that is elsewhere, or in an archive, is fetched into the cache the first time.

    What was fetched once is used from then on, also without a network, until it is removed from the cache, which
    `fetch_corpus` neither reads nor fills.

    Raises:
        UsageError, DataError: as `fetch_corpus`.
    """
    source = Source.parse(root)
    if _needs_no_fetching(source):
        return source.path
    place = _cached(source) or _fetched_into_cache(source, root, progress)
    record_use(place, {"source": source.shown})
    archive = place / _ARCHIVE
    return archive if archive.is_file() else _corpus_in(place, source.shown)


def is_at_hand(root: str) -> bool:
    """Return whether a corpus can be opened without fetching it.

    Raises:
        UsageError: an unknown source.
    """
    source = Source.parse(root)
    return _needs_no_fetching(source) or _cached(source) is not None


def cached_copy(root: str) -> Path | None:
    """Return the folder in which the cache keeps a corpus that is elsewhere; None if it keeps none.

    Raises:
        UsageError: an unknown source.
    """
    source = Source.parse(root)
    return None if _needs_no_fetching(source) else _cached(source)


def is_corpus(folder: Path) -> bool:
    """Return whether a folder holds a packed corpus, or source files in a layout that is known."""
    return is_packed(folder) or layout_title(folder) is not None


def _needs_no_fetching(source: Source) -> bool:
    """Return whether a source is a folder on this machine, which may be missing, or an archive that packing reads."""
    return source.local and (not is_archive(source.path) or is_course_archive(source.path))


def _fetched_into_cache(source: Source, root: str, progress: Progress) -> Path:
    """Fetch a corpus into the cache; return its place there."""
    remotes = _remote_files(source)
    if remotes is not None:
        return _mirror(source, remotes, _place_in_cache("mirrors", source), progress=progress).folder
    keep = _Keeping(source.shown, progress)
    return fetch(root, _place_in_cache("downloads", source), fill=keep, progress=progress).folder


def _place_in_cache(kind: str, source: Source) -> Path:
    """Return where a source belongs in the cache, in a folder that can be written.

    Raises:
        DataError: it cannot.
    """
    folder = cache_folder(kind)
    with disk_errors(folder, "set DALI_ASR_CACHE to another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    return folder / source.key


def _cached(source: Source) -> Path | None:
    places = (cache_folder(kind) / source.key for kind in ("downloads", "mirrors"))
    return next((place for place in places if place.is_dir()), None)


def _remote_files(source: Source) -> Mapping[str, Remote] | None:
    """Return the files of a remote folder by name; None if the source is a single file or on this machine."""
    if source.local or source.names_archive or urlsplit(source.name).query:
        return None
    remote = open_remote(source, PATIENCE)
    if isinstance(remote, StoreRemote):
        return _files_in_store(remote)
    if isinstance(remote, HttpRemote) and remote.child(MANIFEST).exists:
        return {name: remote.child(name) for name in _PACKED_FILES}
    return None


def _files_in_store(folder: StoreRemote) -> Mapping[str, Remote] | None:
    if folder.child(MANIFEST).exists:
        return {name: folder.child(name) for name in _PACKED_FILES}
    if not folder.is_folder:
        return None
    names = [name for name in folder.listing() if name.endswith(".npy")]
    if not any("/mfcc/" in name for name in names):
        raise DataError(
            f"{folder.shown}: holds neither a packed corpus nor course data; give a folder with corpus.json or with "
            "PARTITION/mfcc/*.npy, or an archive"
        )
    return {name: folder.child(name) for name in names}


def _mirror(
    source: Source, remotes: Mapping[str, Remote], dest: Path, *, overwrite: bool = False, progress: Progress
) -> Fetched:
    """Mirror a folder; a packed corpus is verified by its checksums."""

    def check(folder: Path) -> None:
        if MANIFEST in remotes:
            verify(folder, progress)

    return mirror(source, remotes, dest, check=check, overwrite=overwrite, progress=progress)


@dataclass(frozen=True)
class _Keeping:
    """Moves an archive of course data into an empty folder once it is verified, and unpacks other archives there."""

    shown: str
    progress: Progress

    def __call__(self, obtained: Path, folder: Path) -> None:
        if _is_course_archive(obtained, self.shown, self.progress):
            obtained.rename(folder / _ARCHIVE)
            return
        unpack_into(obtained, folder, LIMITS, shown=self.shown, progress=self.progress)
        _corpus_in(folder, self.shown)


@dataclass(frozen=True)
class _Packing:
    """Packs an archive or a folder into an empty folder."""

    settings: PackSettings
    limits: Limits
    progress: Progress
    shown: str

    def __call__(self, obtained: Path, folder: Path) -> None:
        packed = folder / "packed"
        self._pack(obtained, packed)
        for file in packed.iterdir():
            file.rename(folder / file.name)
        packed.rmdir()

    def _pack(self, source: Path, dest: Path) -> None:
        if source.is_dir() or _is_course_archive(source, self.shown):
            with _naming(source, self.shown):
                pack_corpus(source, dest, self.settings, progress=self.progress)
            return
        unpacked = dest.with_name("unpacked")
        unpack(source, unpacked, self.limits, shown=self.shown, progress=self.progress)
        corpus = _corpus_in(unpacked, self.shown)
        if is_packed(corpus):
            corpus.rename(dest)
        else:
            pack_corpus(corpus, dest, self.settings, progress=self.progress)
        shutil.rmtree(unpacked, ignore_errors=True)


def _is_course_archive(path: Path, shown: str, verified: Progress | None = None) -> bool:
    """Return whether a file is an archive of course data; read it to its end if `verified` is to hear of it.

    Raises:
        ArchiveError: it is damaged, or holds what no such archive does.
    """
    if not is_archive(path):
        return False  # which unpacking explains
    with _naming(path, shown):
        found = is_course_archive(path)
        if found and verified:
            archive_partitions(path, verified)
    return found


@contextmanager
def _naming(path: Path, shown: str) -> Iterator[None]:
    """Name the source in errors about the file that was downloaded from it, which is then removed."""
    try:
        yield
    except DataError as error:
        raise ArchiveError(str(error).replace(str(path), shown)) from error


def _corpus_in(folder: Path, shown: str) -> Path:
    """Return the corpus in an unpacked folder, which may be in a single folder of it.

    Raises:
        ArchiveError: there is none.
    """
    inner = folder
    while not is_corpus(inner):
        entries = [entry for entry in inner.iterdir() if entry.name != RECORD]
        if len(entries) != 1 or not entries[0].is_dir():
            raise ArchiveError(
                f"{shown}: holds no course data; expected PARTITION/mfcc/*.npy in it, a packed corpus or another layout"
            )
        inner = entries[0]
    return inner
