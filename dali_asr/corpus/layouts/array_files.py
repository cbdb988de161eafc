"""The layout of one large array per partition, with the offsets of its utterances.

    PARTITION.npz                                     made by `numpy.savez`, with the arrays
    PARTITION/frames.npy, PARTITION/offsets.npy, ...  or a file for each

    frames       [F, D]    float16, float32 or float64, utterance after utterance
    offsets      [U + 1]   integers: first row of each utterance, and F
    labels       [F]       optional: integers, −100 where a frame has none, or symbols
    names        [U]       optional: strings, names of the utterances; by default 0, 1, ...
    inventory    [C]       optional: strings, the symbols in label order; that of the first partition counts

Shape letters: `F` frames of a partition, `T` frames of an utterance, `U` utterances, `D` features of a frame,
`C` symbols.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.features import check_features, finite
from dali_asr.corpus.layouts.base import Layout, LayoutKind, SourcePartition, SourceUtterance, stamp
from dali_asr.corpus.layouts.symbols import to_labels
from dali_asr.corpus.npy import NpyFile, read_header
from dali_asr.corpus.packed import MANIFEST
from dali_asr.corpus.regular import OpenedFile, open_regular, reading
from dali_asr.errors import DataError
from dali_asr.inventory import ARPABET, Inventory
from dali_asr.segments import NO_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_ARRAYS = ("frames", "offsets", "labels", "names", "inventory")
_LOCAL_HEADER = 30  # bytes before the name of a zip member; https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
_MAX_HEADER = 4096


@dataclass(frozen=True)
class _Utterance(SourceUtterance):
    """Rows of the arrays of a partition."""

    name: str
    array: NpyFile
    label_array: NpyFile | None
    first: int
    length: int

    @property
    def where(self) -> str:
        """The file, and the name of the utterance."""
        return f"{self.array.path}: utterance {self.name}"

    def shape(self) -> tuple[int, int]:
        """Return the shape, which the offsets say."""
        return self.length, self.array.header.shape[1]

    def frames(self, *, zero_nonfinite: bool) -> NDArray[Any]:
        """Read all rows."""
        return finite(self.where, self.array.read_rows(self.first, self.length), zero_nonfinite=zero_nonfinite)

    def blocks(self, count: int, *, zero_nonfinite: bool) -> Iterator[NDArray[Any]]:
        """Read the rows block by block."""
        for at in range(0, self.length, count):
            rows = self.array.read_rows(self.first + at, min(count, self.length - at))
            yield finite(self.where, rows, zero_nonfinite=zero_nonfinite, first=at)

    def labels(self, length: int, inventory: Inventory, fold: Mapping[str, str] | None) -> NDArray[np.int64]:
        """Read the labels of the rows."""
        assert self.label_array is not None
        stored = np.empty(length, self.label_array.header.dtype)
        self.label_array.read_rows_into([_readable(stored)], self.first)
        return to_labels(self.where, stored, inventory, fold, absent=NO_LABEL)


def _partition_names(root: Path) -> list[str]:
    with reading(root):
        zipped = [p.stem for p in root.glob("*.npz") if p.is_file() and not p.name.startswith(".")]
        folders = [path.parent for path in root.glob("*/frames.npy")]
        return sorted({*zipped, *(folder.name for folder in folders if not (folder / MANIFEST).is_file())})


def _read(root: Path, partitions: Sequence[str]) -> Layout:
    """Open the arrays of partitions.

    Raises:
        DataError: an array is missing, damaged, compressed, or does not fit the others.
    """
    opened = {name: _open(root, name) for name in partitions or _partition_names(root)}
    read = tuple(_read_partition(name, arrays) for name, arrays in opened.items())
    inventory = next((arrays["inventory"] for arrays in opened.values() if "inventory" in arrays), None)
    symbols = Inventory(tuple(_strings(inventory))) if inventory else ARPABET
    files = tuple((name, array.path) for name, arrays in opened.items() for array in arrays.values())
    return Layout(ARRAYS.title, read, symbols, partial(_stamps, files))


def _stamps(files: Sequence[tuple[str, Path]]) -> Iterator[str]:
    yield from (f"{name}/{stamp(path)}" for name, path in files)


def _read_partition(name: str, arrays: Mapping[str, NpyFile]) -> SourcePartition:
    frames = arrays["frames"]
    check_features(frames.path, frames.header.shape, frames.header.dtype)
    total = frames.header.shape[0]
    offsets = _offsets(arrays["offsets"], total)
    labels = arrays.get("labels")
    if labels and (labels.header.shape != (total,) or labels.header.dtype.kind not in "USiu"):
        header = labels.header
        raise DataError(
            f"{labels.path}: labels are {header.dtype} {list(header.shape)}; give integers or symbols [{total}]"
        )
    names = _strings(arrays["names"]) if "names" in arrays else [str(n) for n in range(len(offsets) - 1)]
    if len(names) != len(offsets) - 1 or len(set(names)) < len(names):
        raise DataError(f"{frames.path}: {len(names)} names of {len(offsets) - 1} utterances; give each one of its own")
    rows = dict(zip(names, zip(offsets[:-1].tolist(), np.diff(offsets).tolist(), strict=True), strict=True))
    source = partial(_utterance, frames, labels, rows)
    return SourcePartition(name, tuple(names), labels is not None, source)


def _utterance(frames: NpyFile, labels: NpyFile | None, rows: Mapping[str, tuple[int, int]], name: str) -> _Utterance:
    return _Utterance(name, frames, labels, *rows[name])


def _offsets(array: NpyFile, total: int) -> NDArray[np.int64]:
    header = array.header
    if len(header.shape) != 1 or header.shape[0] < 2 or header.dtype.kind not in "iu":
        raise DataError(f"{array.path}: offsets are {header.dtype} {list(header.shape)}; give integers [U + 1]")
    offsets = _whole(array).astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) <= 0).any():
        raise DataError(
            f"{array.path}: offsets must rise from 0 to the {total} frames, by at least 1 for each utterance"
        )
    return offsets


def _strings(array: NpyFile) -> list[str]:
    if len(array.header.shape) != 1 or array.header.dtype.kind != "U":
        raise DataError(f"{array.path}: names and symbols are {array.header.dtype}; give an array of strings [U]")
    strings: list[str] = _whole(array).tolist()
    return strings


def _whole(array: NpyFile) -> NDArray[Any]:
    stored = np.empty(array.header.shape, array.header.dtype)
    array.read_rows_into([_readable(stored)], 0)
    return stored


def _readable(array: NDArray[Any]) -> NDArray[Any]:
    """Return the bytes of an array, which strings do not give as a buffer."""
    return array.view(np.uint8)


def _open(root: Path, name: str) -> dict[str, NpyFile]:
    """Return the arrays of a partition, by name."""
    path, folder = root / f"{name}.npz", root / name
    if path.is_file():
        arrays = _open_zipped(path)
    else:
        paths = {array: folder / f"{array}.npy" for array in _ARRAYS}
        arrays = {array: NpyFile.open(file) for array, file in paths.items() if file.is_file()}
    for required in _ARRAYS[:2]:
        if required not in arrays:
            raise DataError(f"{path if path.is_file() else folder}: has no array {required}; save it there")
    return arrays


def _open_zipped(path: Path) -> dict[str, NpyFile]:
    arrays = {}
    with open_regular(path) as file, open(file, "rb", closefd=False) as stream:
        opened = OpenedFile.of_descriptor(path, file)
        try:
            with zipfile.ZipFile(stream) as archive:
                for info in archive.infolist():
                    name = info.filename.removesuffix(".npy")
                    if name in _ARRAYS:
                        arrays[name] = _open_member(path, opened, info, stream)
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            raise DataError(f"{path}: damaged ({error}); write it again with numpy.savez") from error
    return arrays


def _open_member(path: Path, opened: OpenedFile, info: zipfile.ZipInfo, stream: Any) -> NpyFile:
    """Return a member that lies uncompressed in the file, where its rows can be read."""
    where = f"{path}, {info.filename}"
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise DataError(f"{where}: is compressed, so its rows cannot be read one by one; write it with numpy.savez")
    stream.seek(info.header_offset)
    local = stream.read(_LOCAL_HEADER)
    start = (
        info.header_offset
        + len(local)
        + int.from_bytes(local[26:28], "little")
        + int.from_bytes(local[28:30], "little")
    )
    stream.seek(start)
    header = read_header(where, stream.read(min(_MAX_HEADER, info.file_size)), info.file_size)
    if start + info.file_size > opened.size:
        raise DataError(f"{where}: truncated; write it again with numpy.savez")
    return NpyFile(opened, replace(header, offset=start + header.offset))


ARRAYS = LayoutKind(
    "arrays with offsets", "PARTITION.npz, or PARTITION/frames.npy and offsets.npy", _partition_names, _read
)
