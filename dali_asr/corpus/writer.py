"""Writing packed corpora: utterance by utterance, in memory that does not grow with the corpus.

Shape letters: `T` frames of an utterance, `F` frames of a corpus, `U` utterances, `D` features of a frame.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.normalize import Kind, Normalization, as_normalization
from dali_asr.corpus.npy import HEADER_SIZE, header_bytes
from dali_asr.corpus.packed import (
    FRAMES,
    LABELS,
    OFFSETS,
    STORED_DTYPES,
    GrowingDigest,
    Manifest,
    PartitionEntry,
    check_partition_name,
    file_sha256,
    is_packed,
)
from dali_asr.errors import DataError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Self

    from dali_asr.inventory import Inventory


@dataclass(frozen=True)
class ArrayWriter:
    """Writes utterances to their places in the arrays of a draft; several processes can, side by side.

    Attributes:
        folder: the draft.
        dest: where the corpus will lie, for messages.
        feature_dim: D.
        dtype: of the stored frames.
        inventory: the label set.
    """

    folder: Path
    dest: Path
    feature_dim: int
    dtype: np.dtype[Any]
    inventory: Inventory

    def write(self, first: int, frames: NDArray[Any], labels: NDArray[Any] | None) -> None:
        """Write an utterance's frames `[T, D]` and labels `[T]` (none: unlabelled) from frame `first` on.

        Raises:
            DataError: no space left, or another fault of the disk.
        """
        if labels is None:
            labels = np.full(len(frames), self.inventory.unlabelled)
        stored = np.ascontiguousarray(frames, self.dtype)
        narrow = labels.astype(self.inventory.label_dtype)
        self._pwrite(FRAMES, stored.data.cast("B"), HEADER_SIZE + first * self.feature_dim * stored.itemsize)
        self._pwrite(LABELS, narrow.data.cast("B"), HEADER_SIZE + first * narrow.itemsize)

    def write_headers(self, total: int) -> None:
        """Write the headers of arrays of `total` frames."""
        self._pwrite(FRAMES, memoryview(header_bytes((total, self.feature_dim), self.dtype)), 0)
        self._pwrite(LABELS, memoryview(header_bytes((total,), self.inventory.label_dtype)), 0)

    def fault(self, error: OSError) -> DataError:
        """Return the error to raise for a fault of the disk."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some, or store float16; nothing was kept"
            return DataError(f"{self.dest}: no space left on the device while packing; {remedy}")
        return DataError(f"{self.dest}: {error.strerror} while packing; nothing was kept, try another folder")

    def _pwrite(self, name: str, content: memoryview, offset: int) -> None:
        try:
            file = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                while content:
                    written = os.pwrite(file, content, offset)
                    content, offset = content[written:], offset + written
            finally:
                os.close(file)
        except OSError as error:
            raise self.fault(error) from error


class PackedDraft:
    """A packed corpus under way, in a folder beside its place.

    Args:
        dest: where the corpus will lie.
        feature_dim: D.
        dtype: of the stored frames.
        inventory: the label set.
        overwrite: whether a packed corpus at `dest` is replaced.

    Raises:
        UsageError: `dest` exists.
        DataError: its folder cannot be written.
    """

    def __init__(self, dest: Path, *, feature_dim: int, dtype: str, inventory: Inventory, overwrite: bool) -> None:
        check_destination(dest, overwrite=overwrite)
        folder = dest.with_name(f".{dest.name}.{secrets.token_hex(4)}.partial")
        self.arrays = ArrayWriter(folder, dest, feature_dim, np.dtype(dtype), inventory)
        self._overwrite = overwrite
        self._digests = {name: GrowingDigest(folder / name) for name in (FRAMES, LABELS)}
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise self.arrays.fault(error) from error

    def digest(self, frames: int) -> None:
        """Take the checksums of headers and the first `frames` frames, which must be in their places.

        Called while packing goes on, it finds them in the page cache, and little is left to read at the end.
        """
        arrays = self.arrays
        frame_bytes = arrays.feature_dim * arrays.dtype.itemsize
        self._digests[FRAMES].advance(HEADER_SIZE + frames * frame_bytes)
        self._digests[LABELS].advance(HEADER_SIZE + frames * arrays.inventory.label_dtype.itemsize)

    def finish(
        self,
        offsets: NDArray[np.int64],
        partitions: tuple[PartitionEntry, ...],
        normalization: Normalization,
    ) -> None:
        """Write headers, offsets and the manifest, and move the folder to its place."""
        arrays = self.arrays
        arrays.write_headers(int(offsets[-1]))
        try:
            np.save(arrays.folder / OFFSETS, offsets)
            self.digest(int(offsets[-1]))
            sha256 = {name: digest.hexdigest() for name, digest in self._digests.items()}
            sha256[OFFSETS] = file_sha256(arrays.folder / OFFSETS)
            manifest = Manifest(arrays.dtype.name, normalization, arrays.inventory, partitions, sha256)
            manifest.write(arrays.folder)
            replace_folder(arrays.folder, arrays.dest, overwrite=self._overwrite)
        except OSError as error:
            raise arrays.fault(error) from error

    def discard(self) -> None:
        """Remove all that was written."""
        shutil.rmtree(self.arrays.folder, ignore_errors=True)


