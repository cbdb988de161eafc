"""Counts of label segments: how long they are and which label follows which. Viterbi decoding is fitted to them.

Shape letters: `F` frames of a partition, `U` utterances, `C` labels, `S` segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.corpus.partition import Partition

MAX_LABELS = 1000  # a table of transitions has a cell per pair of labels
MAX_DURATION = 1000  # frames; longer segments count as this long
_BLOCK = 1 << 22  # frames per read


@dataclass(frozen=True, eq=False)
class SegmentCounts:
    """How long the segments of labels are, and which label follows which.

    A segment is a run of equal labels within an utterance. Row and column C of `transitions` stand for the beginning
    and end of an utterance.

    Attributes:
        frames: number of frames per label, `[C]` int64.
        transitions: number of times that a label (column) follows another (row), `[C + 1, C + 1]` int64.
        durations: number of segments of each label that last 1, 2, ... frames, `[C, MAX_DURATION]` int64; the last
            column counts all longer ones too.
    """

    frames: NDArray[np.int64]
    transitions: NDArray[np.int64]
    durations: NDArray[np.int64]

    @classmethod
    def empty(cls, labels: int) -> SegmentCounts:
        """Return counts of no segments, of C labels."""
        shapes = (labels,), (labels + 1, labels + 1), (labels, MAX_DURATION)
        return cls(*(np.zeros(shape, np.int64) for shape in shapes))

    def add(self, labels: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
        """Count the segments of utterances.

        Segments beside frames without a label are not counted, since their ends are unknown.

        Args:
            labels: `[F]`, negative for frames without a label.
            offsets: boundaries of the utterances, `[U + 1]`; the first is 0, the last F.
        """
        size = len(self.frames)
        self.frames[:] += np.bincount(labels[labels >= 0], minlength=size)
        begins = np.ones(len(labels), np.bool_)
        begins[1:] = labels[1:] != labels[:-1]
        begins[offsets[:-1]] = True
        starts = np.flatnonzero(begins)
        of_segment = labels[starts]
        lengths = np.diff(np.append(starts, len(labels)))
        opens = np.isin(starts, offsets[:-1])
        before = np.where(opens, size, np.roll(of_segment, 1))
        after = np.where(np.roll(opens, -1), size, np.roll(of_segment, -1))
        inner = (of_segment >= 0) & (before >= 0)
        last = (of_segment >= 0) & (after == size)
        self._count(self.transitions, before[inner], of_segment[inner])
        self._count(self.transitions, of_segment[last], after[last])
        whole = inner & (after >= 0)
        self._count(self.durations, of_segment[whole], np.minimum(lengths[whole], MAX_DURATION) - 1)

    @staticmethod
    def _count(table: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        table += np.bincount(rows * table.shape[1] + columns, minlength=table.size).reshape(table.shape)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values: tables as a triple `[row, column, count]` per cell that is not zero."""
        tables = {"transitions": self.transitions, "durations": self.durations}
        cells = {
            name: np.stack([*np.nonzero(table), table[np.nonzero(table)]], axis=1).tolist()
            for name, table in tables.items()
        }
        return {"frames": self.frames.tolist(), **cells}

    @classmethod
    def from_json(cls, values: dict[str, Any], labels: int) -> SegmentCounts:
        """Return the counts that `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: the values are not counts of C labels.
        """
        counts = cls.empty(labels)
        frames = _integers(values["frames"], "frames", (labels,))
        counts.frames[:] = frames
        for name, table in (("transitions", counts.transitions), ("durations", counts.durations)):
            rows, columns, found = _integers(values[name], name, (len(values[name]), 3)).T
            if (rows >= table.shape[0]).any() or (columns >= table.shape[1]).any():
                raise ValueError(f"{name}: a cell outside of {list(table.shape)}")
            table[rows, columns] = found
        return counts


def count_segments(partition: Partition) -> SegmentCounts | None:
    """Count the segments of a partition; None if its inventory has more than 1,000 labels."""
    if len(partition.inventory) > MAX_LABELS:
        return None
    counts = SegmentCounts.empty(len(partition.inventory))
    offsets, first = partition.offsets, 0
    while first < len(partition.utterances):
        wanted = int(np.searchsorted(offsets, offsets[first] + _BLOCK, side="right")) - 1
        end = max(wanted, first + 1)
        labels = partition.labels(int(offsets[first]), int(offsets[end]))
        if labels is not None:
            counts.add(labels, offsets[first : end + 1] - offsets[first])
        first = end
    return counts


def _integers(values: object, name: str, shape: tuple[int, ...]) -> NDArray[np.int64]:
    array = np.zeros(shape, np.int64) if values == [] else np.array(values)
    if array.shape != shape or array.dtype.kind != "i" or (array < 0).any():
        raise ValueError(f"{name}: expected counts {list(shape)}")
    return array.astype(np.int64)
