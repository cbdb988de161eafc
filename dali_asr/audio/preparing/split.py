"""Recordings into train, dev and test: by speaker, the same for the same seed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from dali_asr.audio.preparing.layouts import PARTITIONS
from dali_asr.errors import UsageError, brief

if TYPE_CHECKING:
    from collections.abc import Sequence

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
