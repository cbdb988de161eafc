"""A partition: utterances in order; their frames are numbered consecutively from 0.

Shape letters: `T` frames of an utterance, `F` frames of a partition, `U` utterances, `D` features of a frame.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.blocks import MemoryBlock
from dali_asr.corpus.origins import Origins, join_origins
from dali_asr.corpus.views import PickedBlock, WithheldBlock
from dali_asr.errors import DataError, UsageError
from dali_asr.segments import NO_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from dali_asr.corpus.blocks import Block
    from dali_asr.inventory import Inventory

FRAME_PERIOD = 0.010  # seconds


@dataclass(frozen=True, eq=False)
class Partition:
    """A named set of utterances. Several partitions joined are a partition too.

    Attributes:
        name: such as `train-clean-100`; of joined partitions, their names joined by `+`.
        inventory: the label set.
        utterances: names `[U]`.
        blocks: where the data lies, in memory or in files; together they hold the utterances in order.
        origins: speakers and recordings of the utterances, as far as they are known.
    """

    name: str
    inventory: Inventory
    utterances: tuple[str, ...]
    blocks: tuple[Block, ...]
    origins: Origins = field(default_factory=Origins)

    @classmethod
    def from_memory(
        cls,
        name: str,
        inventory: Inventory,
        utterances: Sequence[str],
        lengths: NDArray[np.int64],
        frames: NDArray[Any],
        labels: NDArray[Any] | None = None,
    ) -> Partition:
        """Make a partition of arrays, which are not copied.

        Args:
            name: of the partition.
            inventory: the label set.
            utterances: names `[U]`.
            lengths: frames per utterance, `[U]`.
            frames: `[F, D]` float16 or float32, normalized, utterance after utterance.
            labels: `[F]` in the inventory's `label_dtype`, its `unlabelled` where a frame has none; None if there
                are no labels at all.
        """
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(name, inventory, tuple(utterances), (MemoryBlock(offsets, frames, labels),))

    def astype(self, dtype: DTypeLike) -> Partition:
        """Return this partition with all of its frames in memory, rounded to another dtype."""
        frames = np.empty((self.frame_count, self.feature_dim), dtype)
        for (start, end), utterance in zip(pairwise(self.offsets.tolist()), self.frames(), strict=True):
            frames[start:end] = utterance
        labels = None
        if self.labelled:
            labels = self._encoded(self.labels())
        made = Partition.from_memory(self.name, self.inventory, self.utterances, self.lengths, frames, labels)
        return replace(made, origins=self.origins)

    def pick(self, utterances: ArrayLike) -> Partition:
        """Return a partition of some utterances, in the order of this one; its frames are numbered anew.

        Args:
            utterances: their numbers, each once.

        Raises:
            UsageError: none is given, or one that the partition does not have.
        """
        picked = np.unique(np.asarray(utterances, np.int64))
        if not len(picked) or picked[0] < 0 or picked[-1] >= len(self.utterances):
            raise UsageError(f"{self.name}: pick takes at least one utterance of 0 to {len(self.utterances) - 1}")
        blocks: list[Block] = []
        start = 0
        for block in self.blocks:
            end = start + len(block.offsets) - 1
            inside = picked[(picked >= start) & (picked < end)] - start
            blocks += [PickedBlock(block, inside)] if len(inside) else []
            start = end
        names = tuple(self.utterances[number] for number in picked)
        return Partition(self.name, self.inventory, names, tuple(blocks), self.origins.pick(picked))

    def withhold(self, frames: NDArray[np.bool_]) -> Partition:
        """Return this partition with the labels of some frames withheld, as if they had none.

        Args:
            frames: which frames lose their label, `[F]`.
        """
        blocks: list[Block] = []
        start = 0
        for block in self.blocks:
            end = start + int(block.offsets[-1] - block.offsets[0])
            part = frames[start:end]
            blocks.append(WithheldBlock(block, part, self.inventory.unlabelled) if block.labelled else block)
            start = end
        return replace(self, blocks=tuple(blocks))

    def __repr__(self) -> str:
        return f"Partition({self.name!r}, {len(self.utterances)} utterances, {self.frame_count} frames)"

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Frames per utterance, `[U]`."""
        return np.concatenate([np.diff(block.offsets) for block in self.blocks])

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Number of each utterance's first frame, and F; `[U + 1]`."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @property
    def frame_count(self) -> int:
        """Number of frames, F."""
        return int(self.offsets[-1])

    @property
    def feature_dim(self) -> int:
        """Features per frame, D."""
        return self.blocks[0].feature_dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the stored frames, float16 or float32."""
        return self.blocks[0].dtype

    @property
    def labelled(self) -> bool:
        """Whether any utterance has labels."""
        return any(block.labelled for block in self.blocks)

    @property
    def hours(self) -> float:
        """Duration in hours, at 10 ms per frame."""
        return self.frame_count * FRAME_PERIOD / 3600

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the content: a SHA-256 of name, inventory, shapes and checksums, in hexadecimal digits.

        A packed corpus stores its checksums. Those of frames in memory are computed on first use.
        """
        about = (self.name, self.inventory.symbols, self.feature_dim, self.dtype.name)
        digest = hashlib.sha256(repr(about).encode())
        digest.update(self.lengths.tobytes())
        for block in self.blocks:
            digest.update(block.checksums.tobytes())
        return digest.hexdigest()

    def utterance_of(self, frame_ids: ArrayLike) -> NDArray[np.int64]:
        """Return the number of the utterance that each frame belongs to, an index into `utterances`.

        Args:
            frame_ids: numbers of frames within the partition, such as those of a batch (on the CPU).

        Raises:
            UsageError: a number is outside the partition.
        """
        frames = np.asarray(frame_ids)
        if frames.size and not 0 <= frames.min() <= frames.max() < self.frame_count:
            wrong = frames[(frames < 0) | (frames >= self.frame_count)].flat[0]
            raise UsageError(f"{self.name}: frame {wrong}; the partition has frames 0 to {self.frame_count - 1}")
        found: NDArray[np.int64] = np.searchsorted(self.offsets, frames, side="right") - 1
        return found

    def check_unchanged(self) -> None:
        """Check that the files are those that were opened, by inode, size and time of change.

        Raises:
            DataError: one of them is not.
        """
        for block in self.blocks:
            block.check_unchanged()

    def frames(self) -> Iterator[NDArray[Any]]:
        """Yield the frames `[T, D]` of each utterance, in order.

        Raises:
            DataError: the corpus changed since it was opened, or an utterance is damaged.
        """
        for at, length in enumerate(self.lengths.tolist()):
            utterance = np.empty((length, self.feature_dim), self.dtype)
            self.read_into([utterance], at)
            yield utterance

    def read_into(self, arrays: Sequence[NDArray[Any]], first: int) -> None:
        """Copy the frames of consecutive utterances, from utterance `first` on, into one `[T, D]` array each.

        The arrays are contiguous and of the partition's dtype. Several threads may call this at once; the GIL is
        released while data is read and verified.

        Raises:
            DataError: the corpus changed since it was opened, or an utterance is damaged.
        """
        done = 0
        for block, low, high in self._parts(first, first + len(arrays)):
            block.read_frames_into(arrays[done : done + high - low], low)
            done += high - low

    def labels(self, first: int = 0, end: int | None = None, dtype: DTypeLike = np.int64) -> NDArray[Any] | None:
        """Return the labels of the frames from `first` up to `end`, −100 where a frame has none.

        Args:
            first: number of the first frame.
            end: number of the frame after the last one; None for all frames from `first` on.
            dtype: of the result, a signed integer.

        Returns:
            `[F]`; None in an unlabelled partition.

        Raises:
            DataError: the corpus changed since it was opened, an utterance is damaged, or a label exceeds the
                inventory.
        """
        if not self.labelled:
            return None
        end = self.frame_count if end is None else end
        if first >= end:
            return np.empty(0, dtype)
        # Whole utterances are read, since the checksums are theirs.
        low = int(np.searchsorted(self.offsets, first, side="right")) - 1
        high = int(np.searchsorted(self.offsets, end, side="left"))
        start = at = int(self.offsets[low])
        labels = np.full(int(self.offsets[high]) - start, NO_LABEL, dtype)
        for block, block_first, block_end in self._parts(low, high):
            count = int(block.offsets[block_end] - block.offsets[block_first])
            stored = block.read_labels(block_first, block_end)
            if stored is not None:
                self._decode(stored, labels[at - start : at - start + count])
            at += count
        return labels[first - start : end - start]

    def _parts(self, first: int, end: int) -> Iterator[tuple[Block, int, int]]:
        """Yield the blocks of the utterances from `first` up to `end`, and the range of each block's utterances."""
        start = 0
        for block in self.blocks:
            count = len(block.offsets) - 1
            low, high = max(first - start, 0), min(end - start, count)
            if low < high:
                yield block, low, high
            start += count

    def _decode(self, stored: NDArray[Any], labels: NDArray[Any]) -> None:
        """Write stored labels over `labels`, which keeps its value where a frame has none."""
        present = stored != self.inventory.unlabelled
        wrong = present & (stored >= len(self.inventory))
        if wrong.any():
            raise DataError(
                f"{self.name}: label {stored[wrong][0]} in a corpus whose inventory has {len(self.inventory)} symbols; "
                "it is damaged, pack it again"
            )
        np.copyto(labels, stored, where=present, casting="unsafe")

    def _encoded(self, labels: NDArray[Any] | None) -> NDArray[Any]:
        """Return labels as they are stored."""
        assert labels is not None
        stored = np.where(labels == NO_LABEL, self.inventory.unlabelled, labels)
        return stored.astype(self.inventory.label_dtype)


def join(partitions: Sequence[Partition]) -> Partition:
    """Join partitions of one corpus in the order given.

    Raises:
        UsageError: none was given, or one of them twice.
        DataError: they differ in inventory, D or dtype.
    """
    names = [p.name for p in partitions]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"partitions {names}: name at least one, without duplicates")
    if len(partitions) == 1:
        return partitions[0]
    for a, b in pairwise(partitions):
        if (a.inventory, a.feature_dim, a.dtype) != (b.inventory, b.feature_dim, b.dtype):
            raise DataError(f"{a.name} and {b.name} differ in inventory, features or dtype; they cannot be joined")
    return Partition(
        "+".join(names),
        partitions[0].inventory,
        tuple(utterance for p in partitions for utterance in p.utterances),
        tuple(block for p in partitions for block in p.blocks),
        join_origins([p.origins for p in partitions], [len(p.utterances) for p in partitions]),
    )
