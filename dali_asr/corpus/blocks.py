"""Blocks: consecutive utterances whose data lies together, in memory or in the files of a packed corpus.

Shape letters: `T` frames of an utterance, `F` frames of a block, `U` utterances of a block, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dali_asr.corpus.checksums import checksums
from dali_asr.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.corpus.npy import NpyFile
    from dali_asr.corpus.regular import Verify

FRAMES_COLUMN, LABELS_COLUMN = 0, 1  # of checksums


class Block(Protocol):
    """Consecutive utterances whose data lies together."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Start of each utterance and end of the last, in frames, `[U + 1]`."""

    @property
    def labelled(self) -> bool:
        """Whether the frames have labels."""

    @property
    def feature_dim(self) -> int:
        """Features per frame, D."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the stored frames."""

    @property
    def checksums(self) -> NDArray[np.uint64]:
        """Checksums of each utterance's frames and labels, `[U, 2]`; the labels' are 0 in an unlabelled block."""

    def read_frames_into(self, arrays: Sequence[NDArray[Any]], first: int) -> None:
        """Copy the frames of consecutive utterances, from utterance `first` on, into one `[T, D]` array each."""

    def read_labels(self, first: int, end: int) -> NDArray[Any] | None:
        """Return the stored labels `[F]` of the utterances from `first` up to `end`; None in an unlabelled block."""

    def check_unchanged(self) -> None:
        """Check that the block's files are those that were opened."""


@dataclass(frozen=True, eq=False)
class MemoryBlock:
    """A block in memory.

    Attributes:
        offsets: start of each utterance and end of the last, `[U + 1]` int64.
        frames: `[F, D]` float16 or float32.
        labels: `[F]` in the inventory's `label_dtype`; None if there are none.
    """

    offsets: NDArray[np.int64]
    frames: NDArray[Any]
    labels: NDArray[Any] | None

    @property
    def labelled(self) -> bool:
        """Whether the frames have labels."""
        return self.labels is not None

    @property
    def feature_dim(self) -> int:
        """Features per frame, D."""
        return int(self.frames.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the frames."""
        return self.frames.dtype

    @cached_property
    def checksums(self) -> NDArray[np.uint64]:
        """Checksums of each utterance's frames and labels, `[U, 2]`; computed on first use."""
        rows = [slice(*bounds) for bounds in pairwise(self.offsets.tolist())]
        of_frames = checksums(np.ascontiguousarray(self.frames[part]) for part in rows)
        of_labels = [0] * len(rows)
        if self.labels is not None:
            labels = np.ascontiguousarray(self.labels)
            of_labels = checksums(labels[part] for part in rows)
        both: NDArray[np.uint64] = np.array([of_frames, of_labels], np.uint64).T
        return both

    def read_frames_into(self, arrays: Sequence[NDArray[Any]], first: int) -> None:
        """Copy the frames of consecutive utterances, from utterance `first` on, into one `[T, D]` array each."""
        row = int(self.offsets[first])
        for array in arrays:
            array[...] = self.frames[row : row + len(array)]
            row += len(array)

    def read_labels(self, first: int, end: int) -> NDArray[Any] | None:
        """Return the labels `[F]` of the utterances from `first` up to `end`."""
        return None if self.labels is None else self.labels[self.offsets[first] : self.offsets[end]]

    def check_unchanged(self) -> None:
        """Do nothing: memory has no files."""


@dataclass(frozen=True, eq=False)
class PackedBlock:
    """A block in the files of a packed corpus; every read is compared with the checksums.

    Attributes:
        utterances: names `[U]`, for error messages.
        offsets: start of each utterance and end of the last, in rows of the files; `[U + 1]` int64.
        packed_checksums: of each utterance's frames and labels, `[U, 2]` uint64.
        frames: the file of frames.
        labels: the file of labels.
        labelled: whether the frames have labels.
    """

    utterances: Sequence[str]
    offsets: NDArray[np.int64]
    packed_checksums: NDArray[np.uint64]
    frames: NpyFile
    labels: NpyFile
    labelled: bool

    @property
    def feature_dim(self) -> int:
        """Features per frame, D."""
        return self.frames.header.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the stored frames."""
        return self.frames.header.dtype

    @property
    def checksums(self) -> NDArray[np.uint64]:
        """Checksums of each utterance's frames and labels, `[U, 2]`; the labels' are 0 in an unlabelled block."""
        return self.packed_checksums * np.array([1, int(self.labelled)], np.uint64)

    def read_frames_into(self, arrays: Sequence[NDArray[Any]], first: int) -> None:
        """Read the frames of consecutive utterances, from utterance `first` on, into one `[T, D]` array each.

        Raises:
            DataError: the file changed since it was opened, or an utterance is damaged.
        """
        verify = self._verifier(self.frames.path, first, len(arrays), FRAMES_COLUMN)
        self.frames.read_rows_into(arrays, int(self.offsets[first]), verify)

    def read_labels(self, first: int, end: int) -> NDArray[Any] | None:
        """Read the stored labels `[F]` of the utterances from `first` up to `end`.

        Raises:
            DataError: as `read_frames_into`.
        """
        if not self.labelled:
            return None
        starts = self.offsets[first : end + 1] - self.offsets[first]
        stored = np.empty(int(starts[-1]), self.labels.header.dtype)
        rows = [stored[low:high] for low, high in pairwise(starts.tolist())]
        verify = self._verifier(self.labels.path, first, end - first, LABELS_COLUMN)
        self.labels.read_rows_into(rows, int(self.offsets[first]), verify)
        return stored

    def check_unchanged(self) -> None:
        """Check that the files are those that were opened, by inode, size and time of change.

        Raises:
            DataError: one of them is not.
        """
        self.frames.file.check_unchanged()
        self.labels.file.check_unchanged()

    def _verifier(self, path: Path, first: int, count: int, column: int) -> Verify:
        """Return what compares `count` utterances, from `first` on, with their checksums."""
        expected = self.packed_checksums[first : first + count, column].tolist()

        def verify(start: int, arrays: Sequence[NDArray[Any]]) -> None:
            found = checksums(arrays)
            if found != expected[start : start + len(arrays)]:
                damaged = next(at for at, (a, b) in enumerate(zip(found, expected[start:], strict=False)) if a != b)
                raise DataError(
                    f"{path}: utterance {self.utterances[first + start + damaged]} is damaged (checksum differs); "
                    "pack the corpus again, or delete it if it is in the cache"
                )

        return verify
