"""Reading the layout of CMU 11-785 HW1P2: `PARTITION/{mfcc,transcript}/NAME.npy`.

`mfcc` holds `[T, D]` float16, float32 or float64; `transcript` holds T + 2 symbols or labels, the first a start
and the last an end symbol, and is absent where a partition is to be predicted. Utterances are ordered by file
name.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.npy import NpyHeader, map_array, read_array, read_header
from dali_asr.errors import DataError, UsageError, did_you_mean
from dali_asr.inventory import END_SYMBOL, START_SYMBOL, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.inventory import Inventory


@dataclass(frozen=True)
class CoursePartition:
    """The files of one partition.

    Attributes:
        name: the folder's name.
        root: the folder.
        utterances: the file names without `.npy`, sorted.
        labelled: whether there are transcripts.
    """

    name: str
    root: Path
    utterances: tuple[str, ...]
    labelled: bool

    def features_path(self, utterance: str) -> Path:
        """Return where the features of an utterance lie."""
        return self.root / "mfcc" / f"{utterance}.npy"

    def transcript_path(self, utterance: str) -> Path:
        """Return where the transcript of an utterance lies."""
        return self.root / "transcript" / f"{utterance}.npy"


def is_course_folder(root: Path) -> bool:
    """Say whether any folder of `root` looks like a partition."""
    return bool(_partition_names(root))


def read_layout(root: Path, partitions: Sequence[str] = ()) -> tuple[CoursePartition, ...]:
    """List the files of a course folder.

    Args:
        root: the folder that holds the partitions.
        partitions: the names to read, in this order; all of them, sorted, when empty.

    Raises:
        DataError: a missing folder, a partition without `mfcc` or without files, counts or names that differ.
        UsageError: a partition that is not there.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give a packed corpus or a folder of PARTITION/mfcc/*.npy")
    found = _partition_names(root)
    if not found:
        raise DataError(f"{root}: no partition in it; expected PARTITION/mfcc/*.npy, as in the course data")
    for name in partitions:
        if not (root / name).is_dir():
            raise UsageError(f"{root}: no partition {name!r}; it has {', '.join(found)}{did_you_mean(name, found)}")
    layout = tuple(_read_partition(root / name) for name in partitions or found)
    if not partitions:
        _check_strays(root, found)
    return layout


def read_features_header(path: Path) -> NpyHeader:
    """Read and check the header of a features file.

    Raises:
        DataError: not `[T, D]`, no frames, or not floating point.
    """
    header = read_header(path)
    _check_features(path, header.shape, header.dtype)
    return header


def read_features(path: Path, *, zero_nonfinite: bool = False) -> NDArray[Any]:
    """Read features `[T, D]`, in the dtype of the file.

    Args:
        path: the file.
        zero_nonfinite: whether NaN and infinity become zeros instead of an error.

    Raises:
        DataError: as `read_features_header`, or a value that is not finite.
    """
    features = read_array(path)
    _check_features(path, features.shape, features.dtype)
    return _finite(path, features, zero_nonfinite)


def read_features_blocks(path: Path, frames: int, *, zero_nonfinite: bool) -> Iterator[NDArray[Any]]:
    """Yield features in blocks of so many frames, the last one shorter, in memory that does not grow with the file.

    Arguments and errors otherwise as in `read_features`.
    """
    mapped = map_array(path, read_features_header(path))
    for first in range(0, len(mapped), frames):
        yield _finite(path, mapped[first : first + frames], zero_nonfinite, first)


def _finite(path: Path, features: NDArray[Any], zero_nonfinite: bool, first: int = 0) -> NDArray[Any]:
    finite = np.isfinite(features)
    if finite.all():
        return features
    if zero_nonfinite:
        return np.where(finite, features, 0).astype(features.dtype)
    row, column = np.argwhere(~finite)[0]
    raise DataError(
        f"{path}: {features[row, column]} at frame {first + row}, feature {column} (one of {(~finite).sum()}); "
        "mend the file, or have such values zeroed (data.zero_nonfinite, data pack --zero-nonfinite)"
    )


def read_transcript(path: Path, frames: int, inventory: Inventory) -> NDArray[np.int64]:
    """Read the labels `[T]` of an utterance of `frames` frames, without the start and end symbols.

    Raises:
        DataError: a length other than T + 2, an unknown symbol, or no start or end symbol.
    """
    stored = read_array(path)
    if stored.ndim != 1 or stored.dtype.kind not in "USiu":
        raise DataError(
            f"{path}: has shape {stored.shape} and dtype {stored.dtype}; "
            "a transcript must be a row of symbols or integers"
        )
    if len(stored) != frames + 2:
        raise DataError(
            f"{path}: holds {len(stored)} symbols for {frames} frames; expected {frames + 2}: start, one a frame, end"
        )
    labels = _to_labels(path, stored, inventory)
    _check_ends(path, stored, labels, inventory)
    return labels[1:-1]


def _to_labels(path: Path, stored: NDArray[Any], inventory: Inventory) -> NDArray[np.int64]:
    if stored.dtype.kind in "iu":
        labels = stored.astype(np.int64)
        wrong = (labels < 0) | (labels >= len(inventory))
        remedy = f"; the inventory has labels 0 to {len(inventory) - 1}"
    else:
        symbols = _decode(path, stored) if stored.dtype.kind == "S" else stored
        labels = inventory.encode(symbols)
        wrong = labels == UNKNOWN
        remedy = "; mend the file or name its inventory"
    if wrong.any():
        at = int(wrong.argmax())
        near = inventory.nearest(str(stored[at])) if stored.dtype.kind != "i" else ""
        raise DataError(f"{path}: unknown symbol {stored[at].item()!r} at position {at}{near}{remedy}")
    return labels


def _decode(path: Path, stored: NDArray[np.bytes_]) -> NDArray[np.str_]:
    try:
        return np.char.decode(stored, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: its symbols are bytes that are no UTF-8; save them as strings") from error


def _check_ends(path: Path, stored: NDArray[Any], labels: NDArray[np.int64], inventory: Inventory) -> None:
    for at, symbol, what in ((0, START_SYMBOL, "start"), (-1, END_SYMBOL, "end")):
        if symbol not in inventory.symbols:
            raise DataError(f"{path}: the inventory has no {symbol}, the {what} symbol of course transcripts; add it")
        if inventory.symbols[labels[at]] != symbol:
            where = "opens" if at == 0 else "closes"
            raise DataError(
                f"{path}: {where} with {stored[at].item()!r}; a transcript must have the {what} symbol {symbol} there"
            )


def _check_features(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) != 2:
        raise DataError(f"{path}: has shape {shape}; features must be [frames, features per frame]")
    if 0 in shape:
        raise DataError(f"{path}: has shape {shape}, no frames; remove it and its transcript")
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise DataError(f"{path}: has dtype {dtype}; features must be float16, float32 or float64")


def _partition_names(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    folders = (entry for entry in root.iterdir() if entry.is_dir())
    return sorted(f.name for f in folders if (f / "mfcc").is_dir() or (f / "transcript").is_dir())


def _check_strays(root: Path, found: Sequence[str]) -> None:
    """Refuse a folder that is meant as a partition and has no features: empty, or with arrays elsewhere in it."""
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir()):
        if folder.name.startswith((".", "__")):  # such as __MACOSX
            continue
        if folder.name not in found and (not any(folder.iterdir()) or any(folder.glob("*.npy"))):
            raise _without_features(folder)


def _without_features(folder: Path) -> DataError:
    return DataError(
        f"{folder}: has no folder mfcc; a partition keeps its features in {folder / 'mfcc'}, "
        "and a folder that is no partition must lie elsewhere"
    )


def _read_partition(root: Path) -> CoursePartition:
    if not (root / "mfcc").is_dir():
        raise _without_features(root)
    features = _npy_names(root / "mfcc")
    if not features:
        raise DataError(f"{root / 'mfcc'}: holds no .npy file; copy the features of {root.name} into it")
    labelled = (root / "transcript").is_dir()
    if labelled:
        _check_pairs(root, features, _npy_names(root / "transcript"))
    return CoursePartition(root.name, root, tuple(features), labelled)


def _npy_names(folder: Path) -> list[str]:
    # In the order of the file names, suffix and all, which is how the course sorts them.
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
    return [name[:-4] for name in sorted(names) if name.endswith(".npy") and not name.startswith(".")]


def _check_pairs(root: Path, features: list[str], transcripts: list[str]) -> None:
    if features == transcripts:
        return
    lone = sorted(set(features) ^ set(transcripts))[0]
    has, lacks = ("mfcc", "transcript") if lone in set(features) else ("transcript", "mfcc")
    raise DataError(
        f"{root}: {len(features)} mfcc files and {len(transcripts)} transcripts; {lone}.npy is in {has} "
        f"but not in {lacks}: add or remove it"
    )
