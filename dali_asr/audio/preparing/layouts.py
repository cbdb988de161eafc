"""What folders of recordings are like: partitions by folders, names of utterances, and a title to say so.

TIMIT              TRAIN/DR1/FCJF0/SA1.WAV and SA1.PHN
LibriSpeech        train-clean-100/84/121123/84-121123-0000.flac, and TextGrids at the same places
LJSpeech           metadata.csv and wavs/
partition folders  train/, dev/ and test/, with any folders in them
pairs              any folders
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dali_asr.audio.preparing.files import common_depth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dali_asr.audio.preparing.files import File
    from dali_asr.audio.preparing.pairs import Pair

TRAIN, DEV, TEST = PARTITIONS = ("train", "dev", "test")
_PARTITION_OF = {"train": TRAIN, "training": TRAIN, "dev": DEV, "devel": DEV, "valid": DEV, "validation": DEV} | {
    "val": DEV,
    "test": TEST,
    "eval": TEST,
    "testing": TEST,
}
_FIRST_WORD = re.compile(r"[a-z]+")
_DIALECT = re.compile(r"dr[1-8]", re.IGNORECASE)
_TIMIT_SPEAKER = re.compile(r"[fm][a-z]{3}\d", re.IGNORECASE)
_LIBRISPEECH = re.compile(r"(\d+)-(\d+)-\d+")
LJSPEECH_TABLE = "metadata.csv"


@dataclass(frozen=True)
class Placed:
    """A recording and its alignment, with their place in the corpus.

    Attributes:
        pair: recording and alignment.
        name: of the utterance.
        folders: those between the partition, or the whole tree, and the recording.
        partition: `train`, `dev` or `test` if its folder says so; None if not.
    """

    pair: Pair
    name: str
    folders: tuple[str, ...]
    partition: str | None


@dataclass(frozen=True)
class SourceLayout:
    """What a folder of recordings is like.

    Attributes:
        title: what the layout is called.
        placed: the recordings, in the order of their paths.
        problems: a line for each recording that has the name of one before it.
    """

    title: str
    placed: tuple[Placed, ...]
    problems: tuple[str, ...] = ()

    @property
    def partitioned(self) -> bool:
        """Whether folders say the partitions."""
        return self.placed[0].partition is not None


def find_source_layout(pairs: Sequence[Pair], tables: Sequence[File]) -> SourceLayout:
    """Return the layout of recordings, at least one.

    Args:
        pairs: the recordings and their alignments.
        tables: the tables that were found beside them.
    """
    depth = common_depth([pair.recording for pair in pairs])
    folders = [pair.recording.folders[depth:] for pair in pairs]
    partitions = [_partition_of(each) for each in folders]
    # Of one folder alone, the name is no choice of partitions.
    if None in partitions or len(set(partitions)) < 2:
        partitions = [None] * len(pairs)
    else:
        folders = [each[1:] for each in folders]
    placed = [
        Placed(pair, name, each, partition)
        for pair, name, each, partition in zip(
            pairs, _names(pairs, folders, partitions), folders, partitions, strict=True
        )
    ]
    first: dict[tuple[str | None, str], Placed] = {}
    for each in placed:
        first.setdefault((each.partition, each.name), each)
    problems = (
        f"{each.pair.recording.path}: its utterance name would be {each.name}, which "
        f"{other.pair.recording.path} has; rename one of them"
        for each in placed
        if (other := first[each.partition, each.name]) is not each
    )
    return SourceLayout(_title(placed, tables), tuple(first.values()), tuple(problems))


def is_timit(folders: tuple[str, ...]) -> bool:
    """Return whether folders below a partition are those of TIMIT: dialect and speaker."""
    return len(folders) == 2 and bool(_DIALECT.fullmatch(folders[0]) and _TIMIT_SPEAKER.fullmatch(folders[1]))


def librispeech_speaker(stem: str, folders: tuple[str, ...]) -> str | None:
    """Return the speaker of a recording of LibriSpeech, which its name and folders say; None for other recordings."""
    found = _LIBRISPEECH.fullmatch(stem)
    return found[1] if found and folders[-2:] in ((found[1], found[2]), ()) else None


def _partition_of(folders: tuple[str, ...]) -> str | None:
    """Return the partition that the first folder names: `dev` for `dev-clean` and `Validation`."""
    word = _FIRST_WORD.match(folders[0].lower()) if folders else None
    return _PARTITION_OF.get(word[0]) if word else None


def _names(pairs: Sequence[Pair], folders: Sequence[tuple[str, ...]], partitions: Sequence[str | None]) -> list[str]:
    """Return names of utterances: those of the files, after their folders where these alone are not unique."""
    stems = [pair.recording.stem for pair in pairs]
    timit = all(map(is_timit, folders))  # whose speakers have names of their own
    if not timit and max(Counter(zip(partitions, stems, strict=True)).values()) == 1:
        return stems
    return ["_".join([*(each[1:] if timit else each), stem]) for each, stem in zip(folders, stems, strict=True)]


def _title(placed: Sequence[Placed], tables: Sequence[File]) -> str:
    if all(is_timit(p.folders) for p in placed):
        return "TIMIT"
    if all(len(p.folders) >= 2 and librispeech_speaker(p.pair.recording.stem, p.folders) for p in placed):
        return "LibriSpeech"
    if any(table.path.name == LJSPEECH_TABLE for table in tables) and not placed[0].folders:
        return "LJSpeech"
    return "partition folders" if placed[0].partition else "recordings with alignments"
