"""What the rounds of a bootstrap are measured by, and its first alignment of real speech."""

from __future__ import annotations

from pathlib import Path

import pytest

from dali_asr.alignment.bootstrap import moved_share
from dali_asr.alignment.dictionary import load_dictionary
from dali_asr.alignment.sphinx import SphinxAligner
from dali_asr.inventory import ARPABET
from dali_asr.segments import Segment

SPEECH = Path(__file__).parents[3] / "shared" / "data" / "speech"


def phones(*starts: float) -> list[Segment]:
    return [Segment(start, start + 0.1, label) for start, label in zip(starts, ("[SIL]", "K", "AE", "T"), strict=True)]


def test_share_of_boundaries_that_moved() -> None:
    before = {"a": phones(0, 0.1, 0.2, 0.3), "b": phones(0, 1, 2, 3), "c": phones(0, 1, 2, 3)}
    after = {"a": phones(0, 0.121, 0.181, 0.3), "b": phones(5, 1, 2.5, 3), "c": phones(0, 1, 2, 3)[:2]}
    assert moved_share(before, after) == pytest.approx(2 / 6)
    assert moved_share(before, {}) is None


@pytest.mark.skipif(not SPEECH.is_dir(), reason=f"needs real speech in {SPEECH}")
def test_pocketsphinx_aligns_real_speech() -> None:
    """Its truth was made by an aligner like this one."""
    pytest.importorskip("pocketsphinx", reason="needs the extra `align`")
    words = load_dictionary(ARPABET)
    text = next(line for line in (SPEECH / "transcripts.tsv").read_text().splitlines() if line.startswith("000360013"))
    said = text.split("\t")[-1].lower().split()
    entries = [(word, entry) for word in said if (entry := words.find(word))]
    found = [p for p in SphinxAligner(words).align(SPEECH / "000360013.wav", entries) if p.label != "[SIL]"]
    lines = (line.split() for line in (SPEECH / "000360013.phn").read_text().splitlines())
    truth = [(int(start) / 16_000, phone) for start, _, phone in lines if phone != "SIL"]
    assert [p.label for p in found] == [phone for _, phone in truth]
    close = [abs(p.start - start) <= 0.02 for p, (start, _) in zip(found, truth, strict=True)]
    assert sum(close) >= 0.8 * len(close)
