"""A partition: utterances in order, as one run of frame numbers.

Shape letters: `T` frames of an utterance, `F` frames of a partition, `U` utterances, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from dali_asr.inventory import Inventory

FRAME_PERIOD = 0.010  # seconds
NO_LABEL = -100  # torch's ignore_index


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
        stored_labels: `[F]` in the inventory's `label_dtype`; None where no frame has a label.
    """

    name: str
    inventory: Inventory
    utterances: tuple[str, ...]
    lengths: NDArray[np.int64]
    blocks: tuple[NDArray[Any], ...]
    stored_labels: NDArray[Any] | None

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
    def hours(self) -> float:
        """Duration, at 10 ms a frame."""
        return self.frame_count * FRAME_PERIOD / 3600

    def frames(self) -> Iterator[NDArray[Any]]:
        """Yield the frames `[T, D]` of each utterance, in order."""
        block, start = 0, 0
        for length in self.lengths.tolist():
            if start == len(self.blocks[block]):
                block, start = block + 1, 0
            yield self.blocks[block][start : start + length]
            start += length

    def labels(self, frames: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.int64] | None:
        """Return labels by frame number as int64, −100 where a frame has none; None in an unlabelled partition.

        Raises:
            DataError: a label beyond the inventory.
        """
        if self.stored_labels is None:
            return None
        stored = self.stored_labels[frames]
        absent = stored == self.inventory.unlabelled
        wrong = (stored >= len(self.inventory)) & ~absent
        if wrong.any():
            raise DataError(
                f"{self.name}: label {stored[wrong][0]} in a corpus whose inventory has {len(self.inventory)} symbols; "
                "it is damaged, pack it again"
            )
        labels = stored.astype(np.int64)
        labels[absent] = NO_LABEL
        return labels


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
    return Partition(
        "+".join(names),
        partitions[0].inventory,
        tuple(u for p in partitions for u in p.utterances),
        np.concatenate([p.lengths for p in partitions]),
        tuple(block for p in partitions for block in p.blocks),
        _join_labels(partitions),
    )


def _join_labels(partitions: Sequence[Partition]) -> NDArray[Any] | None:
    if all(p.stored_labels is None for p in partitions):
        return None
    inventory = partitions[0].inventory
    missing = inventory.unlabelled
    return np.concatenate(
        [
            np.full(p.frame_count, missing, inventory.label_dtype) if p.stored_labels is None else p.stored_labels
            for p in partitions
        ]
    )
