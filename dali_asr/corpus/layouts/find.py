"""Finding the layout of a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dali_asr.corpus.features import refuse_audio
from dali_asr.corpus.layouts.array_files import ARRAYS
from dali_asr.corpus.layouts.course import COURSE, FEATURES
from dali_asr.corpus.layouts.kaldi import KALDI
from dali_asr.corpus.layouts.libriphone import LIBRIPHONE
from dali_asr.corpus.packed import check_partition_name
from dali_asr.corpus.regular import reading
from dali_asr.errors import DataError, UsageError, did_you_mean, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dali_asr.corpus.layouts.base import Layout, LayoutKind

KINDS = (COURSE, LIBRIPHONE, KALDI, ARRAYS)


def find_layout(root: Path, partitions: Sequence[str] = ()) -> Layout:
    """Open the source files of a folder.

    Args:
        root: the folder that holds the partitions.
        partitions: names of the partitions to open, in this order; empty: all, in the order of the layout.

    Raises:
        DataError: the folder is missing, cannot be read or has none of the layouts, or its files do not fit each other.
        UsageError: a partition does not exist.
    """
    refuse_audio(root)
    kind = _kind(root)
    found = kind.partition_names(root)
    for name in partitions:
        check_partition_name(name)
        if name not in found and not (root / name).is_dir():
            raise UsageError(f"{root}: no partition {name!r}; it has {quoted(found)}{did_you_mean(name, found)}")
    layout = kind.read(root, partitions)
    for partition in layout.partitions:
        check_partition_name(partition.name)
    return layout


def layout_title(root: Path) -> str | None:
    """Return what a folder of this layout is called; None if it has none of the layouts.

    Raises:
        DataError: the folder cannot be read.
    """
    with reading(root):
        if not root.is_dir():
            return None
        return next((kind.title for kind in KINDS if kind.partition_names(root)), None)


def partition_names(root: Path) -> list[str]:
    """Return the names of the partitions of a folder, and read as little else as possible.

    Raises:
        DataError: the folder is missing, cannot be read or has none of the layouts.
    """
    return _kind(root).partition_names(root)


def refuse_partition(root: Path, argument: str = "") -> None:
    """Refuse the folder of a partition of a course folder, where that of the partitions is expected.

    Args:
        root: a folder without a known layout.
        argument: what names the partition; empty if nothing does.

    Raises:
        DataError: it is such a folder.
    """
    if not (root / FEATURES).is_dir():
        return
    folder = root.absolute()
    named = f" ({argument})" if argument else ""
    raise DataError(
        f"{root}: is a partition, not the folder of the partitions; give {folder.parent}, and {folder.name} as the "
        f"name of its partition{named}"
    )


def _refuse_folder_above(root: Path) -> None:
    """Refuse a folder in which one folder has a known layout, as unpacking by hand leaves it.

    Raises:
        DataError: it is such a folder.
    """
    kinds = {below: layout_title(below) for below in sorted(root.iterdir()) if below.is_dir()}
    found = [(below, kind) for below, kind in kinds.items() if kind]
    if found:
        below, kind = found[0]
        others = f", one of {len(found)}" if len(found) > 1 else ""
        raise DataError(f"{root}: is not a corpus, but {below.name} in it is a {kind}{others}; give {below}")


def _kind(root: Path) -> LayoutKind:
    with reading(root):
        if root.is_dir():
            kind = next((kind for kind in KINDS if kind.partition_names(root)), None)
            if kind:
                return kind
            refuse_partition(root)
            _refuse_folder_above(root)
            problem = "neither a packed corpus nor a known layout"
        else:
            if not root.exists():
                raise DataError(f"{root}: no such folder or file; check the path")
            problem = "is neither a folder nor an archive"
    layouts = ", ".join(f"{kind.title} ({kind.pattern})" for kind in KINDS)
    raise DataError(
        f"{root}: {problem}; give a packed corpus (corpus.json), an archive of a course folder, or one of: {layouts}"
    )
