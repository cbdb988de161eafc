"""The packed format: a folder of plain arrays and one JSON file.

    frames.npy      [F, D]    float16 or float32, normalized, utterance after utterance
    labels.npy      [F]       uint8, uint16 or int32; the largest value means unlabelled
    offsets.npy     [U + 1]   int64, first row of each utterance, and F
    checksums.npy   [U, 2]    uint64, XXH3 of each utterance's frames and labels as they are stored
    corpus.json               version, normalization, dtype, inventory, partitions, XXH3 of offsets and checksums;
                              if they are known, settings of the features and the folder of the recordings

A partition is a run of utterances. The last key of `corpus.json` is the XXH3 of all bytes before it. Everything is
verified as it is read: frames and labels per utterance, the other files when the corpus is opened.

The folder is written next to its destination and renamed. Its data is not flushed to the disk first: a power cut can
damage what was just packed, which the checksums detect, and it can be packed again from its source.

Shape letters: `T` frames of an utterance, `F` frames of a corpus, `U` utterances, `D` features of a frame.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.blocks import PackedBlock
from dali_asr.corpus.checksums import checksum_digits
from dali_asr.corpus.normalize import Normalization
from dali_asr.corpus.npy import NpyFile, parse_array
from dali_asr.corpus.regular import read_regular, reading
from dali_asr.errors import DataError
from dali_asr.inventory import Inventory, is_text
from dali_asr.segments import FrameTiming

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

FORMAT_VERSION = 2
MANIFEST = "corpus.json"
FRAMES, LABELS, OFFSETS, CHECKSUMS = "frames.npy", "labels.npy", "offsets.npy", "checksums.npy"
STORED_DTYPES = ("float32", "float16")
_CHECKSUM_AT_END = re.compile(rb', "checksum": "([0-9a-f]{16})"\}\n')
_END_SIZE = len(b', "checksum": "0123456789abcdef"}\n')
_VERIFIED_FRAMES = 1 << 18  # per call, while a whole corpus is verified


@dataclass(frozen=True)
class PartitionEntry:
    """A partition in the manifest.

    Attributes:
        name: of the partition.
        utterances: their names, in order.
        labelled: whether the frames have labels.
        speakers: of each utterance; empty if they are not known.
        recordings: of each utterance, a path below the manifest's `recordings_folder`; empty if there are none.
    """

    name: str
    utterances: tuple[str, ...]
    labelled: bool
    speakers: tuple[str, ...] = ()
    recordings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON values, without what is not known."""
        values = {"name": self.name, "labelled": self.labelled, "utterances": self.utterances}
        optional = {"speakers": self.speakers, "recordings": self.recordings}
        return values | {key: value for key, value in optional.items() if value}


