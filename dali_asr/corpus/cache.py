"""The cache of packed course folders, `cache_folder("corpora")`.

A cached corpus is named by a hash of the source files (names, sizes, times of change) and of the settings, so that a
change of either packs anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock

from dali_asr.corpus.course import CoursePartition, is_npy_name, read_layout
from dali_asr.corpus.folding import read_fold
from dali_asr.corpus.packed import FORMAT_VERSION, is_packed
from dali_asr.corpus.packing import PackSettings, pack_course, quiet
from dali_asr.corpus.regular import reading
from dali_asr.errors import DataError
from dali_asr.files import cache_folder, disk_errors, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dali_asr.corpus.packing import Progress

_T = TypeVar("_T")


def open_cached(
    source: Path, settings: PackSettings, open_packed: Callable[[Path], _T], progress: Progress = quiet
) -> _T:
    """Open the cached corpus of a course folder; pack it if the cache does not have it or has it damaged.

    Processes that ask at the same time pack it once.

    Args:
        source: the course folder.
        settings: how to pack.
        open_packed: opens a packed corpus, and raises `DataError` if it is damaged.
        progress: called as utterances are done.

    Raises:
        DataError, UsageError: as `pack_course`; also if the cache cannot be written.
    """
    settings, packed = _locate(source, settings)
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
        pack_course(source, packed, settings, progress=progress)
        return open_packed(packed)


def is_cached(source: Path, settings: PackSettings) -> bool:
    """Return whether the cache has a course folder as it is now, packed with these settings.

    Raises:
        DataError, UsageError: as `read_layout`.
    """
    return is_packed(_locate(source, settings)[1])


def _locate(source: Path, settings: PackSettings) -> tuple[PackSettings, Path]:
    """Return the settings with all partitions named, and the place in the cache."""
    layout = read_layout(source, settings.partitions)
    settings = replace(settings, partitions=tuple(p.name for p in layout))
    return settings, cache_folder("corpora") / _fingerprint(source, layout, settings)


def _fingerprint(source: Path, layout: Sequence[CoursePartition], settings: PackSettings) -> str:
    """Return 32 hexadecimal digits that change with the files and the settings."""
    digest = hashlib.sha256()
    about = asdict(settings) | {"format": FORMAT_VERSION, "source": str(source.resolve())}
    if settings.fold:
        about["fold"] = dict(read_fold(settings.fold))
    digest.update(json.dumps(about, sort_keys=True).encode())
    for partition in layout:
        for folder in ("mfcc", "transcript") if partition.labelled else ("mfcc",):
            for line in sorted(_stat_lines(partition.root / folder)):
                digest.update(f"{partition.name}/{folder}/{line}".encode())
    return digest.hexdigest()[:32]


def _stat_lines(folder: Path) -> Iterator[str]:
    with reading(folder), os.scandir(folder) as entries:
        for entry in entries:
            if is_npy_name(entry.name):
                stat = entry.stat()
                yield f"{entry.name} {stat.st_size} {stat.st_mtime_ns}\n"
