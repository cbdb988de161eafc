"""The ablation, on a corpus of a few utterances."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.makers import make_course

SCRIPT = Path(__file__).parents[2] / "benchmarks/ablation.py"


def test_variants_are_compared_with_the_first(tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train-clean": [700, 600], "dev-clean": [300]}, dim=28)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "c"), "--seeds", "2", "--json", str(tmp_path / "a.json")]
    command += ["--only", "reference", "--only", "the five that pay"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    reference, five = json.loads((tmp_path / "a.json").read_text())["results"]
    assert len(reference["accuracy"]) == 2
    assert len(reference["accuracy"][0]) == 4, "epochs"
    assert "loader.masking={}" in five["overrides"]
    assert f"{100 * (five['mean'] - reference['mean']):+.2f}" in printed


def test_a_recipe_loses_each_option(tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train-clean": [700, 600], "dev-clean": [300], "test-clean": [9]}, dim=28)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "c"), "--seeds", "1", "--recipe", "so762-mini"]
    command += ["--only", "so762-mini", "--only", "without label smoothing"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| without label smoothing |" in printed
