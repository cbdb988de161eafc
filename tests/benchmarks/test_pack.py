"""The benchmark of packing on a small tree, and the bound on the memory that it measures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dali_asr import Corpus
from tests.corpus.archives import make_archive
from tests.makers import make_course

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, str(BENCHMARKS / script), *map(str, arguments)], check=True, capture_output=True)


def test_packing_takes_a_bounded_amount_of_memory(tmp_path: Path) -> None:
    """Anonymous and shared memory of all processes, sampled while 0.4 GB are packed."""
    tree, result = tmp_path / "tree", tmp_path / "pack.json"
    run("make_course_tree.py", tree, "--utterances", 1700, "--mean", 2000)
    run("pack.py", tree, "--repeats", 1, "--share", 20, "--json", result)
    values = json.loads(result.read_text())
    assert values["utterances"] == 1700
    assert 0 < values["peak_anonymous_MiB"] < 600
    assert len(values["packing_seconds"]) == len(values["course_loop_seconds"]) == 1
    partition = Corpus.open(tree).partition("train-clean-100")
    assert partition.frame_count == 1700 * 2000
    assert partition.feature_dim == 28
    labels = partition.labels()
    assert labels is not None
    assert len(np.unique(labels)) == 40


def test_packing_an_archive_is_compared_with_decompressing_it(run_script: Callable[..., str], tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train-clean-100": [40] * 20})
    archive, result = make_archive(tmp_path / "a.tar.gz", tmp_path / "c"), tmp_path / "a.json"
    assert "of the rate" in run_script("pack_archive", archive, "--repeats", 1, "--json", result)
    values = json.loads(result.read_text())
    assert values["members"] == 40
    assert len(values["decompressing_seconds"]) == len(values["packing_seconds"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.tar.gz", "c"]
