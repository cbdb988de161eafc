"""Reading the folder layout of CMU 11-785 HW1P2: `PARTITION/{mfcc,transcript}/NAME.npy`.

`mfcc` holds `[T, D]` float16, float32 or float64. `transcript` holds T + 2 symbols or labels: a start symbol, one per
frame, and an end symbol. A partition without labels has no folder `transcript`. Utterances are in the order of their
file names.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.folding import fold_that_knows
from dali_asr.corpus.npy import NpyFile, read_array
from dali_asr.corpus.packed import check_partition_name
from dali_asr.corpus.regular import reading
from dali_asr.errors import DataError, SymbolError, UsageError, did_you_mean
from dali_asr.inventory import END_SYMBOL, START_SYMBOL, UNKNOWN, is_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.inventory import Inventory

_AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aiff", ".sph")
_MAX_SHOWN = 40  # characters of a symbol in an error


@dataclass(frozen=True)
class CoursePartition:
    """The files of one partition.

    Attributes:
        name: of the partition and its folder.
        root: the folder.
        utterances: the file names without `.npy`, sorted.
        labelled: whether there are transcripts.
    """

    name: str
    root: Path
    utterances: tuple[str, ...]
    labelled: bool

    def features_path(self, utterance: str) -> Path:
        """Return the path of an utterance's features."""
        return self.root / "mfcc" / f"{utterance}.npy"

    def transcript_path(self, utterance: str) -> Path:
        """Return the path of an utterance's transcript."""
        return self.root / "transcript" / f"{utterance}.npy"


def is_course_folder(root: Path) -> bool:
    """Return whether a folder of `root` is a partition.

    Raises:
        DataError: the folder cannot be read.
    """
    return bool(_partition_names(root))


