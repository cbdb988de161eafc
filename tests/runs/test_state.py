"""Values of the wrong kind in a checkpoint are refused, even if its checksums match."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dali_asr.config import Config
from dali_asr.errors import CheckpointError, UsageError
from dali_asr.runs.checkpoint import find_checkpoint, load_checkpoint
from dali_asr.training import train
from dali_asr.training.restoring import _batch_size_advice
from tests.training_runs import SMALL, Warnings, damage

NAN = float("nan")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two epochs, with averaged weights and a lowered rate."""
    options = ["training.epochs=2", "training.ema=0.9", "training.schedule.kind=plateau", "loader.batch_size=250"]
    options += ["training.schedule.patience=0", "training.optimizer.learning_rate=1e-30", "training.log_every=4"]
    return train(Config.load("demo", [*SMALL, *options]), run=tmp_path_factory.mktemp("state") / "run").run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the run, to be damaged."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def resumed(run: Path, *overrides: str) -> list[str]:
    """Resume for an epoch, and return the warnings."""
    heard = Warnings()
    config = Config.load("demo", [*SMALL, "loader.batch_size=250", "training.epochs=3", "training.ema=0.9", *overrides])
    train(config, run=run, resume="auto", reporter=heard)
    return heard.messages


def put(*path: Any, value: Any) -> Callable[[Any], Any]:
    """Return a function that replaces the value at a path."""

    def change(values: Any) -> Any:
        inner = values
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return values

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("epochs",), []),
        (("epochs",), {}),
        (("epochs", 0, "epoch"), -1),
        (("epochs", 1, "step"), 10**9),
        (("epochs", 0, "train"), None),
        (("epochs", 0, "dev", "accuracy"), NAN),
        (("epochs", 0, "dev", "accuracy"), "high"),
        (("epoch_is_over",), 1),
        (("global_batch",), 0),
        (("unknown",), 1),
        (("loader",), []),
        (("loader", "epoch"), "one"),
        (("loader", "belongs_to"), None),
        (("generators", "cpu"), [torch.zeros(3)]),
        (("generators", "cpu"), [torch.zeros(3, dtype=torch.uint8)]),
        (("generators",), {}),
        (("stepper", "steps"), -1),
        (("stepper", "steps"), 3),
        (("stepper", "unaveraged"), ({}, 1)),
        (("stepper", "optimizer"), {0: {}}),
        (("stepper", "optimizer", 0, "exp_avg"), torch.zeros(1)),
        (("stepper", "optimizer", 0, "exp_avg_sq"), torch.full((8, 84), NAN)),
        (("stepper", "optimizer", 0, "step"), torch.tensor(NAN)),
        (("stepper", "schedule", "waited"), {}),
        (("stepper", "schedule", "scale"), NAN),
        (("stepper", "schedule", "scale"), -1.0),
        (("stepper", "scaler"), {"scale": 1.0}),
        (("stepper", "metrics", "counts"), torch.tensor([[2, 1], [1, 2]])),
        (("stepper", "metrics", "counts"), torch.tensor([2, 1])),
        (("stepper", "metrics", "loss"), torch.zeros((), dtype=torch.float64)),
    ],
)
def test_an_invalid_training_state_is_refused(path: tuple[Any, ...], value: Any, run: Path) -> None:
    damage(find_checkpoint(run, "last") / "training.pt", put(*path, value=value))
    with pytest.raises(
        (CheckpointError, UsageError), match=r"use the checkpoint before: |trained with|not a loader state"
    ):
        resumed(run)


