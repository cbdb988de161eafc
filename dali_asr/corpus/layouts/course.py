"""The course layout of CMU 11-785 HW1P2: `PARTITION/{mfcc,transcript}/NAME.npy`.

`mfcc` holds `[T, D]` float16, float32 or float64. `transcript` holds T + 2 symbols or labels: a start symbol, one per
frame, and an end symbol. A partition without labels has no folder `transcript`. Utterances are in the order of their
file names.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dali_asr.corpus.features import (
    is_npy_name,
    read_features,
    read_features_blocks,
    read_features_shape,
)
from dali_asr.corpus.layouts.base import Layout, LayoutKind, SourcePartition, SourceUtterance
from dali_asr.corpus.layouts.symbols import shown, to_labels
from dali_asr.corpus.npy import read_array
from dali_asr.corpus.regular import reading
from dali_asr.errors import DataError
from dali_asr.inventory import ARPABET, END_SYMBOL, START_SYMBOL, is_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from dali_asr.inventory import Inventory

FEATURES, TRANSCRIPTS = "mfcc", "transcript"  # names of folders


@dataclass(frozen=True)
class CourseUtterance(SourceUtterance):
    """The files of an utterance.

    Attributes:
        folder: of its partition.
        name: of its files, without `.npy`.
    """

    folder: Path
    name: str

    @property
    def features(self) -> Path:
        """The file of its features."""
        return self.folder / FEATURES / f"{self.name}.npy"

    @property
    def where(self) -> str:
        """The file of its features."""
        return str(self.features)

    def shape(self) -> tuple[int, int]:
        """Read the shape from the header of the file."""
        return read_features_shape(self.features)

    def frames(self, *, zero_nonfinite: bool) -> NDArray[Any]:
        """Read the whole file."""
        return read_features(self.features, zero_nonfinite=zero_nonfinite)

    def blocks(self, count: int, *, zero_nonfinite: bool) -> Iterator[NDArray[Any]]:
        """Read the file block by block."""
        return read_features_blocks(self.features, count, zero_nonfinite=zero_nonfinite)

    def labels(self, length: int, inventory: Inventory, fold: Mapping[str, str] | None) -> NDArray[np.int64]:
        """Read the transcript, without start and end symbol."""
        path = self.folder / TRANSCRIPTS / f"{self.name}.npy"
        return transcript_labels(path, read_array(path), length, inventory, fold)


def _read(root: Path, partitions: Sequence[str]) -> Layout:
    """List the files of a course folder.

    Raises:
        DataError: a folder cannot be read, a partition has no features, a name is invalid, or features and transcripts
            differ in number or names.
    """
    with reading(root):
        found = _partition_names(root)
        read = tuple(_read_partition(root / name) for name in partitions or found)
        if not partitions:
            _check_strays(root, found)
    return Layout(COURSE.title, read, ARPABET, partial(_stamps, root, read))


def transcript_labels(
    where: Path | str,
    stored: NDArray[Any],
    frames: int,
    inventory: Inventory,
    fold: Mapping[str, str] | None = None,
) -> NDArray[np.int64]:
    """Return the labels `[T]` of a transcript, without the start and end symbols.

    Args:
        where: the transcript, as errors name it.
        stored: the array that it holds.
        frames: number of frames of the utterance, T.
        inventory: the label set.
        fold: the symbols of the inventory that others stand for.

    Raises:
        DataError: the length is not T + 2, a symbol is unknown, or the start or end symbol is missing.
    """
    if stored.ndim != 1 or stored.dtype.kind not in "USiu":
        raise DataError(
            f"{where}: has shape {stored.shape} and dtype {stored.dtype}; "
            "a transcript must be one row of symbols or integers"
        )
    check_length(where, len(stored), frames)
    labels = to_labels(where, stored, inventory, fold)
    _check_ends(where, stored, labels, inventory)
    return labels[1:-1]


def check_length(where: Path | str, symbols: int, frames: int) -> None:
    """Check that a transcript has a symbol for each frame, and start and end symbols.

    Raises:
        DataError: it has not.
    """
    if symbols != frames + 2:
        raise DataError(
            f"{where}: holds {symbols} symbols for {frames} frames; expected {frames + 2}: "
            f"{START_SYMBOL}, one per frame, {END_SYMBOL}"
        )


def _check_ends(where: Path | str, stored: NDArray[Any], labels: NDArray[np.int64], inventory: Inventory) -> None:
    for at, symbol, what in ((0, START_SYMBOL, "start"), (-1, END_SYMBOL, "end")):
        if symbol not in inventory.symbols:
            raise DataError(f"{where}: the inventory has no {symbol}, the {what} symbol of course transcripts; add it")
        if inventory.symbols[labels[at]] != symbol:
            verb = "opens" if at == 0 else "closes"
            raise DataError(
                f"{where}: {verb} with {shown(stored[at])}; a transcript must have the {what} symbol {symbol} there"
            )


def _stamps(root: Path, partitions: Sequence[SourcePartition]) -> Iterator[str]:
    for partition in partitions:
        for name in (FEATURES, TRANSCRIPTS) if partition.labelled else (FEATURES,):
            yield from sorted(f"{partition.name}/{name}/{line}" for line in _stat_lines(root / partition.name / name))


def _stat_lines(folder: Path) -> Iterator[str]:
    with reading(folder), os.scandir(folder) as entries:
        for entry in entries:
            if is_npy_name(entry.name):
                stat = entry.stat()
                yield f"{entry.name} {stat.st_size} {stat.st_mtime_ns}\n"


def _partition_names(root: Path) -> list[str]:
    with reading(root):
        folders = (entry for entry in root.iterdir() if entry.is_dir())
        return sorted(f.name for f in folders if (f / FEATURES).is_dir() or (f / TRANSCRIPTS).is_dir())


def _check_strays(root: Path, found: Sequence[str]) -> None:
    """Refuse a folder that is meant to be a partition but has no features: it is empty, or holds arrays itself."""
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir()):
        if folder.name.startswith((".", "__")):  # such as __MACOSX
            continue
        if folder.name not in found and (not any(folder.iterdir()) or any(folder.glob("*.npy"))):
            raise _without_features(folder)


def _without_features(folder: Path) -> DataError:
    return DataError(
        f"{folder}: has no folder mfcc; put the features of the partition into {folder / 'mfcc'}, "
        "or move the folder away if it is not a partition"
    )


def _read_partition(root: Path) -> SourcePartition:
    if not (root / FEATURES).is_dir():
        raise _without_features(root)
    features = _npy_names(root / FEATURES)
    if not features:
        raise DataError(f"{root / 'mfcc'}: holds no .npy file; copy the features of {root.name} into it")
    labelled = (root / TRANSCRIPTS).is_dir()
    if labelled:
        check_pairs(root, features, _npy_names(root / TRANSCRIPTS))
    return SourcePartition(root.name, tuple(features), labelled, partial(CourseUtterance, root))


def _npy_names(folder: Path) -> list[str]:
    with reading(folder):
        names = [path.name for path in folder.iterdir()]
    names = sorted(name for name in names if is_npy_name(name))  # with the suffix, as the course sorts them
    for name in names:
        if not is_text(name):
            raise DataError(f"{str(folder)!r}: the file name {name!r} is not UTF-8; rename it")
    return [name.removesuffix(".npy") for name in names]


def check_pairs(where: Path | str, features: list[str], transcripts: list[str]) -> None:
    """Check that a partition has features and a transcript of the same utterances; both lists are sorted.

    Raises:
        DataError: it has not.
    """
    if features == transcripts:
        return
    lone = sorted(set(features) ^ set(transcripts))[0]
    has, lacks = (FEATURES, TRANSCRIPTS) if lone in set(features) else (TRANSCRIPTS, FEATURES)
    raise DataError(
        f"{where}: {len(features)} mfcc files and {len(transcripts)} transcripts; {lone}.npy is in {has} "
        f"but not in {lacks}: add or remove it"
    )


COURSE = LayoutKind("course folder", "PARTITION/mfcc/*.npy", _partition_names, _read)
