"""The page of an audit: the first findings of each kind, as posteriorgrams with given labels and those of the folds.

Shape letters: `T` frames of a picture, `C` labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.reports.audit.findings import KINDS
from dali_asr.reports.audit.spans import frame_edges, label_spans, smoothed_labels
from dali_asr.reports.page import render, shades

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.reports.audit.auditing import Audit
    from dali_asr.reports.audit.findings import Finding, Kind
    from dali_asr.reports.sounds import Sound, Sounds

SHOWN = {"segment": 60, "boundary": 40, "transcript": 30}  # pictures
_SHOWN_OF_OTHERS = 20
_BESIDE = 40  # frames on each side of a finding
_MAX_FRAMES = 400  # of a picture
_HEARD_BESIDE = 0.5  # seconds on each side of a finding
_MAX_ROWS = 10  # labels of a posteriorgram
_FRAME, _ROW = 6, 14  # units of a picture


def audit_page(audit: Audit, name: str, sounds: Sounds) -> str:
    """Return the page as HTML, which needs nothing else.

    Args:
        audit: what was found.
        name: of the corpus.
        sounds: of the audited partition.
    """
    kinds = []
    heard = _heard(audit, sounds)
    for kind, meaning in KINDS.items():
        findings = audit.findings[kind]
        pictures = [_described(audit, finding, heard[finding]) for finding in _shown(audit, kind)]
        kinds.append({"kind": kind, "meaning": meaning, "count": len(findings), "findings": pictures})
    return render(
        "audit.html",
        title=f"Audit of {name}",
        utterances=len(audit.partition.utterances),
        hours=audit.partition.hours,
        segments=len(audit.segments),
        folds=audit.folds,
        grouped_by=str(audit.grouped_by),
        sounds_known=sounds.known,
        accuracy=audit.accuracy,
        kinds=kinds,
    )


def _shown(audit: Audit, kind: Kind) -> list[Finding]:
    """Return the findings of a kind that the page shows."""
    return audit.findings[kind][: SHOWN.get(kind, _SHOWN_OF_OTHERS)]


def _heard(audit: Audit, sounds: Sounds) -> dict[Finding, Sound | None]:
    """Return the sounds of all findings shown; if some must be left out, those of the last of each kind."""
    shown = sorted((finding for kind in KINDS for finding in _shown(audit, kind)), key=lambda finding: finding.rank)
    return {f: sounds.stretch(f.position, f.start, f.end, beside=_HEARD_BESIDE) for f in shown}


def _described(audit: Audit, finding: Finding, sound: Sound | None) -> dict[str, Any]:
    edges = frame_edges(finding.end, audit.timing)
    seconds = f"{edges[finding.start]:.2f} to {edges[finding.end]:.2f} s"
    return {"finding": finding, "seconds": seconds, "picture": _picture(audit, finding), "sound": sound}


def _picture(audit: Audit, finding: Finding) -> dict[str, Any]:
    """Return what the template draws: spans of both label rows, and the cells of the posteriorgram."""
    first, end = audit.partition.offsets[finding.position : finding.position + 2].tolist()
    low = max(finding.start - _BESIDE, 0)
    high = min(finding.end + _BESIDE, end - first, low + _MAX_FRAMES)
    part = slice(first + low, first + high)
    symbols = audit.partition.inventory.symbols
    posteriors = np.exp(audit.log_posteriors[part])
    said = smoothed_labels(audit.log_posteriors[first:end])[low:high]
    given = audit.labels[part]
    rows = _rows(given, said, posteriors)
    return {
        "width": (high - low) * _FRAME,
        "height": (len(rows) + 3) * _ROW,
        "row": _ROW,
        "mark": ((finding.start - low) * _FRAME, (min(finding.end, high) - finding.start) * _FRAME),
        "given": _texts(given, symbols),
        "said": _texts(said, symbols),
        "names": min(max(6, *(len(symbols[label]) for label in rows)), 24) * 8,
        "rows": [symbols[label] for label in rows],
        "shades": shades(posteriors[:, rows].T, _FRAME, _ROW),
        "ticks": [
            ((frame - low) * _FRAME, f"{frame * audit.timing.period:.1f}")
            for frame in range(-(-low // 20) * 20, high, 20)
            if (high - frame) * _FRAME > 20
        ],
        "text": f"given {_spoken(given, symbols)}; predicted {_spoken(said, symbols)}",
    }


def _rows(given: NDArray[np.int64], said: NDArray[np.int64], posteriors: NDArray[np.float32]) -> list[int]:
    """Return the labels that a posteriorgram shows, in the order in which the picture needs them."""
    mass = posteriors.sum(axis=0)
    named = {int(label): None for pair in zip(given, said, strict=True) for label in pair if label >= 0}
    kept = sorted(named, key=lambda label: -mass[label])[:_MAX_ROWS]
    return [label for label in named if label in kept]


def _texts(labels: NDArray[np.int64], symbols: tuple[str, ...]) -> list[tuple[int, int, str]]:
    return [(a * _FRAME, (b - a) * _FRAME, symbols[v] if v >= 0 else "") for a, b, v in label_spans(labels)]


def _spoken(labels: NDArray[np.int64], symbols: tuple[str, ...]) -> str:
    return " ".join(symbols[value] for _, _, value in label_spans(labels) if value >= 0)
