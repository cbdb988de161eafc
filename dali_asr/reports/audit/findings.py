"""What an audit finds.

A finding is a span of an utterance, or all of it, whose labels or frames a person should look at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = Literal["transcript", "duplicate", "silent", "constant", "clipped", "segment", "boundary"]
KINDS: dict[Kind, str] = {
    "transcript": "the transcript may not belong to the utterance",
    "duplicate": "the frames are those of another utterance",
    "silent": "every label is silence",
    "constant": "the features do not change",
    "clipped": "a feature stays at its highest value",
    "segment": "models trained without the utterance predict another label",
    "boundary": "a shifted boundary fits the posteriors better",
}


@dataclass(frozen=True)
class Finding:
    """A span of frames to look at.

    Attributes:
        kind: what is doubtful.
        partition: name of the partition.
        utterance: name of the utterance.
        start: first frame of the span, within the utterance.
        end: the frame after its last.
        label: the given symbol; of a boundary, the symbols before and after it; empty for a whole utterance.
        folds: what the folds say instead; empty where they say nothing.
        score: how doubtful it is, in nats, higher first; comparable within a kind alone.
        note: the finding in words.
        rank: place among the findings of its kind, from 1.
        position: number of the utterance in the audited partition.
    """

    kind: Kind
    partition: str
    utterance: str
    start: int
    end: int
    label: str
    folds: str
    score: float
    note: str
    position: int
    rank: int = 0


def ranked(findings: Iterable[Finding], limit: int | None = None) -> list[Finding]:
    """Return findings of one kind, the most doubtful first and numbered from 1, at most `limit` of them."""
    ordered = sorted(findings, key=lambda finding: (-finding.score, finding.position, finding.start))
    return [replace(finding, rank=rank) for rank, finding in enumerate(ordered[:limit], 1)]
