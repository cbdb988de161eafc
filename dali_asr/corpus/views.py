"""Blocks that show a part of another block: some of its utterances, or some of its labels. Nothing is copied.

Shape letters: `T` frames of an utterance, `F` frames of a block, `U` utterances of a block, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.checksums import checksums

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from dali_asr.corpus.blocks import Block


@dataclass(frozen=True, eq=False)
class _View:
    """What every part of a block has in common with it."""

    source: Block

    @property
    def labelled(self) -> bool:
        """Whether the frames have labels."""
        return self.source.labelled

    @property
    def feature_dim(self) -> int:
        """Features per frame, D."""
        return self.source.feature_dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the stored frames."""
        return self.source.dtype


@dataclass(frozen=True, eq=False)
class PickedBlock(_View):
    """Some utterances of a block.

    Attributes:
        source: the block.
        picked: numbers of its utterances, ascending, `[U]` int64.
    """

    picked: NDArray[np.int64]

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Start of each utterance and end of the last, in frames, `[U + 1]`."""
        lengths = np.diff(self.source.offsets)[self.picked]
        return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    @property
    def checksums(self) -> NDArray[np.uint64]:
        """Checksums of each utterance's frames and labels, `[U, 2]`."""
        found: NDArray[np.uint64] = self.source.checksums[self.picked]
        return found

    def read_frames_into(self, arrays: Sequence[NDArray[Any]], first: int) -> None:
        """Copy the frames of consecutive utterances, from utterance `first` on, into one `[T, D]` array each."""
        done = 0
        for low, high in self._runs(first, first + len(arrays)):
            self.source.read_frames_into(arrays[done : done + high - low], low)
            done += high - low

    def read_labels(self, first: int, end: int) -> NDArray[Any] | None:
        """Return the stored labels `[F]` of the utterances from `first` up to `end`; None in an unlabelled block."""
        if not self.labelled:
            return None
        parts = [self.source.read_labels(low, high) for low, high in self._runs(first, end)]
        return np.concatenate([part for part in parts if part is not None])

    def check_unchanged(self) -> None:
        """Check that the block's files are those that were opened."""
        self.source.check_unchanged()

    def _runs(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the bounds of runs of consecutive utterances in the source."""
        chosen = self.picked[first:end]
        for run in np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1):
            yield int(run[0]), int(run[-1]) + 1


@dataclass(frozen=True, eq=False)
class WithheldBlock(_View):
    """A block some of whose labels are withheld, as if these frames had none.

    Attributes:
        source: the block, which is labelled.
        withheld: which frames lose their label, `[F]` bool.
        unlabelled: what is stored for a frame without a label.
    """

    withheld: NDArray[np.bool_]
    unlabelled: int

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Start of each utterance and end of the last, in the frames of the source, `[U + 1]`."""
        return self.source.offsets

    @cached_property
    def checksums(self) -> NDArray[np.uint64]:
        """Checksums of each utterance's frames and of the labels that are left, `[U, 2]`."""
        found: NDArray[np.uint64] = self.source.checksums.copy()
        starts = self.offsets - self.offsets[0]
        for at, (low, high) in enumerate(pairwise(starts.tolist())):
            if self.withheld[low:high].any():
                (found[at, 1],) = checksums([self.read_labels(at, at + 1)])
        return found

    def read_frames_into(self, arrays: Sequence[NDArray[Any]], first: int) -> None:
        """Copy the frames of consecutive utterances, from utterance `first` on, into one `[T, D]` array each."""
        self.source.read_frames_into(arrays, first)

    def read_labels(self, first: int, end: int) -> NDArray[Any]:
        """Return the stored labels `[F]` of the utterances from `first` up to `end`."""
        start = self.offsets[0]
        labels = np.array(self.source.read_labels(first, end))
        labels[self.withheld[self.offsets[first] - start : self.offsets[end] - start]] = self.unlabelled
        return labels

    def check_unchanged(self) -> None:
        """Check that the block's files are those that were opened."""
        self.source.check_unchanged()