def test_a_training_state_that_is_no_mapping_is_refused(run: Path) -> None:
    damage(find_checkpoint(run, "last") / "training.pt", lambda _: [1, 2])
    with pytest.raises(CheckpointError, match="use the checkpoint before: "):
        resumed(run)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("epoch",), -1),
        (("epoch",), 1),
        (("step",), 7),
        (("step",), "46"),
        (("step",), True),
        (("best",), ["../../elsewhere", 0.5]),
        (("best",), "best"),
        (("metrics",), {}),
        (("metrics", "epoch"), 0),
        (("metrics_bytes",), -1),
        (("metrics_bytes",), 1.5),
        (("metrics_sha256",), ""),
        (("model", "feature_dim"), 27),
        (("model", "feature_dim"), "28"),
        (("model", "context"), [1]),
        (("model", "hidden", 0, "width"), 10**12),
        (("model", "hidden", 0, "dropout"), 2.0),
        (("model", "residual"), "yes"),
        (("model", "inventory"), [1] * 42),
        (("model", "normalization"), {"kind": "global", "mean": ["a"]}),
    ],
)
def test_an_invalid_description_of_a_checkpoint_is_refused(path: tuple[Any, ...], value: Any, run: Path) -> None:
    damage(find_checkpoint(run, "last") / "checkpoint.json", put(*path, value=value))
    with pytest.raises(CheckpointError, match="use the checkpoint before: "):
        load_checkpoint(run, "last")
    with pytest.raises(CheckpointError, match="use the checkpoint before: "):
        resumed(run)


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, run: Path) -> None:
    name = "layers.1.weight"
    damage(find_checkpoint(run, "last") / "model.safetensors", lambda w: {**w, name: torch.full_like(w[name], value)})
    with pytest.raises(CheckpointError, match=r"has values that are not finite.*; use the checkpoint before: "):
        load_checkpoint(run, "last")


@pytest.mark.parametrize("change", ["integers", "shape", "missing", "unknown"])
def test_weights_of_another_model_are_refused(change: str, run: Path) -> None:
    def changed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        name, tensor = next(iter(weights.items()))
        others = {key: weights[key] for key in list(weights)[1:]}
        new = {"integers": {name: tensor.long()}, "shape": {name: tensor[:1].clone()}, "missing": {}}
        return others | new.get(change, {name: tensor, "other": torch.zeros(1)})

    damage(find_checkpoint(run, "last") / "model.safetensors", changed)
    with pytest.raises(CheckpointError, match=r"do not fit the model it describes .*; use the checkpoint before: "):
        load_checkpoint(run, "last")


def test_a_renamed_checkpoint_is_refused(run: Path) -> None:
    last = find_checkpoint(run, "last")
    last.rename(last.with_name("epoch-0003-step-00000069"))
    with pytest.raises(CheckpointError, match="unlike its folder"):
        load_checkpoint(run, "last")


def test_a_checkpoint_of_the_format_before_is_refused(run: Path) -> None:
    damage(find_checkpoint(run, "last") / "checkpoint.json", put("version", value=2))
    with pytest.raises(CheckpointError, match=r"checkpoint format 2, this dali-asr reads 3; use the version that"):
        resumed(run)


def test_every_flip_in_the_metrics_is_found_on_resume(run: Path) -> None:
    metrics = run / "metrics.jsonl"
    content = metrics.read_bytes()
    for at in range(0, len(content), max(len(content) // 15, 1)):
        metrics.write_bytes(content[:at] + bytes([content[at] ^ 0x81]) + content[at + 1 :])
        with pytest.raises(CheckpointError, match=r"metrics.jsonl: damaged, .*; copy the whole run again, or use the "):
            resumed(run)
    metrics.write_bytes(content + b"\xff not of the checkpoint")
    assert resumed(run) is not None, "what follows the checkpoint is cut off"


def test_a_failure_to_draw_curves_is_a_warning(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise ValueError("no\nink")

    monkeypatch.setattr("dali_asr.runs.folder.draw_curves", failing)
    assert resumed(run, "training.schedule.kind=plateau")[-1].endswith("curves.png: not drawn (ValueError: no ink)")


def test_a_lowered_rate_is_not_kept_in_silence(run: Path) -> None:
    messages = resumed(run, "training.schedule.kind=constant", "training.optimizer.learning_rate=1e-30")
    assert any("plateau schedule had lowered the learning rate to 0.5 of its peak; constant" in m for m in messages)
    last = (run / "metrics.jsonl").read_text().splitlines()[-2]
    assert '"learning_rate": 1e-30' in last


def test_partial_files_of_killed_processes_are_removed(run: Path) -> None:
    (run / "checkpoints/.epoch-0001-step-00000023.0a1b2c3d.partial").mkdir()
    (run / "checkpoints/.epoch-0001-step-00000023.0a1b2c3d.partial/training.pt").write_bytes(b"half")
    (run / ".config.yaml.0a1b2c3d.partial").write_bytes(b"half")
    resumed(run, "training.schedule.kind=plateau")
    assert not list(run.rglob("*.partial"))


def test_the_advice_on_the_batch_size_fits() -> None:
    assert _batch_size_advice(500, 2) == "loader.batch_size=250"
    advice = _batch_size_advice(500, 3)
    assert advice.endswith("3 cannot share the global batch of 500, use 1, 2, 4, 5")
