"""Course folders, packed once and found again.

The cache lies in the user's cache folder (`$XDG_CACHE_HOME/dali-asr`). A corpus in it is named by a fingerprint of
the source files (names, sizes, times of change) and of every setting that shapes the result, so that a change of
either packs anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from filelock import FileLock
from platformdirs import user_cache_path

from dali_asr.corpus.course import CoursePartition, read_layout
from dali_asr.corpus.packed import FORMAT_VERSION, is_packed
from dali_asr.corpus.packing import PackSettings, pack_course, quiet
from dali_asr.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dali_asr.corpus.packing import Progress


def cached_pack(source: Path, settings: PackSettings, progress: Progress = quiet, *, anew: bool = False) -> Path:
    """Return the packed corpus of a course folder; pack it unless the cache has it.

    Two processes that ask at once pack it once.

    Args:
        source: the course folder.
        settings: how it is packed.
        progress: told how far it is.
        anew: pack it even if the cache has it.

    Raises:
        DataError, UsageError: as `pack_course`; also a cache folder that cannot be made.
    """
    layout = read_layout(source, settings.partitions)
    settings = replace(settings, partitions=tuple(p.name for p in layout))
    cache = user_cache_path("dali-asr", appauthor=False) / "corpora"
    packed = cache / fingerprint(source, layout, settings)
    if is_packed(packed) and not anew:
        return packed
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{cache}: cannot be made ({error.strerror}); set XDG_CACHE_HOME to another folder") from error
    with FileLock(packed.with_suffix(".lock")):
        if anew or not is_packed(packed):
            shutil.rmtree(packed, ignore_errors=True)
            pack_course(source, packed, settings, progress=progress)
    return packed


def fingerprint(source: Path, layout: Sequence[CoursePartition], settings: PackSettings) -> str:
    """Return 32 hexadecimal digits that change with the files and with the settings."""
    digest = hashlib.sha256()
    shaping = asdict(settings) | {"format": FORMAT_VERSION, "source": str(source.resolve())}
    digest.update(json.dumps(shaping, sort_keys=True).encode())
    for partition in layout:
        for folder in ("mfcc", "transcript") if partition.labelled else ("mfcc",):
            for line in sorted(_stat_lines(partition.root / folder)):
                digest.update(f"{partition.name}/{folder}/{line}".encode())
    return digest.hexdigest()[:32]


def _stat_lines(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".npy") and not entry.name.startswith("."):
                stat = entry.stat()
                yield f"{entry.name} {stat.st_size} {stat.st_mtime_ns}\n"