@dataclass(frozen=True)
class Manifest:
    """The content of `corpus.json`.

    Attributes:
        dtype: of the stored frames, `float32` or `float16`.
        normalization: applied to the frames.
        inventory: the label set.
        partitions: in the order of their utterances.
        checksums: of `offsets.npy` and `checksums.npy`, 16 hexadecimal digits each.
        features: settings that the features were computed with, as JSON; its `timing` says when frames are. None if
            unknown.
        recordings_folder: absolute path of the folder that the corpus was prepared from; None if unknown.
        label_shift: time from the edges of frames where labels change to the boundaries that they were read from, in
            seconds, if it is mostly the same; else 0.
    """

    dtype: str
    normalization: Normalization
    inventory: Inventory
    partitions: tuple[PartitionEntry, ...]
    checksums: dict[str, str]
    features: dict[str, Any] | None = None
    recordings_folder: Path | None = None
    label_shift: float = 0.0

    def to_bytes(self) -> bytes:
        """Return the content of `corpus.json`."""
        values = {
            "format": "dali-asr packed corpus",
            "version": FORMAT_VERSION,
            "dtype": self.dtype,
            "normalization": self.normalization.to_json(),
            "inventory": self.inventory.symbols,
            "partitions": [partition.to_json() for partition in self.partitions],
            "checksums": self.checksums,
            **({} if self.features is None else {"features": self.features}),
            **({} if self.recordings_folder is None else {"recordings_folder": str(self.recordings_folder)}),
            **({} if not self.label_shift else {"label_shift": self.label_shift}),
        }
        content = json.dumps(values, ensure_ascii=False).removesuffix("}").encode()
        return content + f', "checksum": "{checksum_digits(content)}"}}\n'.encode()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read `corpus.json`.

        Raises:
            DataError: the file is damaged, or of another version of the format.
        """
        path = folder / MANIFEST
        content = read_regular(path)
        try:
            values = json.loads(content.decode())
            _check_version(path, values["version"])
            end = _CHECKSUM_AT_END.fullmatch(content[-_END_SIZE:])
            if not end or end[1].decode() != checksum_digits(content[:-_END_SIZE]):
                raise ValueError("checksum differs")
            return cls._parse(values)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: damaged ({str(error)[:80]}); pack the corpus again") from error

    @classmethod
    def _parse(cls, values: dict[str, Any]) -> Manifest:
        if values["dtype"] not in STORED_DTYPES:
            raise ValueError(f"dtype {values['dtype']!r}")
        symbols, checksums = _names(values["inventory"], "inventory"), values["checksums"]
        if not isinstance(checksums, dict) or set(checksums) != {OFFSETS, CHECKSUMS}:
            raise ValueError("checksums")
        partitions = tuple(_parse_partition(entry) for entry in values["partitions"])
        if len({p.name for p in partitions}) < len(partitions):
            raise ValueError("two partitions of the same name")
        normalization = Normalization.from_json(values["normalization"])
        features = values.get("features")
        if features is not None:
            FrameTiming(**features["timing"])
        folder = values.get("recordings_folder")
        where = None if folder is None else Path(folder)
        shift = float(values.get("label_shift", 0))
        return cls(values["dtype"], normalization, Inventory(symbols), partitions, checksums, features, where, shift)


@dataclass(frozen=True, eq=False)
class PackedArrays:
    """The arrays of a packed corpus.

    Attributes:
        frames: the file of frames.
        labels: the file of labels.
        offsets: first row of each utterance, and F; `[U + 1]`.
        checksums: of each utterance's frames and labels, `[U, 2]`.
    """

    frames: NpyFile
    labels: NpyFile
    offsets: NDArray[np.int64]
    checksums: NDArray[np.uint64]

    def block(self, first: int, utterances: tuple[str, ...], *, labelled: bool) -> PackedBlock:
        """Return the block of the named utterances, which follow each other from number `first` on."""
        end = first + len(utterances)
        return PackedBlock(
            utterances,
            self.offsets[first : end + 1],
            self.checksums[first:end],
            self.frames,
            self.labels,
            labelled,
        )


def check_partition_name(name: object) -> None:
    """Check that a partition's name can be the name of a folder and be printed.

    Raises:
        DataError: it cannot.
    """
    if not isinstance(name, str) or not name.strip(".") or set(name) & {"/", "\\"} or not name.isprintable():
        raise DataError(f"partition {name!r}: invalid name; use letters, digits and dashes")


def is_packed(folder: Path) -> bool:
    """Return whether a folder holds a packed corpus.

    Raises:
        DataError: the folder cannot be accessed.
    """
    with reading(folder):
        return (folder / MANIFEST).is_file()


def open_arrays(folder: Path, manifest: Manifest) -> PackedArrays:
    """Open the arrays of a packed corpus and check that they fit each other.

    Raises:
        DataError: a file is missing, damaged or truncated, or its shape or dtype differs from what the others say.
    """
    utterances = sum(len(p.utterances) for p in manifest.partitions)
    offsets = _read_verified(folder / OFFSETS, manifest, np.dtype(np.int64), (utterances + 1,))
    checksums = _read_verified(folder / CHECKSUMS, manifest, np.dtype(np.uint64), (utterances, 2))
    frames, labels = NpyFile.open(folder / FRAMES), NpyFile.open(folder / LABELS)
    count = int(offsets[-1])
    columns = frames.header.shape[1:]
    _check_array(frames, (count, *(columns if len(columns) == 1 else "D")), np.dtype(manifest.dtype))
    _check_array(labels, (count,), manifest.inventory.label_dtype)
    if not utterances or not columns[0] or offsets[0] != 0 or (offsets[1:] <= offsets[:-1]).any():
        raise DataError(f"{folder}: offsets and frames are inconsistent; pack the corpus again")
    return PackedArrays(frames, labels, offsets, checksums)


def verify(folder: Path, progress: Callable[[str, int, int], object] = lambda *_: None) -> None:
    """Read a whole packed corpus and compare it with its checksums.

    Args:
        folder: the packed corpus.
        progress: called with a stage, the number of utterances verified, and the number of all utterances.

    Raises:
        DataError: a file is damaged.
    """
    manifest = Manifest.read(folder)
    names = tuple(name for p in manifest.partitions for name in p.utterances)
    block = open_arrays(folder, manifest).block(0, names, labelled=True)
    first = 0
    while first < len(names):
        progress("verifying", first, len(names))
        wanted = int(np.searchsorted(block.offsets, block.offsets[first] + _VERIFIED_FRAMES, side="right")) - 1
        end = max(wanted, first + 1)
        lengths = np.diff(block.offsets[first : end + 1]).tolist()
        block.read_frames_into([np.empty((length, block.feature_dim), block.dtype) for length in lengths], first)
        block.read_labels(first, end)
        first = end
    progress("verifying", first, len(names))


def _check_version(path: Path, version: object) -> None:
    if type(version) is not int:
        raise ValueError("version")
    if version != FORMAT_VERSION:
        update = "update dali-asr, or " if version > FORMAT_VERSION else ""
        raise DataError(
            f"{path}: packed format {version}, this dali-asr reads format {FORMAT_VERSION}; {update}"
            "pack the corpus again"
        )


def _parse_partition(entry: dict[str, Any]) -> PartitionEntry:
    check_partition_name(entry["name"])
    if type(entry["labelled"]) is not bool:
        raise ValueError("labelled")
    utterances = _names(entry["utterances"], "utterances")
    speakers, recordings = (_texts(entry[key], key) if key in entry else () for key in ("speakers", "recordings"))
    if {len(speakers), len(recordings)} - {0, len(utterances)}:
        raise ValueError("not as many speakers or recordings as utterances")
    return PartitionEntry(entry["name"], utterances, entry["labelled"], speakers, recordings)


def _names(values: object, what: str) -> tuple[str, ...]:
    """Return a JSON list of names, all of them text and different."""
    names = _texts(values, what)
    if len(set(names)) < len(names):
        raise ValueError(f"{what}: duplicate name")
    return names


def _texts(values: object, what: str) -> tuple[str, ...]:
    """Return a JSON list of at least one text."""
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and is_text(v) for v in values):
        raise ValueError(what)
    return tuple(values)


def _read_verified(path: Path, manifest: Manifest, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    content = read_regular(path)
    array = parse_array(path, content)
    if checksum_digits(content) != manifest.checksums[path.name]:
        raise DataError(f"{path}: damaged (checksum differs); pack the corpus again")
    if array.shape != shape or array.dtype != dtype:
        raise _unfitting(path, array.dtype, array.shape, dtype, shape)
    return array


def _check_array(array: NpyFile, shape: tuple[int | str, ...], dtype: np.dtype[Any]) -> None:
    header = array.header
    if header.shape != shape or header.dtype != dtype or header.fortran_order:
        raise _unfitting(array.path, header.dtype, header.shape, dtype, shape)


def _unfitting(
    path: Path,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    expected_dtype: np.dtype[Any],
    expected_shape: tuple[int | str, ...],
) -> DataError:
    found, expected = f"{dtype} {list(shape)}", f"{expected_dtype} [{', '.join(map(str, expected_shape))}]"
    return DataError(f"{path}: holds {found}, expected {expected}; pack the corpus again")
