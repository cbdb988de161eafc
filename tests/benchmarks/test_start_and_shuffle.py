"""The scripts that measure the loader's start and the order of a streamed partition, run small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dali_asr import PackedWriter
from dali_asr.inventory import ARPABET

ROOT = Path(__file__).parents[2]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A packed corpus of 200 utterances of 60 frames."""
    with PackedWriter(tmp_path / "corpus", inventory=ARPABET) as writer:
        for at in range(200):
            writer.add("train", f"u{at}", np.full((60, 28), at, np.float32), np.zeros(60, np.int64))
    return tmp_path / "corpus"


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_start(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "start.json"
    printed = run("start.py", corpus, "train", "--repeats", 2, "--device", "cpu", "--json", output)
    values = json.loads(output.read_text())
    assert (len(values["copy"]), len(values["start"])) == (2, 2)
    assert values["bytes"] == (corpus / "frames.npy").stat().st_size
    assert f"to the first batch {min(values['start']):.2f} s" in printed


def test_shuffle(corpus: Path, tmp_path: Path) -> None:
    """Sixty frames of one utterance, and so of one group: the smaller the groups, the more of a batch is of it."""
    output = tmp_path / "shuffle.json"
    run("shuffle.py", corpus, "train", "--batch-size", 120, "--budgets", 0.5, 0.1, "--json", output)
    full, half, tenth = json.loads(output.read_text())["results"]
    assert (full["groups"], full["budget"]) == (1, 1)
    assert full["groups"] < half["groups"] < tenth["groups"]
    assert full["largest_share"] < half["largest_share"] < tenth["largest_share"]
    assert 120 >= full["utterances"] > half["utterances"] > tenth["utterances"]
