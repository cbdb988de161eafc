"""A sweep is complete, continues, and goes on after a run that fails."""

from __future__ import annotations

import csv
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from dali_asr.errors import DataError, TrainingInterrupted, UsageError
from dali_asr.runs.checkpoint import list_checkpoints, load_checkpoint
from dali_asr.sweeps import SweepReporter
from dali_asr.sweeps.combinations import SweepPlan, plan_sweep
from dali_asr.sweeps.results import RunOutcome, combine, to_csv
from dali_asr.sweeps.sweep import sweep
from tests.training_runs import SMALL, Forker, fill_disk

Run = Callable[..., Any]
RATES = "training.optimizer.learning_rate=1e-3,3e-2"
OPTIONS = (*SMALL, "training.epochs=1", "training.max_steps=4", "loader.batch_size=1000", "loader.seed=0")


def plan(*vary: str, seeds: int | None = None, more: tuple[str, ...] = ()) -> SweepPlan:
    return plan_sweep("demo", vary or (RATES,), overrides=[*OPTIONS, *more], seeds=seeds)


def weights(folder: Path) -> dict[str, bytes]:
    """Return the last weights of every run by name."""
    return {run.name: (list_checkpoints(run)[-1] / "model.safetensors").read_bytes() for run in folder.glob("runs/*")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished sweep: two rates, two seeds."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    sweep(plan(seeds=2), folder)
    return folder


class _Stopping(SweepReporter):
    """Interrupts after a number of finished runs, as a killed process would."""

    def __init__(self, runs: int) -> None:
        self._runs = runs

    def finished(self, run: RunOutcome, done: int, total: int) -> None:
        assert total == 4
        if done == self._runs:
            raise KeyboardInterrupt


def test_every_run_is_an_ordinary_run_and_the_results_are_its_metrics(whole: Path) -> None:
    found = json.loads((whole / "results.json").read_text())
    assert [run["name"] for run in found["runs"]] == [run.name for run in plan(seeds=2).runs]
    for run in found["runs"]:
        checkpoint = load_checkpoint(whole / "runs" / run["name"])
        assert checkpoint.metrics
        assert (run["accuracy"], run["steps"]) == (checkpoint.metrics["dev"]["accuracy"], 4)
    for row in found["combinations"]:
        accuracies = [run["accuracy"] for run in found["runs"] if run["values"] == row["values"]]
        assert row["mean"] == pytest.approx(statistics.mean(accuracies))
        assert row["deviation"] == pytest.approx(statistics.stdev(accuracies))
    means = [row["mean"] for row in found["combinations"]]
    assert means == sorted(means, reverse=True)
    with (whole / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["run"], float(row["dev_accuracy"])) for row in rows} == {
        (r["name"], r["accuracy"]) for r in found["runs"]
    }
    assert (whole / "results.png").read_bytes()[:4] == b"\x89PNG"


def test_an_interrupted_sweep_continues_where_it_was(whole: Path, tmp_path: Path) -> None:
    """Finished runs are not touched; the others end with the same weights to the bit."""
    folder = tmp_path / "sweep"
    with pytest.raises(TrainingInterrupted, match=r"^interrupted with 2 of 4 runs finished; the same sweep") as stopped:
        sweep(plan(seeds=2), folder, reporter=_Stopping(2))
    assert stopped.value.exit_code == 130
    assert (folder / "results.png").exists()
    kept = {run: run.stat().st_mtime_ns for run in folder.glob("runs/*/metrics.jsonl")}
    assert len(kept) == 2
    sweep(plan(seeds=2), folder)
    assert all(run.stat().st_mtime_ns == time for run, time in kept.items())
    assert weights(folder) == weights(whole)
    (folder / "results.json").write_text('{"runs": [{"na')
    found = sweep(plan(seeds=2), folder)
    assert [run.status for run in found] == ["done"] * 4, "damaged results are written anew"
    assert weights(folder) == weights(whole)


@pytest.mark.parametrize(("together", "write"), [("off", 30), ("on", 17)])
def test_a_killed_sweep_continues(
    together: str, write: int, whole: Path, forker: Forker, run_cli: Run, tmp_path: Path
) -> None:
    """Killed while the second run, or the second of the first checkpoints, is written."""
    settings = [word for setting in OPTIONS for word in ("--set", setting)]
    folder = tmp_path / "sweep"
    command = ["sweep", "demo", "--vary", RATES, *settings, "--seeds", "2", "-o", str(folder), "--together", together]
    forker.start(Path(), COMMAND=json.dumps(command), ERRORS=str(tmp_path / "errors"), DIE_AT_WRITE=str(write))
    assert forker.wait() == -9
    done = run_cli(*command)
    assert done.exit_code == 0, done.output
    assert not list(folder.rglob("*.partial"))
    names = {run.name for run in plan(seeds=2).runs}
    assert {run["name"] for run in json.loads((folder / "results.json").read_text())["runs"]} == names
    if together == "off":
        assert weights(folder) == weights(whole)


def test_runs_that_train_together_reach_what_runs_alone_reach(whole: Path, tmp_path: Path) -> None:
    found = sweep(plan(seeds=2), tmp_path / "sweep", together="on")
    alone = {run["name"]: run["accuracy"] for run in json.loads((whole / "results.json").read_text())["runs"]}
    for run in found:
        assert run.accuracy == pytest.approx(alone[run.name], abs=2e-3)


