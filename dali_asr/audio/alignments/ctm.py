"""CTM files: lines `NAME CHANNEL START DURATION PHONE [CONFIDENCE]`, in seconds, for many recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dali_asr.audio.alignments.text import numbered_lines
from dali_asr.corpus.layouts.ctm import ctm_segment

if TYPE_CHECKING:
    from pathlib import Path

    from dali_asr.segments import Segment

_COMMENT = ";;"


def read_ctm(path: Path) -> dict[str, list[Segment]]:
    """Read the segments of each recording, in order of time, by its name.

    Raises:
        DataError: the file cannot be read, or a line is not of its form.
    """
    found: dict[str, list[Segment]] = {}
    for where, line in numbered_lines(path):
        if line.startswith(_COMMENT):
            continue
        name, *fields = line.split()
        found.setdefault(name, []).append(ctm_segment(where, fields))
    return {name: sorted(segments, key=lambda segment: segment.start) for name, segments in found.items()}
