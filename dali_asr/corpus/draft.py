"""Drafts of packed corpora: written next to their destination, by one or several processes, and then renamed.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

import io
import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.checksums import Digest, checksum, checksum_digits
from dali_asr.corpus.npy import HEADER_SIZE, header_bytes
from dali_asr.corpus.packed import CHECKSUMS, FRAMES, LABELS, MANIFEST, OFFSETS, Manifest, PartitionEntry, is_packed
from dali_asr.errors import UsageError
from dali_asr.files import disk_errors, new_folder, sweep

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.corpus.normalize import Normalization
    from dali_asr.inventory import Inventory

_REMEDY = "choose another place"


@dataclass(frozen=True)
class PackedDraft:
    """A packed corpus that is being written; several processes can write utterances at once.

    Attributes:
        folder: where it is written.
        dest: where the corpus will be, for error messages.
        feature_dim: features per frame, D.
        dtype: of the stored frames.
        inventory: the label set.
    """

    folder: Path
    dest: Path
    feature_dim: int
    dtype: np.dtype[Any]
    inventory: Inventory

    def write(self, first: int, frames: Iterable[NDArray[Any]], labels: NDArray[Any] | None) -> tuple[int, int]:
        """Write an utterance and return the checksums of its frames and labels.

        Args:
            first: row of its first frame.
            frames: blocks `[T_i, D]` of its frames, in order.
            labels: `[T]`, or None in an unlabelled partition.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        digest, length = self.write_frames(first, frames)
        return digest, self.write_labels(first, length, labels)

    def write_frames(self, first: int, frames: Iterable[NDArray[Any]]) -> tuple[int, int]:
        """Write the frames of an utterance, as `write`, and return their checksum and number."""
        digest, row = Digest(), first
        for block in frames:
            stored = np.ascontiguousarray(block, self.dtype)
            self.write_at(FRAMES, stored.data.cast("B"), self.frame_offset(row))
            digest.update(stored.data)
            row += len(stored)
        return digest.intdigest(), row - first

    def write_labels(self, first: int, length: int, labels: NDArray[Any] | None, name: str = LABELS) -> int:
        """Write the labels of an utterance and return their checksum.

        Args:
            first: row of its first frame.
            length: number of frames, T.
            labels: `[T]`, or None in an unlabelled partition.
            name: of the file to write.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        labels = np.full(length, self.inventory.unlabelled) if labels is None else labels
        narrow = labels.astype(self.inventory.label_dtype)
        self.write_at(name, narrow.data.cast("B"), self.label_offset(first))
        return checksum(narrow)

    def frame_offset(self, row: int) -> int:
        """Return where a row is in the file of frames, in bytes."""
        return HEADER_SIZE + row * self.feature_dim * self.dtype.itemsize

    def label_offset(self, row: int) -> int:
        """Return where a row is in the file of labels, in bytes."""
        return HEADER_SIZE + row * self.inventory.label_dtype.itemsize

    def finish(
        self,
        lengths: Sequence[int],
        checksums: Sequence[tuple[int, int]],
        partitions: tuple[PartitionEntry, ...],
        normalization: Normalization,
        features: dict[str, Any] | None = None,
        recordings_folder: Path | None = None,
        label_shift: float = 0.0,
    ) -> None:
        """Write headers, offsets, checksums and the manifest, in the order of the utterances.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        total = int(offsets[-1])
        self.write_at(FRAMES, memoryview(header_bytes((total, self.feature_dim), self.dtype)), 0)
        self.write_at(LABELS, memoryview(header_bytes((total,), self.inventory.label_dtype)), 0)
        small = {OFFSETS: _npy_bytes(offsets), CHECKSUMS: _npy_bytes(np.array(checksums, np.uint64))}
        digits = {name: checksum_digits(content) for name, content in small.items()}
        manifest = Manifest(
            self.dtype.name, normalization, self.inventory, partitions, digits, features, recordings_folder, label_shift
        )
        for name, content in (small | {MANIFEST: manifest.to_bytes()}).items():
            self.write_at(name, memoryview(content), 0)

    def write_at(self, name: str, content: memoryview, offset: int) -> None:
        """Write bytes into a file of the draft.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        with disk_errors(self.dest, _REMEDY):
            file = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                while content:
                    written = os.pwrite(file, content, offset)
                    content, offset = content[written:], offset + written
            finally:
                os.close(file)


@contextmanager
def new_draft(
    dest: Path, *, feature_dim: int, dtype: str, inventory: Inventory, overwrite: bool
) -> Iterator[PackedDraft]:
    """Open a draft that takes its place at `dest` when the block ends without an error.

    Drafts that killed processes left beside `dest` are removed.

    Raises:
        UsageError: `dest` exists.
        DataError: the disk is full or cannot be written.
    """
    check_destination(dest, overwrite=overwrite)
    sweep(dest.parent)
    with ExitStack() as stack:
        with disk_errors(dest, _REMEDY):
            folder = stack.enter_context(new_folder(dest, flush=False))
        yield PackedDraft(folder, dest, feature_dim, np.dtype(dtype), inventory)
        check_destination(dest, overwrite=overwrite)  # another process may have made it since
        with disk_errors(dest, _REMEDY):
            stack.close()


def check_destination(dest: Path, *, overwrite: bool) -> None:
    """Check that a packed corpus can be written at `dest`: nothing is there, or one that may be overwritten.

    Raises:
        UsageError: something is there.
        DataError: the folder of `dest` cannot be accessed.
    """
    with disk_errors(dest, _REMEDY):
        if not dest.exists() and not dest.is_symlink():
            return
    if not overwrite:
        raise UsageError(f"{dest}: exists; choose another place, or overwrite it (overwrite=True)")
    if not is_packed(dest):
        raise UsageError(f"{dest}: exists and is not a packed corpus, so it is not overwritten; choose another place")


def _npy_bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
