"""The ablation, on a corpus of a few utterances."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.makers import make_course


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """Restore the number of threads, which a run sets."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_variants_are_compared_with_the_first(
    run_script: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablation.REFERENCE", ("loader.context=4", "loader.batch_size=64", "model.hidden=[16]"))
    make_course(tmp_path / "c", {"train-clean": [400, 200], "dev-clean": [100]}, dim=28)
    only = ("--only", "reference", "--only", "the five that pay")
    printed = run_script("ablation", tmp_path / "c", "--seeds", 2, "--json", tmp_path / "a.json", *only)
    reference, five = json.loads((tmp_path / "a.json").read_text())["results"]
    assert len(reference["accuracy"]) == 2
    assert len(reference["accuracy"][0]) == 4, "epochs"
    assert "loader.masking={}" in five["overrides"]
    assert f"{100 * (five['mean'] - reference['mean']):+.2f}" in printed


def test_an_option_is_removed_from_a_recipe(run_script: Callable[..., str], tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train-clean": [400, 200], "dev-clean": [100], "test-clean": [9]}, dim=28)
    only = ("--only", "so762-mini", "--only", "without label smoothing")
    printed = run_script("ablation", tmp_path / "c", "--seeds", 1, "--recipe", "so762-mini", *only)
    assert "| without label smoothing |" in printed
