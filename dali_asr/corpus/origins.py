"""Where the utterances of a partition come from: who speaks, and which recording they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Origins:
    """Speakers and recordings of U utterances.

    Attributes:
        speakers: of each utterance, `[U]`; empty if they are not known.
        recordings: of each utterance, a path below `folder`, `[U]`; None for utterances without; empty if there are
            none at all.
        folder: of the recordings, where they were when the corpus was prepared; None if unknown.
    """

    speakers: tuple[str, ...] = ()
    recordings: tuple[str | None, ...] = ()
    folder: Path | None = None

    def recording(self, utterance: int, folder: Path | None = None) -> Path | None:
        """Return the recording of an utterance, which may no longer exist; None if it has none.

        Args:
            utterance: its number.
            folder: where the recordings are now, if they were moved.
        """
        below, where = self.recordings[utterance] if self.recordings else None, folder or self.folder
        return where / below if below is not None and where else None

    def pick(self, utterances: Iterable[int]) -> Origins:
        """Return the origins of some utterances, by their numbers."""
        numbers = list(utterances)
        speakers = tuple(self.speakers[number] for number in numbers) if self.speakers else ()
        recordings = tuple(self.recordings[number] for number in numbers) if self.recordings else ()
        return Origins(speakers, recordings, self.folder)


def join_origins(origins: Sequence[Origins], counts: Sequence[int]) -> Origins:
    """Return the origins of partitions of one corpus one after another; speakers are known if all are.

    Args:
        origins: of each partition.
        counts: number of utterances of each.
    """
    speakers = tuple(name for each in origins for name in each.speakers)
    recordings = [each.recordings or (None,) * count for each, count in zip(origins, counts, strict=True)]
    folder = next((each.folder for each in origins if each.folder), None)
    named = any(each.recordings for each in origins)
    joined = tuple(path for each in recordings for path in each) if named else ()
    return Origins(speakers if len(speakers) == sum(counts) else (), joined, folder)