class PackedWriter:
    """Write a packed corpus utterance by utterance, in memory that does not grow with the corpus.

    Args:
        dest: the folder to write; it appears when the `with` block ends without an error.
        inventory: the label set.
        normalization: `none`, `utterance`, or a `Normalization` with statistics, applied to what is added.
        dtype: of the stored frames, `float32` or `float16`.
        overwrite: whether a packed corpus at `dest` is replaced.

    Raises:
        UsageError: `dest` exists, or the dtype is not stored.

    Example:
        with PackedWriter("corpus", inventory=Inventory(("silence", "speech"))) as writer:
            writer.add("train", "recording-1", frames, labels)
    """

    def __init__(
        self,
        dest: str | Path,
        *,
        inventory: Inventory,
        normalization: Kind | Normalization = "none",
        dtype: str = "float32",
        overwrite: bool = False,
    ) -> None:
        check_stored_dtype(dtype)
        self.dest, self.inventory, self.dtype = Path(dest), inventory, dtype
        self.normalization = as_normalization(normalization)
        self._overwrite = overwrite
        check_destination(self.dest, overwrite=overwrite)
        self._open = False
        self._draft: PackedDraft | None = None
        self._offsets = [0]
        self._names: dict[str, dict[str, None]] = {}  # of utterances by partition, in order
        self._labelled: dict[str, bool] = {}

    def add(self, partition: str, utterance: str, frames: ArrayLike, labels: ArrayLike | None = None) -> None:
        """Append an utterance.

        Args:
            partition: its partition; one partition's utterances are added one after another.
            utterance: its name.
            frames: `[T, D]`, floating point, D as in the utterances before.
            labels: `[T]` integers, indices into the inventory, −100 where a frame has none; none at all for
                a whole partition without labels.

        Raises:
            DataError: names, shapes or values that do not fit, or a fault of the disk.
            UsageError: outside the `with` block.
        """
        if not self._open:
            raise UsageError(f"{self.dest}: the writer is not open; add utterances inside its with block")
        where = f"{partition}/{utterance}"
        features, encoded = check_utterance(where, frames, labels, self.inventory)
        arrays = self._open_draft(features.shape[1]).arrays
        if features.shape[1] != arrays.feature_dim:
            raise DataError(
                f"{where}: {features.shape[1]} features a frame, {arrays.feature_dim} in the utterances before"
            )
        self.normalization.check(where, features.shape[1])
        self._check_place(partition, utterance, where, labelled=encoded is not None)
        stored = store(where, self.normalization.apply(features), arrays.dtype)
        arrays.write(self._offsets[-1], stored, encoded)
        self._names.setdefault(partition, {})[utterance] = None
        self._labelled[partition] = encoded is not None
        self._offsets.append(self._offsets[-1] + len(stored))

    def __enter__(self) -> Self:
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if kind is not None:
            if self._draft:
                self._draft.discard()
            return
        if not self._draft:
            raise DataError(f"{self.dest}: no utterance was added; a corpus needs at least one")
        entries = tuple(PartitionEntry(n, tuple(u), self._labelled[n]) for n, u in self._names.items())
        try:
            self._draft.finish(np.array(self._offsets, np.int64), entries, self.normalization)
        except BaseException:
            self._draft.discard()
            raise

    def _open_draft(self, feature_dim: int) -> PackedDraft:
        if self._draft is None:
            self._draft = PackedDraft(
                self.dest,
                feature_dim=feature_dim,
                dtype=self.dtype,
                inventory=self.inventory,
                overwrite=self._overwrite,
            )
        return self._draft

    def _check_place(self, partition: str, utterance: str, where: str, *, labelled: bool) -> None:
        check_partition_name(partition)
        if partition not in self._names:
            return
        if utterance in self._names[partition]:
            raise DataError(f"{where}: was added before; every utterance of a partition needs a name of its own")
        if partition != next(reversed(self._names)):
            raise DataError(f"{where}: partition {partition} was left for another; add it in one go")
        if self._labelled[partition] != labelled:
            state = "labels" if labelled else "no labels"
            raise DataError(f"{where}: has {state}, unlike the utterances before it in {partition}")