@pytest.mark.parametrize("together", ["on", "off"])
def test_a_sweep_goes_on_after_a_run_that_fails(together: Any, run_cli: Run, tmp_path: Path) -> None:
    settings = [word for setting in (*OPTIONS, "training.log_every=2") for word in ("--set", setting)]
    vary = ["--vary", "training.optimizer.learning_rate=1e30,1e-3", "--vary", "loader.context=1,2"]
    folder = tmp_path / "sweep"
    done = run_cli("sweep", "demo", *vary, *settings, "-o", folder, "--together", together)
    assert done.exit_code == 1, done.output
    assert "warning: 1-learning_rate-1e30-context-1: the loss is not finite at step" in done.stderr
    assert (
        "2 runs of 4 failed: 1-learning_rate-1e30-context-1, 2-learning_rate-1e30-context-2; results.csv" in done.stderr
    )
    status = {run["name"]: run["status"] for run in json.loads((folder / "results.json").read_text())["runs"]}
    assert list(status.values()) == ["failed", "failed", "done", "done"]


def test_the_command_prints_a_table_and_the_best_run(whole: Path, run_cli: Run) -> None:
    settings = [word for setting in OPTIONS for word in ("--set", setting)]
    done = run_cli("sweep", "demo", "--vary", RATES, *settings, "--seeds", 2, "-o", whole)
    assert done.exit_code == 0, done.output
    table = done.stdout.splitlines()
    assert table[0].split() == ["learning_rate", "dev", "accuracy", "±", "s.d.", "runs"]
    assert {line.split()[0] for line in table[1:3]} == {"1e-3", "3e-2"}
    best = max(json.loads((whole / "results.json").read_text())["runs"], key=lambda run: run["accuracy"])
    assert table[-1] == f"Next: dali-asr evaluate {whole / 'runs' / best['name']}"


def test_an_interrupted_command_says_how_to_continue(
    run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise TrainingInterrupted("interrupted with 0 of 2 runs finished; the same sweep started again continues", 130)

    monkeypatch.setattr("dali_asr.sweeps.sweep.sweep", interrupted)
    done = run_cli("sweep", "demo", "--vary", "model.hidden=[8],[4]", "--seeds", 2, "-o", tmp_path / "s")
    assert done.exit_code == 130
    command = f"dali-asr sweep demo --vary 'model.hidden=[8],[4]' --seeds 2 --together auto -o {tmp_path / 's'}"
    assert done.stderr.endswith(f"the same sweep started again continues: {command}\n")


def test_a_folder_of_something_else_is_refused(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a").write_text("mine")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/sweep.json").write_text("[")
    for name, message in (("file", "is a file"), ("notes", "exists and is not a sweep"), ("damaged", "damaged")):
        with pytest.raises(UsageError, match=message):
            sweep(plan(), tmp_path / name)
    before = (whole / "results.json").read_bytes()
    with pytest.raises(
        UsageError, match=r"is of another sweep, with another training\.max_steps, seeds; choose another"
    ):
        sweep(plan(seeds=3, more=("training.max_steps=5",)), whole)
    with pytest.raises(UsageError, match="with another vary; choose another"):
        sweep(plan("training.optimizer.learning_rate=1e-3", seeds=2), whole)
    assert (whole / "results.json").read_bytes() == before
    with FileLock(whole / ".lock"), pytest.raises(UsageError, match="another process sweeps here"):
        sweep(plan(seeds=2), whole)


def test_a_missing_corpus_is_found_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root: .*no such folder"):
        sweep(plan("data.root=demo,/nowhere"), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_several_processes_do_not_sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="runs in one process"):
        sweep(plan(), tmp_path / "sweep")


def test_a_full_disk_ends_the_sweep_and_leaves_it_whole(
    whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", os.fsync)  # to be restored
        fill_disk(12)
        with pytest.raises(DataError, match=r"No space left on device while writing; free some space"):
            sweep(plan(seeds=2), folder)
    assert not list(folder.rglob("*.partial"))
    sweep(plan(seeds=2), folder)
    assert weights(folder) == weights(whole)


def test_combinations_without_an_accuracy_come_last() -> None:
    runs = [
        RunOutcome("a", {"k": 1}, 0, "failed", error="a, b"),
        RunOutcome("b", {"k": 2}, 0, "done", 0.5, 1, 4),
        RunOutcome("c", {"k": 3}, 0, "done", 0.7, 1, 4),
        RunOutcome("d", {"k": 3}, 1, "done", 0.6, 1, 4),
    ]
    rows = combine(runs)
    assert [row.values["k"] for row in rows] == [3, 2, 1]
    assert rows[0].mean == pytest.approx(0.65)
    assert (rows[1].deviation, rows[2].failed) == (None, 1)
    assert to_csv(runs).decode().splitlines()[-1] == 'a,1,0,failed,,,,"a, b"'


def test_the_plot_has_a_panel_per_key(drawn: list[Any], tmp_path: Path) -> None:
    """Points at the accuracies, a line through the means of values that are numbers, in their order."""
    from dali_asr.sweeps.plot import draw_sweep

    runs = [
        RunOutcome(f"{rate}{hidden}", {"a.rate": rate, "a.hidden": hidden}, 0, "done", accuracy, 1, 4)
        for rate, hidden, accuracy in ((0.1, [8], 0.4), (0.1, [4], 0.6), (0.01, [8], 0.1), (0.01, [4], 0.3))
    ]
    draw_sweep(runs, tmp_path / "a.png", "title")
    panels = drawn[0].axes
    assert [axes.get_xlabel() for axes in panels] == ["rate", "hidden"]
    assert [text.get_text() for text in panels[0].get_xticklabels()] == ["0.01", "0.1"]
    points, means = panels[0].get_lines()
    assert sorted(zip(points.get_xdata(), points.get_ydata(), strict=True)) == [(0, 0.1), (0, 0.3), (1, 0.4), (1, 0.6)]
    assert list(means.get_ydata()) == pytest.approx([0.2, 0.5])
    assert [axes.get_lines()[1].get_linestyle() for axes in panels] == ["-", "None"], "categories have no order"
