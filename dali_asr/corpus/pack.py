"""Packing a corpus from its source files, whatever their layout."""

from __future__ import annotations

import os
from pathlib import Path

from dali_asr.corpus.archive import is_archive
from dali_asr.corpus.draft import check_destination
from dali_asr.corpus.packing import PackSettings, Progress, pack_layout, quiet
from dali_asr.corpus.packing_archive import pack_archive
from dali_asr.corpus.writer import check_stored_dtype
from dali_asr.errors import UsageError


def pack_corpus(
    source: Path,
    dest: Path,
    settings: PackSettings | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = quiet,
) -> None:
    """Pack source files into `dest`.

    Args:
        source: the folder that holds the partitions, in one of the layouts, or an archive of a course folder.
        dest: the folder to write; it appears when it is complete.
        settings: how to pack.
        overwrite: whether a packed corpus at `dest` is replaced.
        progress: called as utterances are done.

    Raises:
        DataError: a source file is missing, damaged or does not fit the others, or the disk is full.
        UsageError: `dest` exists or is inside `source`, a partition does not exist, or `global` lacks a training
            partition.
    """
    settings = settings or PackSettings()
    check_stored_dtype(settings.dtype)
    if os.path.realpath(source) in map(str, Path(os.path.realpath(dest)).parents):  # Path.resolve fails on link loops
        raise UsageError(f"{dest}: is inside {source}, the folder to pack; choose a place outside")
    check_destination(dest, overwrite=overwrite)
    pack = pack_archive if is_archive(source) else pack_layout
    pack(source, dest, settings, overwrite=overwrite, progress=progress)
