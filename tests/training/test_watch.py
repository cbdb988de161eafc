"""What is said of a run that goes wrong, and the time it waits for batches."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dali_asr.config import Config
from dali_asr.runs.folder import read_stall
from dali_asr.training import train
from dali_asr.training.clock import DataWait
from dali_asr.training.watch import Watch
from tests.training_runs import SMALL


def epoch(number: int, loss: float, accuracy: float | None, dev_loss: float = 1.0) -> dict[str, Any]:
    dev = None if accuracy is None else {"loss": dev_loss, "accuracy": accuracy}
    return {"epoch": number, "train": {"loss": loss, "accuracy": 0.5}, "dev": dev}


def said_of(epochs: list[dict[str, Any]]) -> list[str]:
    """Return what is said of epochs that come one by one."""
    said: list[str] = []
    watch = Watch(said.append)
    for last in range(1, len(epochs) + 1):
        watch.evaluated(epochs[:last])
    return said


def test_overfitting_is_said_once_and_names_the_best_epoch() -> None:
    better = [epoch(n, 2 - n / 10, 0.5 + n / 100) for n in (1, 2, 3)]
    worse = [epoch(n, 2 - n / 10, 0.52, 1.06) for n in range(4, 12)]
    assert said_of([*better, *worse[:4]]) == []
    (line,) = said_of([*better, *worse])
    assert line.startswith(
        "dev accuracy has been lower and dev loss higher since epoch 3, while the loss in training falls: the"
    )


@pytest.mark.parametrize(
    "after",
    [
        [epoch(n, 2 - n / 10, 0.6 if n == 6 else 0.5, 1.5) for n in range(2, 9)],  # a new best in between
        [epoch(n, 2 + n / 10, 0.5, 1.5) for n in range(2, 9)],  # training gets worse too
        [epoch(n, 2 - n / 10, 0.54, 1.5 if n % 2 else 1.04) for n in range(2, 9)],  # no worse but for noise
        [epoch(n, 2 - n / 10, None) for n in range(2, 9)],  # not evaluated
    ],
)
def test_other_courses_are_not_overfitting(after: list[dict[str, Any]]) -> None:
    assert said_of([epoch(1, 2.0, 0.55), *after]) == []


def test_the_second_jump_of_the_loss_is_said() -> None:
    said: list[str] = []
    watch = Watch(said.append)
    for step, loss in enumerate([3.0, 1.0, 2.5, 2.4, 1.0, None, 0.9]):
        watch.read(step, loss)
    assert said == []
    for step, loss in enumerate([1.9, 5.0, 0.8, 9.0], start=7):
        watch.read(step, loss)
    (line,) = said
    assert line.startswith(
        "the loss rose to more than twice its lowest value for the second time, at step 7 (1.9, lowest"
    )
    assert "training.optimizer.learning_rate" in line


@pytest.mark.parametrize(("stall", "seconds", "count"), [(0.11, 60, 1), (0.1, 60, 0), (0.11, 9, 0)])
def test_a_data_stall_above_a_tenth_of_an_epoch_is_said_once(stall: float, seconds: float, count: int) -> None:
    said: list[str] = []
    watch = Watch(said.append)
    for number in (3, 4):
        watch.waited(number, stall, seconds)
    assert len(said) == count
    assert all("during 11% of epoch 3; dali-asr profile" in line for line in said)


def test_only_the_time_until_a_batch_is_there_is_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    def slow() -> Iterator[int]:
        for number in range(3):
            pass_time(2)
            yield number

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    wait = DataWait()
    for _ in wait.over(slow()):
        pass_time(5)
    assert wait.seconds == 6


def test_the_timings_hold_the_data_stall(tmp_path: Path) -> None:
    run = train(Config.load("demo", [*SMALL, "training.epochs=2"]), run=tmp_path / "run").run
    lines = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(0 < line["data_stall"] < 1 for line in lines)
    whole = sum(line["train_seconds"] for line in lines)
    expected = sum(line["data_stall"] * line["train_seconds"] for line in lines) / whole
    assert read_stall(run) == pytest.approx(expected)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"train_seconds": 0, "data_stall": 0}', "\xff"])
def test_damaged_timings_have_no_stall(content: str, tmp_path: Path) -> None:
    (tmp_path / "timings.jsonl").write_text(content, encoding="latin-1")
    assert read_stall(tmp_path) is None
