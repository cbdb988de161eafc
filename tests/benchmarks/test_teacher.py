"""What pocketsphinx says of each frame of a recording."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dali_asr import Corpus
from dali_asr.demo import DEMO_RECORDING
from dali_asr.inventory import ARPABET


def test_frames_are_scored_at_their_centers_whatever_came_before(run_script: Any, run_cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    recordings, corpus, teacher = tmp_path / "recordings", tmp_path / "corpus", tmp_path / "teacher"
    (recordings / "train").mkdir(parents=True)
    for name in ("first", "second"):
        shutil.copy(DEMO_RECORDING, recordings / "train" / f"{name}.wav")
    assert run_cli("features", recordings, corpus).exit_code == 0
    assert run_script("teacher", recordings, corpus, teacher).startswith("2 utterances: ")
    first, second = (np.load(teacher / f"{name}.npy") for name in ("first", "second"))
    frames = np.diff(Corpus.open(corpus).partition("train").offsets)[0]
    assert first.shape == (frames, 3 * len(ARPABET))
    assert first.dtype == np.float16
    assert np.array_equal(first, second)
    best = first.argmax(axis=1) // 3
    silence = ARPABET.silence()
    assert np.bincount(best[:10]).argmax() == silence, "the recording begins with silence"
    assert len(set(best.tolist()) - {silence}) > 15, "then phones are said"
    assert (first[:, 1:3] < -50).all(), "silence has one state"


def test_a_frame_of_25_ms_is_said_a_hundredth_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its center is 12.5 ms behind its beginning."""
    import importlib

    from dali_asr.audio.settings import FeatureSettings
    from tests.benchmarks.conftest import ROOT

    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script: Any = importlib.import_module("teacher")
    scores = np.arange(8.0)[:, None]
    assert script.at_centers(scores, FeatureSettings.of("course"), 9)[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 7, 7]
