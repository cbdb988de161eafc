"""The folder of an audit: findings as CSV, doubtful utterances as TextGrids, and a page to look at.

findings.csv                            one line per finding, kind by kind, the most doubtful first
textgrids/PARTITION/UTTERANCE.TextGrid  tiers: given labels, what the folds say, doubt
index.html                              the findings with pictures and sound; needs no network
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.errors import UsageError
from dali_asr.files import disk_errors, file_name, new_folder, sweep, write_file
from dali_asr.inference.textgrid import seconds_text, to_textgrid
from dali_asr.reports.audit.page import audit_page
from dali_asr.reports.audit.spans import frame_edges, label_spans, smoothed_labels
from dali_asr.reports.sounds import Sounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dali_asr.reports.audit.auditing import Audit
    from dali_asr.reports.audit.findings import Finding
    from dali_asr.segments import FrameTiming

FINDINGS = "findings.csv"
_MAX_SOUND = 5_000_000  # bytes of the page
COLUMNS = (
    "kind",
    "rank",
    "partition",
    "utterance",
    "start_seconds",
    "end_seconds",
    "start_frame",
    "end_frame",
    "label",
    "folds",
    "score",
    "note",
)


def check_audit_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse an output folder that may not be replaced, and remove what killed processes left beside it.

    Raises:
        UsageError: it exists and is not an audit, or may not be overwritten.
        DataError: the folder above cannot be read.
    """
    if folder.exists() or folder.is_symlink():
        if not (folder / FINDINGS).is_file():
            raise UsageError(f"{folder}: exists and is not an audit; choose another folder")
        if not overwrite:
            raise UsageError(f"{folder}: exists; choose another folder, or overwrite it (overwrite=True)")
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)


def write_audit(
    audit: Audit,
    folder: Path,
    name: str,
    *,
    overwrite: bool = False,
    recordings: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> str:
    """Write an audit to a folder, which appears whole or not at all.

    Args:
        audit: what was found.
        folder: to write to.
        name: of the corpus, for the page.
        overwrite: whether an earlier audit may be replaced.
        recordings: folder of the corpus's recordings, if they were moved since it was prepared from them.
        progress: called with a stage, what is done of it, and its total.

    Returns:
        A line about recordings that are missing or cannot be read; empty if there are none.

    Raises:
        UsageError: as `check_audit_folder`; or the corpus names no recordings.
        DataError: the disk is full or cannot be written.
    """
    check_audit_folder(folder, overwrite=overwrite)
    sounds = Sounds(audit.partition, audit.timing, _MAX_SOUND, recordings)
    by_utterance: dict[int, list[Finding]] = {}
    for finding in audit.ordered():
        by_utterance.setdefault(finding.position, []).append(finding)
    with disk_errors(folder), new_folder(folder, flush=False) as partial:
        write_file(partial / FINDINGS, to_csv(audit.ordered(), audit.timing))
        for done, (number, findings) in enumerate(sorted(by_utterance.items()), 1):
            path = partial / "textgrids" / file_name(audit.partition_of[number], "")
            path.mkdir(parents=True, exist_ok=True)
            name_of = file_name(audit.partition.utterances[number], ".TextGrid")
            (path / name_of).write_text(utterance_textgrid(audit, number, findings), encoding="utf-8")
            progress("writing TextGrids", done, len(by_utterance))
        write_file(partial / "index.html", audit_page(audit, name, sounds).encode())
    return sounds.remark


def to_csv(findings: Sequence[Finding], timing: FrameTiming) -> bytes:
    """Return findings as CSV (RFC 4180) in UTF-8."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    for f in findings:
        edges = frame_edges(f.end, timing)
        times = (seconds_text(edges[frame]) for frame in (f.start, f.end))
        writer.writerow(
            [f.kind, f.rank, f.partition, f.utterance, *times, f.start, f.end, f.label, f.folds, f.score, f.note]
        )
    return stream.getvalue().encode()


def utterance_textgrid(audit: Audit, number: int, findings: Sequence[Finding]) -> str:
    """Return an utterance as a TextGrid: given labels, what the folds say, doubt."""
    first, end = audit.partition.offsets[number : number + 2].tolist()
    length = end - first
    said = smoothed_labels(audit.log_posteriors[first:end])
    doubts = np.full(length, "", object)
    for finding in findings:
        text = f"{finding.kind} {finding.rank}: {finding.note}"
        for frame in range(finding.start, finding.end):
            doubts[frame] = f"{doubts[frame]}; {text}" if doubts[frame] else text
    symbols = audit.partition.inventory.symbols
    tiers = {
        "labels": [
            (a, b, symbols[label] if label >= 0 else "") for a, b, label in label_spans(audit.labels[first:end])
        ],
        "folds": [(a, b, symbols[label]) for a, b, label in label_spans(said)],
        "doubt": label_spans(doubts),
    }
    edges = frame_edges(length, audit.timing)
    timed = {name: [(edges[a], edges[b], text) for a, b, text in spans] for name, spans in tiers.items()}
    return to_textgrid(timed, edges[-1])
