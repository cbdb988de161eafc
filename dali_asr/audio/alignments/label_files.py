"""Alignments as lines of start, end and label: TIMIT's `.phn`, HTK's `.lab` and label tracks of Audacity.

.phn    START END PHONE          in samples
.lab    START END LABEL ...      in units of 100 ns; scores and further labels are left out
.txt    START END LABEL          in seconds, separated by tabs
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dali_asr.audio.alignments.text import numbered_lines
from dali_asr.errors import DataError, brief
from dali_asr.segments import Segment

if TYPE_CHECKING:
    from pathlib import Path

HTK_RATE = 10_000_000  # units of 100 ns per second


def read_phn(path: Path, sample_rate: int) -> list[Segment]:
    """Read a `.phn` file of TIMIT, whose times are samples of its recording.

    Args:
        path: the file.
        sample_rate: of the recording, in Hz.

    Raises:
        DataError: the file cannot be read, or a line is not of its form.
    """
    segments = []
    for where, line in numbered_lines(path):
        fields = line.split()
        if len(fields) != 3 or not (fields[0].isdecimal() and fields[1].isdecimal()):
            raise DataError(f"{where}: {brief(line)}; write `START_SAMPLE END_SAMPLE PHONE`, in whole samples")
        segments.append(Segment(int(fields[0]) / sample_rate, int(fields[1]) / sample_rate, fields[2]))
    return segments


def read_lab(path: Path) -> list[Segment]:
    """Read a label file of HTK: `The HTK Book`, "HTK Label Files".

    Raises:
        DataError: the file cannot be read, or a line is not of its form.
    """
    segments = []
    for where, line in numbered_lines(path):
        fields = line.split()
        if len(fields) < 3 or not (fields[0].isdecimal() and fields[1].isdecimal()):
            raise DataError(f"{where}: {brief(line)}; write HTK's `START END LABEL`, in units of 100 ns")
        segments.append(Segment(int(fields[0]) / HTK_RATE, int(fields[1]) / HTK_RATE, fields[2].strip('"')))
    return segments


def read_audacity(path: Path) -> list[Segment]:
    r"""Read a label track that Audacity exported; its lines of frequencies, which open with `\`, are left out.

    Raises:
        DataError: the file cannot be read, or a line is not of its form.
    """
    segments = []
    for where, line in numbered_lines(path):
        if line.startswith("\\"):
            continue
        try:
            start, end, *label = line.split("\t") if "\t" in line else line.split(None, 2)
            segments.append(Segment(_seconds(start), _seconds(end), "\t".join(label).strip()))
        except ValueError as error:
            raise DataError(
                f"{where}: {brief(line)}; write `START END LABEL` in seconds, separated by tabs, as Audacity does"
            ) from error
    return segments


def _seconds(field: str) -> float:
    seconds = float(field)
    if not math.isfinite(seconds):
        raise ValueError
    return seconds
