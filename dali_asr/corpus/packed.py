"""The packed format: a folder of plain arrays and one JSON file.

    frames.npy    [F, D]      float16 or float32, normalized, utterance after utterance
    labels.npy    [F]         uint8, uint16 or int32; its largest value means unlabelled
    offsets.npy   [U + 1]     int64, where utterances begin and end
    corpus.json               format version, normalization, dtype, inventory, partitions, SHA-256

A partition is a run of utterances. The folder is written beside its place and renamed, so that it is there
whole or not at all. The data is not flushed to the disk first (a power cut can lose what was just packed, and
`verify` tells): it can always be packed again from its source.

Shape letters: `T` frames of an utterance, `F` frames of a corpus, `U` utterances, `D` features of a frame.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.normalize import Normalization
from dali_asr.corpus.npy import OpenedFile, map_array, read_array, read_header
from dali_asr.corpus.partition import BlockFiles
from dali_asr.errors import DataError
from dali_asr.inventory import Inventory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT_VERSION = 1
MANIFEST = "corpus.json"
FRAMES, LABELS, OFFSETS = "frames.npy", "labels.npy", "offsets.npy"
STORED_DTYPES = ("float32", "float16")
_HASH_BLOCK, _VERIFIED_AT_ONCE = 1 << 20, 64 << 20  # bytes


@dataclass(frozen=True)
class PartitionEntry:
    """A partition's line in the manifest: its name, its utterances in order, whether it has labels."""

    name: str
    utterances: tuple[str, ...]
    labelled: bool


@dataclass(frozen=True)
class Manifest:
    """What `corpus.json` says.

    Attributes:
        dtype: of the stored frames, `float32` or `float16`.
        normalization: what was applied to them.
        inventory: the label set.
        partitions: in the order of their utterances.
        sha256: of each array file, by name.
    """

    dtype: str
    normalization: Normalization
    inventory: Inventory
    partitions: tuple[PartitionEntry, ...]
    sha256: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write `corpus.json` into a folder."""
        values = {
            "format": "dali-asr packed corpus",
            "version": FORMAT_VERSION,
            "dtype": self.dtype,
            "normalization": self.normalization.to_json(),
            "inventory": self.inventory.symbols,
            "partitions": [
                {"name": p.name, "labelled": p.labelled, "utterances": p.utterances} for p in self.partitions
            ],
            "sha256": self.sha256,
        }
        (folder / MANIFEST).write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read `corpus.json`.

        Raises:
            DataError: it is damaged, or of a newer format.
        """
        path = folder / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = int(values["version"])
            if version > FORMAT_VERSION:
                raise DataError(
                    f"{path}: packed format {version}, this dali-asr reads up to {FORMAT_VERSION}; "
                    "update dali-asr, or pack the corpus again"
                )
            for partition in values["partitions"]:
                check_partition_name(partition["name"])
            return cls(
                values["dtype"],
                Normalization.from_json(values["normalization"]),
                Inventory(tuple(values["inventory"])),
                tuple(
                    PartitionEntry(p["name"], tuple(p["utterances"]), bool(p["labelled"])) for p in values["partitions"]
                ),
                dict(values["sha256"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: damaged ({error!r}); pack the corpus again") from error


@dataclass(frozen=True)
class PackedArrays:
    """The arrays of a packed corpus: frames `[F, D]` and labels `[F]` mapped, offsets `[U + 1]` in memory.

    `files` says where frames and labels lie, to read them without mapping.
    """

    frames: NDArray[Any]
    labels: NDArray[Any]
    offsets: NDArray[np.int64]
    files: BlockFiles


def check_partition_name(name: object) -> None:
    """Check that a partition's name can be part of a file's name.

    Raises:
        DataError: it cannot.
    """
    if not isinstance(name, str) or not name.strip(".") or set(name) & {"/", "\\", "\0", "\n"}:
        raise DataError(f"partition {name!r}: no name for one; give it letters and digits, and no slashes")


def is_packed(folder: Path) -> bool:
    """Say whether a folder holds a packed corpus."""
    return (folder / MANIFEST).is_file()


def open_arrays(folder: Path, manifest: Manifest) -> PackedArrays:
    """Map the arrays of a packed corpus and check that they fit each other.

    Raises:
        DataError: a file that is missing, cut short or of another shape or dtype than the others say.
    """
    frames, labels, offsets = folder / FRAMES, folder / LABELS, folder / OFFSETS
    opened = OpenedFile.of(frames), OpenedFile.of(labels)
    starts = read_array(offsets)
    utterances = sum(len(p.utterances) for p in manifest.partitions)
    if starts.shape != (utterances + 1,) or starts.dtype != np.int64 or not utterances:
        raise DataError(
            f"{offsets}: holds {starts.dtype} {list(starts.shape)}, its corpus has {utterances} utterances; "
            "pack the corpus again"
        )
    frames_header, labels_header = read_header(frames), read_header(labels)
    expected = (
        (frames, frames_header.shape[:1], frames_header.dtype, (int(starts[-1]),), np.dtype(manifest.dtype)),
        (
            labels,
            labels_header.shape,
            labels_header.dtype,
            (int(starts[-1]),),
            manifest.inventory.label_dtype,
        ),
    )
    for path, shape, dtype, right_shape, right_dtype in expected:
        if shape != right_shape or dtype != right_dtype:
            raise DataError(
                f"{path}: holds {dtype} {list(shape)}, its corpus says {right_dtype} {list(right_shape)}; "
                "pack the corpus again"
            )
    if len(frames_header.shape) != 2 or starts[0] != 0 or (np.diff(starts) < 1).any():
        raise DataError(f"{folder}: its offsets and frames do not fit each other; pack the corpus again")
    files = BlockFiles(*opened, frames_header.offset, labels_header.offset)
    return PackedArrays(map_array(frames, frames_header), map_array(labels, labels_header), starts, files)


def verify(folder: Path, progress: Callable[[str, int, int], object] = lambda *_: None) -> None:
    """Read a packed corpus whole and compare it with its checksums.

    Args:
        folder: the packed corpus.
        progress: told which file is read, how many MiB of it are done, and of how many.

    Raises:
        DataError: a file that is not the one that was packed.
    """
    for name, expected in Manifest.read(folder).sha256.items():
        path = folder / name
        try:
            digest, size = GrowingDigest(path), path.stat().st_size
            for end in range(0, size, _VERIFIED_AT_ONCE):
                digest.advance(end)
                progress(f"verifying {name}", end >> 20, size >> 20)
            digest.advance(size)
            found = digest.hexdigest()
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read ({error.strerror}); pack the corpus again") from error
        if found != expected:
            raise DataError(f"{folder / name}: its SHA-256 is not the one packed; pack the corpus again")


class GrowingDigest:
    """SHA-256 of a file that is written from its start on, taken while it grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._digest, self._read = path, hashlib.sha256(), 0

    def advance(self, end: int) -> None:
        """Take in all bytes up to `end` that were not taken in before."""
        block = memoryview(bytearray(_HASH_BLOCK))
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._read)
            while self._read < end and (count := file.readinto(block[: end - self._read])):
                self._digest.update(block[:count])
                self._read += count

    def hexdigest(self) -> str:
        """Return the digest so far."""
        return self._digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a whole file, in hexadecimal digits."""
    digest = GrowingDigest(path)
    digest.advance(path.stat().st_size)
    return digest.hexdigest()