def check_stored_dtype(dtype: str) -> None:
    """Refuse a dtype that frames are not stored in.

    Raises:
        UsageError: neither `float32` nor `float16`.
    """
    if dtype not in STORED_DTYPES:
        raise UsageError(f"dtype {dtype!r}; frames are stored as {' or '.join(STORED_DTYPES)}")


def check_utterance(
    where: str, frames: ArrayLike, labels: ArrayLike | None, inventory: Inventory
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Check an utterance given as arrays; return frames and labels, −100 as the inventory's `unlabelled`.

    Raises:
        DataError: shapes, dtypes or values that do not fit.
    """
    features = np.asarray(frames)
    if features.ndim != 2 or 0 in features.shape or features.dtype.kind != "f":
        raise DataError(f"{where}: {features.dtype} {list(features.shape)}; frames must be floats [T, D]")
    if not np.isfinite(features).all():
        raise DataError(f"{where}: frames hold NaN or infinity; mend or zero them first")
    if labels is None:
        return features, None
    given = np.asarray(labels)
    if given.shape != features.shape[:1] or given.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels are {given.dtype} {list(given.shape)}; expected integers [{len(features)}], one a frame"
        )
    encoded = given.astype(np.int64)
    absent = encoded == -100
    wrong = ((encoded < 0) | (encoded >= len(inventory))) & ~absent
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(
            f"{where}: label {encoded[at]} at frame {at}; the inventory has labels 0 to {len(inventory) - 1}"
        )
    encoded[absent] = inventory.unlabelled
    return features, encoded


def store(where: str, frames: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round normalized frames `[T, D]` to their storage dtype, once.

    Raises:
        DataError: a value beyond the range of the dtype.
    """
    with np.errstate(over="ignore"):
        stored = frames.astype(dtype)
    if not np.isfinite(stored).all():
        remedy = "store float32, or normalize" if dtype == np.float16 else "mend the file, or normalize"
        raise DataError(f"{where}: {np.abs(frames).max():g} does not fit {dtype}; {remedy}")
    return stored


def check_destination(dest: Path, *, overwrite: bool) -> None:
    """Refuse a destination that exists, unless it is a packed corpus that may be overwritten.

    Raises:
        UsageError: it exists.
    """
    if not dest.exists() and not dest.is_symlink():
        return
    if not overwrite:
        raise UsageError(f"{dest}: exists; choose another place, or overwrite it (--force)")
    if not is_packed(dest):
        raise UsageError(f"{dest}: exists and is no packed corpus, so it is not overwritten; choose another place")


def replace_folder(folder: Path, dest: Path, *, overwrite: bool) -> None:
    """Rename a folder to `dest`; what was there is moved aside first and then removed, or put back."""
    check_destination(dest, overwrite=overwrite)
    if not dest.exists():
        folder.rename(dest)
        return
    aside = folder.with_suffix(".replaced")
    dest.rename(aside)
    try:
        folder.rename(dest)
    except BaseException:
        aside.rename(dest)
        raise
    shutil.rmtree(aside, ignore_errors=True)
