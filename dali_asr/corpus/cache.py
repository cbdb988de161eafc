"""The cache of packed source files, `corpora/` in the cache.

A cached corpus is named by a hash of the source files (names, sizes, times of change) and of the settings, so that a
change of either packs anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from dali_asr.cache import record_use
from dali_asr.corpus.archive import is_archive
from dali_asr.corpus.folding import read_fold
from dali_asr.corpus.layouts import find_layout
from dali_asr.corpus.layouts.base import stamp
from dali_asr.corpus.normalize import Normalization
from dali_asr.corpus.pack import pack_corpus
from dali_asr.corpus.packed import FORMAT_VERSION, is_packed
from dali_asr.corpus.packing import PackSettings, quiet
from dali_asr.errors import DataError
from dali_asr.files import cache_folder, disk_errors, sweep
from dali_asr.inventory import ARPABET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from dali_asr.corpus.packing import Progress

_T = TypeVar("_T")


def open_cached(
    source: Path, settings: PackSettings, open_packed: Callable[[Path], _T], progress: Progress = quiet
) -> _T:
    """Open the cached corpus of source files; pack it if the cache does not have it or has it damaged.

    Processes that ask at the same time pack it once.

    Args:
        source: the folder or archive.
        settings: how to pack.
        open_packed: opens a packed corpus, and raises `DataError` if it is damaged.
        progress: called as utterances are done.

    Raises:
        DataError, UsageError: as `pack_corpus`; also if the cache cannot be written.
    """
    settings, packed = _locate(source, settings)
    about = _about(source, settings)
    record_use(packed, about)  # first, so that it is not cleared while it is opened
    with suppress(DataError):  # missing or damaged
        return open_packed(packed)
    with ExitStack() as stack:
        with disk_errors(packed.parent, "set DALI_ASR_CACHE to another folder"):
            packed.parent.mkdir(parents=True, exist_ok=True)
            sweep(packed.parent)
            stack.enter_context(FileLock(packed.with_suffix(".lock")))
        with suppress(DataError):  # another process may have packed or repaired it
            return open_packed(packed)
        shutil.rmtree(packed, ignore_errors=True)
        pack_corpus(source, packed, settings, progress=progress)
        record_use(packed, about)
        return open_packed(packed)


def is_cached(source: Path, settings: PackSettings) -> bool:
    """Return whether the cache has source files as they are now, packed with these settings.

    Raises:
        DataError, UsageError: as `find_layout`.
    """
    return is_packed(_locate(source, settings)[1])


def _locate(source: Path, settings: PackSettings) -> tuple[PackSettings, Path]:
    """Return the settings with partitions and inventory named, and the place in the cache."""
    stamps: Iterable[str]
    if is_archive(source):  # its partitions are known when it has been read
        settings, stamps = replace(settings, inventory=settings.inventory or ARPABET), [stamp(source)]
    else:
        layout = find_layout(source, settings.partitions)
        names = tuple(p.name for p in layout.partitions)
        settings = replace(settings, partitions=names, inventory=settings.inventory or layout.inventory)
        stamps = layout.stamps()
    return settings, cache_folder("corpora") / _fingerprint(source, stamps, settings)


def _about(source: Path, settings: PackSettings) -> dict[str, Any]:
    """Return what a listing of the cache says of a corpus."""
    normalization = settings.normalization
    return {
        "source": str(source.resolve()),
        "partitions": settings.partitions,
        "normalization": normalization.kind if isinstance(normalization, Normalization) else normalization,
        "dtype": settings.dtype,
    }


def _fingerprint(source: Path, stamps: Iterable[str], settings: PackSettings) -> str:
    """Return 32 hexadecimal digits that change with the files and the settings."""
    digest = hashlib.sha256()
    about = asdict(settings) | {"format": FORMAT_VERSION, "source": str(source.resolve())}
    if settings.fold:
        about["fold"] = dict(read_fold(settings.fold))
    digest.update(json.dumps(about, sort_keys=True).encode())
    for line in stamps:
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
