"""A partition: utterances in order, as one run of frame numbers.

Shape letters: `T` frames of an utterance, `F` frames of a partition, `U` utterances, `D` features of a frame.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import DTypeLike, NDArray

    from dali_asr.corpus.npy import OpenedFile
    from dali_asr.inventory import Inventory

FRAME_PERIOD = 0.010  # seconds
NO_LABEL = -100  # torch's ignore_index


@dataclass(frozen=True)
class BlockFiles:
    """Where a block of frames and its labels lie on the disk.

    Attributes:
        frames: the file of frames.
        labels: the file of labels.
        frames_offset: bytes before the block's first frame.
        labels_offset: bytes before its first label.
    """

    frames: OpenedFile
    labels: OpenedFile
    frames_offset: int
    labels_offset: int

    def from_row(self, row: int, frames: NDArray[Any], labels: NDArray[Any]) -> BlockFiles:
        """Return the block that begins at a row of this one, which holds `frames` and `labels`."""
        frames_offset = self.frames_offset + row * frames.shape[1] * frames.itemsize
        return replace(self, frames_offset=frames_offset, labels_offset=self.labels_offset + row * labels.itemsize)


@dataclass(frozen=True, eq=False)
class Partition:
    """A named set of utterances; several partitions joined are a partition too.

    Attributes:
        name: `train-clean-100`, or several joined by `+`.
        inventory: what labels index.
        utterances: names `[U]`.
        lengths: frames of each utterance, `[U]` int64.
        blocks: normalized frames, `[F_i, D]` float16 or float32 each, mapped or in memory; a block holds
            whole utterances.
        label_blocks: of each block `[F_i]` in the inventory's `label_dtype`, or None where no frame has a label.
        files: of each block, or None where it is in memory alone.
        checksum: of frames, labels and offsets, where it is known without reading them.
    """

    name: str
    inventory: Inventory
    utterances: tuple[str, ...]
    lengths: NDArray[np.int64]
    blocks: tuple[NDArray[Any], ...]
    label_blocks: tuple[NDArray[Any] | None, ...]
    files: tuple[BlockFiles | None, ...]
    checksum: str | None = None

    def __repr__(self) -> str:
        return f"Partition({self.name!r}, {len(self.utterances)} utterances, {self.frame_count} frames)"

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where utterances begin and end, in frame numbers, `[U + 1]`."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @property
    def frame_count(self) -> int:
        """F."""
        return int(self.offsets[-1])

    @property
    def feature_dim(self) -> int:
        """D."""
        return int(self.blocks[0].shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored frames, float16 or float32."""
        return self.blocks[0].dtype

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return any(block is not None for block in self.label_blocks)

    @property
    def hours(self) -> float:
        """Duration, at 10 ms a frame."""
        return self.frame_count * FRAME_PERIOD / 3600

    @cached_property
    def fingerprint(self) -> str:
        """What tells this partition from every other: a SHA-256 of its data, in hexadecimal digits.

        Of a packed corpus it follows from the checksums that were packed; frames in memory are read once.
        """
        digest = hashlib.sha256(f"{self.name}\n{self.checksum}\n{len(self.inventory)}\n".encode())
        if self.checksum is None:
            for array in (self.lengths, *self.blocks, *(b for b in self.label_blocks if b is not None)):
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def packed_files(self) -> tuple[OpenedFile, ...]:
        """The files of frames and labels, each once; none where all is in memory."""
        return tuple(dict.fromkeys(file for files in self.files if files for file in (files.frames, files.labels)))

    def check_unchanged(self) -> None:
        """Check that the files are still those that were opened.

        Raises:
            DataError: one of them is not.
        """
        for file in self.packed_files:
            file.check_unchanged()

    def frames(self) -> Iterator[NDArray[Any]]:
        """Yield the frames `[T, D]` of each utterance, in order."""
        block, start = 0, 0
        for length in self.lengths.tolist():
            if start == len(self.blocks[block]):
                block, start = block + 1, 0
            yield self.blocks[block][start : start + length]
            start += length

    def read_into(self, arrays: Sequence[NDArray[Any]], first: int) -> None:
        """Copy the frames of consecutive utterances, from the utterance `first` on, into one `[T, D]` each.

        Raises:
            DataError: the corpus changed since it was opened.
        """
        at, done = int(self.offsets[first]), 0
        ends = self.offsets[first + 1 : first + 1 + len(arrays)]
        for begin, block, files in zip(self._block_starts.tolist(), self.blocks, self.files, strict=False):
            count = int(np.searchsorted(ends, begin + len(block), side="right")) - done
            if count <= 0 or begin + len(block) <= at:
                continue
            mine, row = arrays[done : done + count], at - begin
            if files:
                files.frames.read_into(mine, files.frames_offset + row * block.shape[1] * block.itemsize)
            else:
                for array in mine:
                    array[...] = block[row : row + len(array)]
                    row += len(array)
            done += count
            at = int(ends[done - 1])

    def labels(self, first: int = 0, end: int | None = None, dtype: DTypeLike = np.int64) -> NDArray[Any] | None:
        """Return labels of the frames from `first` up to `end`, −100 where a frame has none.

        Args:
            first: frame number.
            end: frame number; None for all that follow.
            dtype: signed, of the result.

        Returns:
            `[F]`; None in an unlabelled partition.

        Raises:
            DataError: a label beyond the inventory.
        """
        if not self.labelled:
            return None
        end = self.frame_count if end is None else end
        labels = np.full(end - first, NO_LABEL, dtype)
        for at, start in enumerate(self._block_starts[:-1].tolist()):
            low, high = max(first - start, 0), min(end - start, len(self.blocks[at]))
            if low < high:
                self._fill(labels[start + low - first : start + high - first], self._stored_labels(at, low, high))
        return labels

    def _stored_labels(self, at: int, low: int, high: int) -> NDArray[Any] | None:
        """Return a part of a block's labels, as they are stored."""
        block, files = self.label_blocks[at], self.files[at]
        if block is None or files is None:
            return None if block is None else block[low:high]
        stored = np.empty(high - low, block.dtype)
        files.labels.read_into([stored], files.labels_offset + low * block.itemsize)
        return stored

    def _fill(self, labels: NDArray[Any], stored: NDArray[Any] | None) -> None:
        if stored is None:
            return
        present = stored != self.inventory.unlabelled
        wrong = present & (stored >= len(self.inventory))
        if wrong.any():
            raise DataError(
                f"{self.name}: label {stored[wrong][0]} in a corpus whose inventory has {len(self.inventory)} symbols; "
                "it is damaged, pack it again"
            )
        np.copyto(labels, stored, where=present, casting="unsafe")

    @cached_property
    def _block_starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum([len(block) for block in self.blocks])])


def join(partitions: Sequence[Partition]) -> Partition:
    """Join partitions of one corpus into one, in the order given.

    Raises:
        UsageError: none was given, or one of them twice.
        DataError: they do not share inventory, D or dtype.
    """
    names = [p.name for p in partitions]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"partitions {names}: give at least one, and none twice")
    if len(partitions) == 1:
        return partitions[0]
    for a, b in pairwise(partitions):
        if (a.inventory, a.feature_dim, a.dtype) != (b.inventory, b.feature_dim, b.dtype):
            raise DataError(f"{a.name} and {b.name} differ in inventory, features or dtype; they cannot be joined")
    checksums = [p.checksum for p in partitions]
    return Partition(
        "+".join(names),
        partitions[0].inventory,
        tuple(u for p in partitions for u in p.utterances),
        np.concatenate([p.lengths for p in partitions]),
        tuple(block for p in partitions for block in p.blocks),
        tuple(block for p in partitions for block in p.label_blocks),
        tuple(files for p in partitions for files in p.files),
        None if None in checksums else " ".join(str(checksum) for checksum in checksums),
    )
