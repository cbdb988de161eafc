"""What the curves show, read back from the drawn axes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from dali_asr.config import Config
from dali_asr.runs.curves import draw_curves
from dali_asr.training import train
from tests.training_runs import SMALL


def step(number: int, loss: float | None) -> dict[str, Any]:
    return {"kind": "step", "step": number, "epoch": 1, "learning_rate": 1e-3, "loss": loss, "accuracy": 0.5}


def epoch(number: int, last: int, accuracy: float | None) -> dict[str, Any]:
    dev = None if accuracy is None else {"loss": 1.0, "accuracy": accuracy}
    return {"kind": "epoch", "epoch": number, "step": last, "train": {"loss": 1.5, "accuracy": 0.4}, "dev": dev}


def curves(figure: Figure, panel: int = 0) -> dict[str, list[list[float]]]:
    """Return the points of each line by its label."""
    return {str(line.get_label()): line.get_xydata().tolist() for line in figure.axes[panel].lines}  # type: ignore[union-attr]


def test_steps_and_epochs_stand_at_their_steps(drawn: list[Figure], tmp_path: Path) -> None:
    """The third epoch is cut short, so it is as wide as its steps."""
    lines = [step(10, 3.0), step(20, None), step(30, 2.0)]
    lines += [epoch(1, 40, 0.6), epoch(2, 80, 0.7), epoch(3, 90, 0.65)]
    draw_curves(lines, tmp_path / "c.png", "a_run$ (recipe demo)")
    (figure,) = drawn
    found = curves(figure)
    assert found["train, mean of 10 steps"] == [[5, 3.0], [25, 2.0]], "at the middle of the steps that they are of"
    assert [x for x, _ in found["dev, by epoch"]] == [40, 80, 90]
    assert found["best dev accuracy: 70.00%, epoch 2"] == [[80, 0], [80, 1]]
    assert figure.get_suptitle() == "a_run$ (recipe demo)"
    above = figure.axes[0].child_axes[0]
    assert dict(zip([t.get_text() for t in above.get_xticklabels()], above.get_xticks(), strict=True)) == {
        "1": 40,
        "2": 80,
        "3": 90,
    }


@pytest.mark.parametrize("lines", [[], [step(1, None)], [step(5, 1.0)], [epoch(1, 5, None)], [epoch(1, 5, 0.5)]])
def test_runs_with_few_lines_are_drawn(lines: list[dict[str, Any]], drawn: list[Figure], tmp_path: Path) -> None:
    draw_curves(lines, tmp_path / "c.png", "run")
    assert all(tick == int(tick) for tick in drawn[0].axes[0].get_xticks())
    assert not any("best" in label for label in curves(drawn[0])) or lines == [epoch(1, 5, 0.5)]


@pytest.mark.parametrize(
    ("steps", "last", "label"),
    [
        ([1], 5, None),  # the only reading says less than its epoch
        ([20, 40, 60], 13, None),  # so do means over more than an epoch
        ([20, 40, 60], 20, "train, mean of 20 steps"),
        ([20, 40, 45], 20, "train, mean of 20 steps"),  # the last one is of what is left
        ([1, 2, 3], 5, "train, by step"),
    ],
)
def test_means_finer_than_epochs_are_drawn(
    steps: list[int], last: int, label: str | None, drawn: list[Figure], tmp_path: Path
) -> None:
    lines = [*(step(at, 1.0) for at in steps), *(epoch(number, last * number, 0.5) for number in (1, 2, 3))]
    draw_curves(lines, tmp_path / "c.png", "run")
    labels = {name for name in curves(drawn[0]) if name.startswith("train") and name != "train, by epoch"}
    assert labels == ({label} if label else set())


def test_many_epochs_are_numbered_sparsely(drawn: list[Figure], tmp_path: Path) -> None:
    draw_curves([epoch(n, 7 * n, n / 100) for n in range(1, 41)], tmp_path / "c.png", "run")
    assert [text.get_text() for text in drawn[0].axes[0].child_axes[0].get_xticklabels()] == [
        str(number) for number in range(4, 41, 4)
    ]


@pytest.mark.usefixtures("curves_of_runs")
def test_a_resumed_run_shows_all_its_lines_and_its_first_recipe(drawn: list[Figure], tmp_path: Path) -> None:
    run = tmp_path / "first"
    options = [*SMALL, "training.log_every=5"]
    train(Config.load("demo", [*options, "training.max_steps=8"]), run=run, recipe="demo")
    train(Config.load("demo", [*options, "training.max_steps=20"]), run=run, recipe="config", resume=run)
    assert drawn[-1].get_suptitle() == "first (recipe demo)"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in steps if line["kind"] == "step"]
    middles = [2.5, 6.5, 9, 12.5, 17.5]  # of lines at 5, 8, 10, 15 and 20
    assert curves(drawn[-1])["train, mean of 5 steps"] == [list(point) for point in zip(middles, losses, strict=True)]
    assert json.loads((run / "environment.json").read_text())["recipe"] == "demo"
