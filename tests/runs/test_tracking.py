"""TensorBoard and W&B get the metrics, and their failures never end a run."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dali_asr.config import Config
from dali_asr.training import train
from tests.training_runs import SMALL, Warnings

SECRET = "0123456789abcdef0123456789abcdef01234567"


def tracked(run: Path, *trackers: str, resume: str | None = None, epochs: int = 1) -> tuple[Path, list[str]]:
    heard = Warnings()
    options = [*SMALL, f"training.epochs={epochs}", f"tracking=[{','.join(trackers)}]", "training.log_every=5"]
    result = train(Config.load("demo", options), run=run, resume=resume, reporter=heard)
    return result.run, heard.messages


def test_tensorboard_gets_the_metrics(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, warnings = tracked(tmp_path / "run", "tensorboard")
    tracked(run, "tensorboard", resume="auto", epochs=2)
    assert warnings == []
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    found = events.Scalars("step/loss")
    assert [event.step for event in found] == [line["step"] for line in steps]
    assert [event.value for event in found] == pytest.approx([line["loss"] for line in steps])
    assert {"dev/accuracy", "train/loss", "step/learning_rate"} <= set(events.Tags()["scalars"])


@pytest.fixture
def fresh_wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make W&B read the environment again."""
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_without_a_key_is_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run, warnings = tracked(tmp_path / "run", "wandb")
    assert len(warnings) == 1
    assert "wandb found no key in the environment (WANDB_API_KEY); its run is recorded offline" in warnings[0]
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_that_cannot_reach_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is recorded offline, and no file of it contains the key."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("dali_asr.runs.tracking._WAIT", 3)
    run, warnings = tracked(tmp_path / "run", "wandb")
    assert len(warnings) == 1
    assert "wandb cannot reach its server" in warnings[0]
    assert warnings[0].endswith("its run is recorded offline")
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))
    assert not [path for path in run.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_missing_package_gives_a_warning(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def refusing(module: str, *arguments: Any, **named: Any) -> Any:
        if module.startswith(name) or module == f"torch.utils.{name}":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return importing(module, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refusing)
    _, warnings = tracked(tmp_path / "run", name)
    assert len(warnings) == 1
    assert f"{name} is not installed; install it (pip install 'dali-asr[{name}]'), or remove it" in warnings[0]


def test_a_failing_tracker_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise ValueError("no\nspace")

    monkeypatch.setattr("dali_asr.runs.tracking._TensorBoard.__init__", lambda *_: None)
    monkeypatch.setattr("dali_asr.runs.tracking._TensorBoard.log", failing)
    run, warnings = tracked(tmp_path / "run", "tensorboard")
    assert warnings == ["tracking: tensorboard failed (ValueError: no space); training continues without it"]
    assert (run / "metrics.jsonl").read_text().count("\n") > 2