def read_layout(root: Path, partitions: Sequence[str] = ()) -> tuple[CoursePartition, ...]:
    """List the files of a course folder.

    Args:
        root: the folder that holds the partitions.
        partitions: names of the partitions to list, in this order; empty: all, sorted by name.

    Raises:
        DataError: the folder is missing or cannot be read, a partition has no features, a name is invalid, or features
            and transcripts differ in number or names.
        UsageError: a partition does not exist.
    """
    with reading(root):
        refuse_audio(root)
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; give a packed corpus or a folder of PARTITION/mfcc/*.npy")
        found = _partition_names(root)
        if not found and (root / "mfcc").is_dir():
            folder = root.absolute()
            raise DataError(
                f"{root}: is a partition, not the folder of the partitions; give {folder.parent}, and "
                f"{folder.name} as the name of its partition"
            )
        if not found:
            raise DataError(f"{root}: holds no partition; expected PARTITION/mfcc/*.npy, as in the course data")
        for name in partitions or found:
            check_partition_name(name)
            if not (root / name).is_dir():
                known = ", ".join(found)
                raise UsageError(f"{root}: no partition {name!r}; it has {known}{did_you_mean(name, found)}")
        layout = tuple(_read_partition(root / name) for name in partitions or found)
        if not partitions:
            _check_strays(root, found)
        return layout


def read_features_shape(path: Path) -> tuple[int, int]:
    """Read the shape `(T, D)` of a features file from its header.

    Raises:
        DataError: the array is not `[T, D]` floating point, or has no frames.
    """
    header = NpyFile.open(path).header
    _check_features(path, header.shape, header.dtype)
    return header.shape[0], header.shape[1]


def read_features(path: Path, *, zero_nonfinite: bool = False) -> NDArray[Any]:
    """Read features `[T, D]` in the dtype of the file.

    Args:
        path: the file.
        zero_nonfinite: whether NaN and infinity are replaced by zero; otherwise they are errors.

    Raises:
        DataError: as `read_features_shape`, or a value is not finite.
    """
    features = read_array(path)
    _check_features(path, features.shape, features.dtype)
    return _finite(path, features, zero_nonfinite)


def read_features_blocks(path: Path, frames: int, *, zero_nonfinite: bool) -> Iterator[NDArray[Any]]:
    """Yield features in blocks of `frames` frames, the last one shorter, in memory that does not grow with the file.

    Arguments and errors are otherwise those of `read_features`.
    """
    file = NpyFile.open(path)
    _check_features(path, file.header.shape, file.header.dtype)
    total = file.header.shape[0]
    for first in range(0, total, frames):
        yield _finite(path, file.read_rows(first, min(frames, total - first)), zero_nonfinite, first)


def refuse_audio(path: Path) -> None:
    """Say what to do with recordings: features are not computed from them here.

    Raises:
        DataError: the path is a recording, or a folder of recordings.
    """
    with reading(path):
        inside = path.is_dir() and any(entry.suffix.lower() in _AUDIO for entry in path.iterdir())
    if inside or path.suffix.lower() in _AUDIO:
        what = "a folder of recordings" if inside else "a recording"
        raise DataError(
            f"{path}: is {what}, but features are needed; compute [frames, features per frame] per recording, such as "
            "librosa.feature.mfcc(y=y, sr=sr, n_mfcc=28, hop_length=sr // 100).T, and give them as .npy files: to "
            "predict, as they are; to train, in PARTITION/mfcc with labels in PARTITION/transcript, or by PackedWriter"
        )


def is_npy_name(name: str) -> bool:
    """Return whether a file name is that of an array; other systems leave hidden files such as `._a.npy`."""
    return name.endswith(".npy") and not name.startswith(".")


def _finite(path: Path, features: NDArray[Any], zero_nonfinite: bool, first: int = 0) -> NDArray[Any]:
    finite = np.isfinite(features)
    if finite.all():
        return features
    if zero_nonfinite:
        return np.where(finite, features, 0).astype(features.dtype)
    row, column = np.argwhere(~finite)[0]
    raise DataError(
        f"{path}: {features[row, column]} at frame {first + row}, feature {column} (one of {(~finite).sum()}); "
        "repair the file, or have such values zeroed (zero_nonfinite=True)"
    )


def read_transcript(
    path: Path, frames: int, inventory: Inventory, fold: Mapping[str, str] | None = None
) -> NDArray[np.int64]:
    """Read the labels `[T]` of an utterance of `frames` frames, without the start and end symbols.

    Args:
        path: the file.
        frames: number of frames of the utterance, T.
        inventory: the label set.
        fold: the symbols of the inventory that others stand for.

    Raises:
        DataError: the length is not T + 2, a symbol is unknown, or the start or end symbol is missing.
    """
    stored = read_array(path)
    if stored.ndim != 1 or stored.dtype.kind not in "USiu":
        raise DataError(
            f"{path}: has shape {stored.shape} and dtype {stored.dtype}; "
            "a transcript must be one row of symbols or integers"
        )
    if len(stored) != frames + 2:
        raise DataError(
            f"{path}: holds {len(stored)} symbols for {frames} frames; expected {frames + 2}: "
            f"{START_SYMBOL}, one per frame, {END_SYMBOL}"
        )
    labels = _to_labels(path, stored, inventory, fold)
    _check_ends(path, stored, labels, inventory)
    return labels[1:-1]


def _to_labels(
    path: Path, stored: NDArray[Any], inventory: Inventory, fold: Mapping[str, str] | None
) -> NDArray[np.int64]:
    if stored.dtype.kind in "iu":
        labels = stored.astype(np.int64)
        wrong = (labels < 0) | (labels >= len(inventory))
        remedy = f"; the inventory has labels 0 to {len(inventory) - 1}"
    else:
        symbols = _decode(path, stored) if stored.dtype.kind == "S" else stored
        labels = inventory.encode(symbols, fold)
        wrong = labels == UNKNOWN
        remedy = "; repair the file, or give the inventory that it was written with"
    if wrong.any():
        at = int(wrong.argmax())
        near = _advice(str(symbols[at])[:_MAX_SHOWN], inventory) if stored.dtype.kind in "US" else ""
        raise SymbolError(f"{path}: unknown symbol {_shown(stored[at])} at position {at}{near}{remedy}")
    return labels


def _advice(symbol: str, inventory: Inventory) -> str:
    """Return which fold knows a symbol, or else which symbol is near."""
    fold = fold_that_knows(symbol, {known: at for at, known in enumerate(inventory.symbols)})
    return f"; fold it (fold={fold!r})" if fold else inventory.nearest(symbol)


def _shown(symbol: Any) -> str:
    """Return a symbol as it is shown in an error."""
    return repr(symbol.item()[:_MAX_SHOWN] if symbol.dtype.kind in "US" else symbol.item())


def _decode(path: Path, stored: NDArray[np.bytes_]) -> NDArray[np.str_]:
    try:
        return np.char.decode(stored, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: its symbols are not UTF-8; save them as strings") from error


def _check_ends(path: Path, stored: NDArray[Any], labels: NDArray[np.int64], inventory: Inventory) -> None:
    for at, symbol, what in ((0, START_SYMBOL, "start"), (-1, END_SYMBOL, "end")):
        if symbol not in inventory.symbols:
            raise DataError(f"{path}: the inventory has no {symbol}, the {what} symbol of course transcripts; add it")
        if inventory.symbols[labels[at]] != symbol:
            where = "opens" if at == 0 else "closes"
            raise DataError(
                f"{path}: {where} with {_shown(stored[at])}; a transcript must have the {what} symbol {symbol} there"
            )


def _check_features(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) != 2:
        raise DataError(f"{path}: has shape {shape}; features must be [frames, features per frame]")
    if 0 in shape:
        raise DataError(f"{path}: has shape {shape}, no frames; remove it and its transcript")
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise DataError(f"{path}: has dtype {dtype}; features must be float16, float32 or float64")


def _partition_names(root: Path) -> list[str]:
    with reading(root):
        if not root.is_dir():
            return []
        folders = (entry for entry in root.iterdir() if entry.is_dir())
        return sorted(f.name for f in folders if (f / "mfcc").is_dir() or (f / "transcript").is_dir())


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
    with reading(folder):
        names = [path.name for path in folder.iterdir()]
    names = sorted(name for name in names if is_npy_name(name))  # with the suffix, as the course sorts them
    for name in names:
        if not is_text(name):
            raise DataError(f"{str(folder)!r}: the file name {name!r} is not UTF-8; rename it")
    return [name.removesuffix(".npy") for name in names]


def _check_pairs(root: Path, features: list[str], transcripts: list[str]) -> None:
    if features == transcripts:
        return
    lone = sorted(set(features) ^ set(transcripts))[0]
    has, lacks = ("mfcc", "transcript") if lone in set(features) else ("transcript", "mfcc")
    raise DataError(
        f"{root}: {len(features)} mfcc files and {len(transcripts)} transcripts; {lone}.npy is in {has} "
        f"but not in {lacks}: add or remove it"
    )
