"""Warm starts: training from another run's weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dali_asr import Config, Corpus, PackedWriter, train
from dali_asr.audio.settings import FeatureSettings
from dali_asr.errors import CheckpointError
from dali_asr.inventory import ARPABET
from dali_asr.runs.checkpoint import load_checkpoint
from tests.makers import make_features
from tests.training_runs import Warnings

OPTIONS = [
    *("loader.device=cpu", "loader.context=1", "loader.batch_size=8", "model.preset=null", "model.hidden=[6,6]"),
    *("training.max_steps=3", "data.train=[all]", "data.dev=null", "data.test=null"),
]


def corpus_of(symbols: list[str]) -> Corpus:
    frames = [make_features(30, seed=at) for at in range(2)]
    return Corpus.from_arrays(frames, [np.arange(30) % len(symbols)] * 2, symbols)


def trained(run: Path, symbols: list[str], *overrides: str, warnings: Warnings | None = None) -> Path:
    config = Config.load("demo", [*OPTIONS, *overrides])
    return train(config, run=run, corpus=corpus_of(symbols), reporter=warnings).run


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("before") / "run", ["a", "b", "c"])


STILL = ("training.optimizer.learning_rate=1e-30", "training.optimizer.weight_decay=0")  # keeps the weights


def test_training_starts_from_the_weights(before: Path, tmp_path: Path) -> None:
    said = Warnings()
    run = trained(
        tmp_path / "run", ["a", "b", "c"], f"training.init={before}", "model.dropout=0.1", *STILL, warnings=said
    )
    theirs, ours = (load_checkpoint(path, "last").build(torch.device("cpu")).parameters() for path in (before, run))
    for ours_now, tensor in zip(ours, theirs, strict=True):
        torch.testing.assert_close(ours_now, tensor)
    (line,) = said.notes
    assert said.messages == []
    assert line == f"training.init: starts from the weights of epoch-0000-step-00000003 in {before}"


def test_other_labels_get_a_new_last_layer(before: Path, tmp_path: Path) -> None:
    """In which the rows of the symbols that both have are kept."""
    said = Warnings()
    run = trained(tmp_path / "run", ["c", "x", "a", "y"], f"training.init={before}", *STILL, warnings=said)
    theirs, ours = (load_checkpoint(path, "last").weights for path in (before, run))
    weight, bias = "layers.5.weight", "layers.5.bias"
    for name in theirs.keys() - {weight, bias}:
        torch.testing.assert_close(ours[name], theirs[name])
    for name in (weight, bias):
        torch.testing.assert_close(ours[name][[0, 2]], theirs[name][[2, 0]])
    assert ours[weight].shape == (4, 6)
    assert said.notes[1] == "training.init: the last layer is new for 2 of 4 symbols"


def test_a_resumed_run_does_not_start_again(before: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", ["a", "b", "c"], f"training.init={before}")
    said, kept = Warnings(), load_checkpoint(run, "last").weights
    config = Config.load(run / "config.yaml")
    train(config, run=run, resume="auto", corpus=corpus_of(["a", "b", "c"]), reporter=said)
    assert said.messages == []
    assert all(torch.equal(tensor, kept[name]) for name, tensor in load_checkpoint(run, "last").weights.items())


def test_another_model_is_refused(before: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    with pytest.raises(CheckpointError, match=r"training.init: .*: of another model: hidden 6/.* \(here 6/none/0, 7/"):
        trained(tmp_path / "run", ["a", "b"], f"training.init={before}", "model.hidden=[6,7]")
    settings = FeatureSettings.of("kaldi", coefficients=20, energy=False).to_json()
    with PackedWriter(tmp_path / "corpus", inventory=ARPABET, normalization="none", features=settings) as writer:
        for name in ("train", "dev"):
            writer.add(name, "a", np.ones((40, 20), np.float32), np.zeros(40, int))
    done = run_cli(
        "train",
        "--init",
        "english-small",
        "--set",
        f"data.root={tmp_path}/corpus",
        "--set",
        "data.test=null",
        "--set",
        "loader.batch_size=8",
    )
    assert (
        "(here 20); features computed by other settings; prepare the corpus with its features (--preset course)\n"
        in done.stderr
    )
    assert (
        FeatureSettings.from_json(settings).options()
        == "--preset kaldi --set features.coefficients=20 --set features.energy=false"
    )
    done = run_cli("train", "--init", tmp_path / "nowhere", "--run-folder", tmp_path / "run")
    assert done.exit_code == 1
    assert "nowhere: no such folder; give the folder of a run" in done.stderr
    assert not (tmp_path / "run").exists()
