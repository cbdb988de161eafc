"""Training on a GPU: no step waits for it, and the model learns in every precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dali_asr.config import Config
from dali_asr.loading import Batch
from dali_asr.model import MLP, HiddenLayer
from dali_asr.training import train
from dali_asr.training.distributed import World
from dali_asr.training.setup import build_stepper

WORLD = World(torch.device("cuda", 0))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_no_step_waits_for_the_device(precision: str, clip: float | None) -> None:
    settings: dict[str, Any] = {"precision": precision, "ema": 0.9, "label_smoothing": 0.1}
    settings |= {"optimizer": {"max_gradient_norm": clip}, "schedule": {"kind": "cosine", "warmup_steps": 2}}
    config = Config.check({"training": settings}).training
    layers = (HiddenLayer(64, 0.2, "batch"), HiddenLayer(64, 0.2, "layer"))
    model = MLP(window=5, feature_dim=28, classes=42, hidden=layers, residual=True).to(WORLD.device)
    stepper = build_stepper(model, config, WORLD, steps=20, class_weights=torch.ones(42, device=WORLD.device))
    windows = torch.randn(256, 5, 28, device=WORLD.device)
    batch = Batch(windows, torch.randint(0, 42, (256,), device=WORLD.device), torch.arange(256, device=WORLD.device))

    def train_on() -> None:
        stepper.backward(stepper.forward(batch))
        stepper.update()

    for _ in range(3):
        train_on()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(10):
            train_on()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert stepper.metrics.compute()["loss"] is not None


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_demo_is_learned(precision: str, tmp_path: Path) -> None:
    options = [f"training.precision={precision}", "loader.device=cuda", "training.epochs=2"]
    result = train(Config.load("demo", options), run=tmp_path / "run")
    assert result.epochs[-1]["dev"]["accuracy"] > 0.7


def test_a_resumed_run_goes_on(tmp_path: Path) -> None:
    options = ["loader.device=cuda", "training.ema=0.9", "training.save_every=7"]
    train(Config.load("demo", [*options, "training.max_steps=20"]), run=tmp_path / "run")
    result = train(Config.load("demo", [*options, "training.max_steps=30"]), run=tmp_path / "run", resume="auto")
    assert result.epochs[-1]["step"] == 30
