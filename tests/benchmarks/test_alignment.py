"""How alignments are compared, and the copies of recordings at other speeds."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from dali_asr.segments import Segment
from tests.benchmarks.conftest import ROOT


def spoken(*phones: tuple[str, float]) -> list[Segment]:
    """Return segments that follow one another, given their ends."""
    starts = [0.0, *(end for _, end in phones)]
    return [Segment(start, end, label) for start, (label, end) in zip(starts, phones, strict=False)]


def test_boundaries_are_compared_of_phones_that_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script: Any = importlib.import_module("alignment")
    given = spoken(("SIL", 0.1), ("K", 0.2), ("AE", 0.3), ("T", 0.4), ("SIL", 0.5), ("S", 0.6))
    placed = spoken(("[SIL]", 0.12), ("K", 0.2), ("AH", 0.29), ("[SIL]", 0.31), ("T", 0.43), ("S", 0.6))
    errors = script.boundary_errors(given, placed)
    assert errors == pytest.approx([0.02, 0, 0.01, 0.03, -0.07, 0])  # K, AE, T and its end, S and its end
    lost = script.boundary_errors(given, placed[:-1])
    assert np.isnan(lost).tolist() == [False] * 4 + [True] * 2
    found = script.scores(lost)
    assert (found["boundaries"], found["within_20_ms"], found["paired"]) == (6, 0.5, pytest.approx(4 / 6))
    assert found["mean"] == pytest.approx(15)


def test_copies_have_the_samples_at_another_rate(tmp_path: Path, run_script: Any) -> None:
    train = tmp_path / "recordings" / "train"
    train.mkdir(parents=True)
    samples = np.random.default_rng(0).integers(-999, 999, 320).astype(np.int16)
    soundfile.write(train / "one.flac", samples, 16_000)
    (train / "one.phn").write_text("0 320 AA\n")
    (train / "transcripts.tsv").write_text("one\tann\tAH\n")
    run_script("speeds", tmp_path / "recordings", tmp_path / "copies")
    for name, rate in (("one", 16_000), ("one-slow", 14_400), ("one-fast", 17_600)):
        found, found_rate = soundfile.read(tmp_path / "copies/train" / f"{name}.flac", dtype="int16")
        assert (found_rate, found.tolist()) == (rate, samples.tolist())
        assert (tmp_path / "copies/train" / f"{name}.phn").read_text() == "0 320 AA\n"
    lines = (tmp_path / "copies/train/transcripts.tsv").read_text().splitlines()
    assert lines == ["one\tann\tAH", "one-slow\tann\tAH", "one-fast\tann\tAH"]
