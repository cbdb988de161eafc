"""Recordings into train, dev and test: by speaker, the same for the same seed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from dali_asr.audio.preparing.layouts import DEV, PARTITIONS, TRAIN
from dali_asr.errors import DataError, UsageError, brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dali_asr.audio.preparing.layouts import SourceLayout
    from dali_asr.audio.preparing.settings import PrepareSettings
    from dali_asr.audio.preparing.speakers import Speakers

DEFAULT_SPLIT = (0.8, 0.1, 0.1)


def parse_split(text: str) -> tuple[float, ...]:
    """Return the shares of train, dev and test, which are given as `0.8,0.1,0.1` and add up to 1.

    Raises:
        UsageError: they are not.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
        if len(shares) != len(PARTITIONS) or not shares[0] > 0 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError
    except ValueError as error:
        raise UsageError(f"split {brief(text)}; give the shares of train, dev and test: 0.8,0.1,0.1") from error
    return shares


def choose_partitions(
    layout: SourceLayout, speakers: Speakers, seconds: Sequence[float], settings: PrepareSettings
) -> tuple[list[str], str]:
    """Return the partition of each recording, and a line that says how they came about."""
    if layout.partitioned and settings.split is None:
        partitions = [placed.partition or TRAIN for placed in layout.placed]
        _check_apart(speakers, partitions)
        if DEV in partitions or TRAIN not in partitions:
            return partitions, "those of the folders"
        return _with_dev(speakers.names, seconds, partitions, settings.seed)
    shares = settings.split or DEFAULT_SPLIT
    names, by = speakers.names, "speaker" if speakers.known else "recording"
    if speakers.known and len(set(names)) == 1:
        names, by = tuple(placed.name for placed in layout.placed), "recording, since all are of one speaker"
    partitions = split_speakers(names, seconds, shares, settings.seed)
    asked = ", ".join(f"{share:g} {name}" for share, name in zip(shares, PARTITIONS, strict=True) if share)
    return partitions, f"{asked}, split by {by}, seed {settings.seed}"


def split_speakers(
    speakers: Sequence[str],
    seconds: Sequence[float],
    shares: Sequence[float],
    seed: int,
    partitions: Sequence[str] = PARTITIONS,
) -> list[str]:
    """Return the partition of each recording; all recordings of a speaker are in one.

    Speakers are taken in an order that the seed and their names give, and each goes where most is missing. A partition
    with a share gets a speaker as long as there is one.

    Args:
        speakers: of each recording.
        seconds: duration of each recording.
        shares: of the duration, for each partition.
        seed: of the order.
        partitions: their names; the first ones get a speaker if there are too few.
    """
    durations: dict[str, float] = defaultdict(float)
    for speaker, duration in zip(speakers, seconds, strict=True):
        durations[speaker] += duration
    total = sum(durations.values())
    missing = {name: share * total for name, share in zip(partitions, shares, strict=True) if share}
    empty = list(missing)
    order = sorted(durations, key=lambda speaker: hashlib.sha256(f"{seed}\0{speaker}".encode()).digest())
    partition_of = {}
    for number, speaker in enumerate(order):
        left = len(order) - number
        choices = empty if left <= len(empty) else list(missing)
        chosen = max(choices, key=lambda name: missing[name])  # the first one of equal ones
        partition_of[speaker] = chosen
        missing[chosen] -= durations[speaker]
        empty = [name for name in empty if name != chosen]
    return [partition_of[speaker] for speaker in speakers]


def _with_dev(
    speakers: Sequence[str], seconds: Sequence[float], partitions: Sequence[str], seed: int
) -> tuple[list[str], str]:
    """Take speakers for dev out of train, where folders give train and test alone, as in TIMIT."""
    train, dev, _ = DEFAULT_SPLIT
    inside = [at for at, partition in enumerate(partitions) if partition == TRAIN]
    shares = (train / (train + dev), dev / (train + dev))
    parts = split_speakers([speakers[at] for at in inside], [seconds[at] for at in inside], shares, seed, (TRAIN, DEV))
    result = list(partitions)
    for at, part in zip(inside, parts, strict=True):
        result[at] = part
    return result, f"those of the folders, and dev out of train by speaker, seed {seed}"


def _check_apart(speakers: Speakers, partitions: Sequence[str]) -> None:
    """Check that no speaker is in two partitions.

    Raises:
        DataError: one is.
    """
    of: dict[str, str] = {}
    for speaker, partition in zip(speakers.names, partitions, strict=True):
        if of.setdefault(speaker, partition) != partition:
            raise DataError(
                f"speaker {speaker} ({speakers.how}) is in {of[speaker]} and {partition}; split again "
                "(split=0.8,0.1,0.1), or tell the speakers another way (speakers=WAY)"
            )
