"""What a layout of source files must say to be packed: partitions, utterances, and the frames and labels of each.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dali_asr.corpus.regular import reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from dali_asr.inventory import Inventory


class SourceUtterance(ABC):
    """An utterance in source files. It is small and can be pickled: other processes read what it names."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The place of its frames, as errors name it."""

    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Read the shape `(T, D)` of its frames, and as little else as possible.

        Raises:
            DataError: the frames are missing, damaged, or not `[T, D]` floats with T at least 1.
        """

    @abstractmethod
    def frames(self, *, zero_nonfinite: bool) -> NDArray[Any]:
        """Read its frames `[T, D]`, float16, float32 or float64.

        Args:
            zero_nonfinite: whether NaN and infinity are replaced by zero; otherwise they are errors.

        Raises:
            DataError: as `shape`, or a value is not finite.
        """

    def blocks(self, count: int, *, zero_nonfinite: bool) -> Iterator[NDArray[Any]]:
        """Yield its frames in blocks of `count` frames, the last one shorter; errors as `frames`.

        Layouts that can read a part of an utterance do so; here, the whole utterance is read.
        """
        frames = self.frames(zero_nonfinite=zero_nonfinite)
        for first in range(0, len(frames), count):
            yield frames[first : first + count]

    @abstractmethod
    def labels(self, length: int, inventory: Inventory, fold: Mapping[str, str] | None) -> NDArray[np.int64]:
        """Read its labels `[T]`, −100 where a frame has none. Called in labelled partitions alone.

        Args:
            length: number of frames, T.
            inventory: the label set.
            fold: the symbols of the inventory that others stand for.

        Raises:
            DataError: labels are missing, damaged, unknown, or do not fit the frames.
        """


@dataclass(frozen=True, eq=False)
class SourcePartition:
    """A partition in source files.

    Attributes:
        name: of the partition.
        utterances: names, in the order in which they are packed.
        labelled: whether its utterances have labels.
        source: returns the utterance of a name.
    """

    name: str
    utterances: tuple[str, ...]
    labelled: bool
    source: Callable[[str], SourceUtterance]


@dataclass(frozen=True, eq=False)
class Layout:
    """An opened layout.

    Attributes:
        title: what a folder of this layout is called.
        partitions: in the order in which they are packed.
        inventory: the label set that is used if none is given.
        stamps: yields a line for each source file with its name, size and time of change.
    """

    title: str
    partitions: tuple[SourcePartition, ...]
    inventory: Inventory
    stamps: Callable[[], Iterator[str]]


@dataclass(frozen=True)
class LayoutKind:
    """A layout that folders can have.

    Attributes:
        title: what a folder of this layout is called.
        pattern: what it holds, for messages.
        partition_names: returns the names of the partitions in a folder; none if it has another layout.
        read: opens a folder, with the partitions named, or all if none is named.
    """

    title: str
    pattern: str
    partition_names: Callable[[Path], list[str]]
    read: Callable[[Path, Sequence[str]], Layout]


def stamp(path: Path, name: str = "") -> str:
    """Return a line that changes with a file: its name, size and time of change.

    Raises:
        DataError: the file cannot be accessed.
    """
    with reading(path):
        found = path.stat()
    return f"{name or path} {found.st_size} {found.st_mtime_ns}\n"
