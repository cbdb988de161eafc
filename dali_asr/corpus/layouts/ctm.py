"""The fields of CTM lines: `NAME CHANNEL START DURATION PHONE [CONFIDENCE]`, in seconds."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from dali_asr.errors import DataError, brief
from dali_asr.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

_WORD_POSITION = re.compile(r"_[BIES]$")


def ctm_segment(where: str, fields: Sequence[str]) -> Segment:
    """Return the segment of a line.

    Args:
        where: the place of the line, for the error.
        fields: of the line, behind its name.

    Raises:
        DataError: the fields are not of this form.
    """
    try:
        start, duration = float(fields[1]), float(fields[2])
        if not 0 <= start < math.inf or not 0 <= duration < math.inf:
            raise ValueError
        return Segment(start, start + duration, fields[3], _confidence(fields[4:5]))
    except (ValueError, IndexError) as error:
        raise DataError(
            f"{where}: {brief(' '.join(fields))}; write `NAME CHANNEL START DURATION PHONE`, in seconds"
        ) from error


def _confidence(fields: Sequence[str]) -> float | None:
    """Return a probability; None if there is none, or another kind of score."""
    try:
        return next((score for score in map(float, fields) if 0 <= score <= 1), None)
    except ValueError:
        return None


def without_position(phone: str, known: Container[str]) -> str:
    """Return a phone of Kaldi without its position in the word (`AH0_B`), unless it is known with it."""
    return phone if phone in known else _WORD_POSITION.sub("", phone)
