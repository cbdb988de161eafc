"""A run that was interrupted, killed or refused continues to the same bits as an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dali_asr.config import Config, ScheduleConfig
from dali_asr.errors import CheckpointError, DataError, TrainingInterrupted, UsageError
from dali_asr.runs import Reporter
from dali_asr.runs.checkpoint import find_checkpoint, list_checkpoints, load_checkpoint
from dali_asr.runs.folder import RunFolder
from dali_asr.runs.start import find_start
from dali_asr.training import train
from dali_asr.training.setup import warmup_warnings
from tests.training_runs import OVERRIDES, Forker, Warnings


def outcome(run: Path) -> tuple[bytes, ...]:
    """Return what must be identical: weights and metrics."""
    last = find_checkpoint(run, "last")
    assert not list(run.rglob("*.partial"))
    return (last / "model.safetensors").read_bytes(), (run / "metrics.jsonl").read_bytes()


def resumed(run: Path, *overrides: str, resume: Any = "auto") -> Any:
    return train(Config.load("demo", [*OVERRIDES, *overrides]), run=None if resume != "auto" else run, resume=resume)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, forker: Forker) -> Path:
    """Return an undisturbed run."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    forker.start(run)
    assert forker.wait() == 0
    return run


def test_killed_at_ten_random_moments(undisturbed: Path, forker: Forker, tmp_path: Path) -> None:
    draw, run = random.Random(7), tmp_path / "run"
    for _ in range(10):
        process = forker.start(run, "training.log_every=4")
        for _ in range(draw.randint(1, 3)):
            assert forker.read().isdecimal()
        time.sleep(draw.uniform(0, 0.05))
        os.kill(process, signal.SIGKILL)
        assert forker.wait() == -signal.SIGKILL
    forker.start(run)
    assert forker.wait() == 0
    assert outcome(run) == outcome(undisturbed)


def test_killed_at_every_write_of_a_checkpoint(undisturbed: Path, forker: Forker, tmp_path: Path) -> None:
    """From the first flush of the run's description to the removal of an old checkpoint."""
    run = tmp_path / "run"
    for number in range(1, 27):
        forker.start(run, DIE_AT_WRITE=str(number))
        assert forker.wait() == -signal.SIGKILL, number
    forker.start(run)
    assert forker.wait() == 0
    assert outcome(run) == outcome(undisturbed)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_ends_the_run(
    number: int, code: int, undisturbed: Path, forker: Forker, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    options = [part for override in OVERRIDES for part in ("--set", override)]
    process = forker.command("train", "demo", "--run-folder", str(run), *options, errors=tmp_path / "errors")
    while not forker.read().startswith("epoch 1  dev"):
        pass
    os.kill(process, number)
    ended = forker.wait()
    errors = (tmp_path / "errors").read_text()
    assert ended == code, errors
    found = re.fullmatch(
        r"interrupted at step (\d+) of 92; the checkpoint is saved, continue with: dali-asr train --resume (.*)\n",
        errors,
    )
    assert found, errors
    assert load_checkpoint(run, "last").step == int(found[1])
    done = run_cli("train", "--resume", found[2])
    assert done.exit_code == 0, done.stderr
    assert f"resumed after step {found[1]}" in done.stdout
    assert outcome(run) == outcome(undisturbed)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    held = RunFolder(run)
    with pytest.raises(UsageError, match="another process trains in this run; wait for it, or choose another folder"):
        resumed(run)
    held.close()
    assert resumed(run, "training.max_steps=1").epochs


def test_a_run_resumes_from_an_older_checkpoint(tmp_path: Path) -> None:
    resumed(tmp_path / "run", "training.keep_checkpoints=9")
    before = list_checkpoints(tmp_path / "run")
    expected = outcome(tmp_path / "run")
    result = resumed(tmp_path / "run", "training.keep_checkpoints=9", resume=before[3])
    assert outcome(result.run) == expected
    assert len(result.epochs) == 4


def test_a_finished_run_is_not_trained_again(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    run = tmp_path / "run"
    first = resumed(run, "training.epochs=1")
    kept = outcome(run)
    again = resumed(run, "training.epochs=1")
    assert again.epochs == first.epochs
    assert again.remark == "Nothing was left to train: step 23 of 23 is done; raise training.epochs"
    assert outcome(run) == kept
    said = run_cli("train", "--resume", run).output
    assert "Nothing was left to train" in said
    assert f"\nCheckpoints, metrics and curves are in {run}\n" in said
    heard = Warnings()
    train(Config.load("demo", [*OVERRIDES, "training.epochs=2"]), run=run, resume="auto", reporter=heard)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["learning_rate"] for line in lines if line["kind"] == "step"}
    (warning,) = heard.messages
    assert warning == (
        "training.schedule.kind: cosine over 46 steps (was 23): the learning rate at the next step "
        f"is {rates[24]:.3g} (it was {rates[23]:.3g})"
    )
    assert str(resumed(run, "training.epochs=9", "training.max_steps=46").remark).endswith("raise training.max_steps")
    both = resumed(run, "training.epochs=2", "training.max_steps=46").remark
    assert str(both).endswith("raise training.epochs and training.max_steps")


def test_a_run_is_not_made_shorter_than_it_is(tmp_path: Path) -> None:
    """Nothing of it changes, so that it goes on later as it would have."""
    run = resumed(tmp_path / "run", "training.epochs=2", "training.max_steps=30", "training.keep_checkpoints=9").run
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for settings, says in (
        (["training.epochs=1"], "1 epoch has 23 steps; raise training.epochs, or"),
        (["training.max_steps=29"], "training.max_steps is 29; raise training.max_steps, or"),
        (
            ["training.epochs=1", "training.max_steps=23"],
            "1 epoch has 23 steps and training.max_steps is 23; raise training.epochs and training.max_steps, or",
        ),
    ):
        for resume in ("auto", run):
            with pytest.raises(UsageError) as raised:
                resumed(run, *settings, resume=resume)
            expected = f"{run}: step 30 is done, and {says} resume from an earlier checkpoint"
            assert str(raised.value) == expected
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files
    at_21 = list_checkpoints(run)[2]
    assert resumed(run, "training.epochs=1", resume=at_21).epochs[-1]["step"] == 23


def test_a_finished_run_removes_the_checkpoints_that_a_kill_left(tmp_path: Path) -> None:
    """Which came between saving the last one and removing an old one."""
    run = tmp_path / "run"
    resumed(run, "training.epochs=1", "training.keep_checkpoints=9")
    *_, before, last = list_checkpoints(run)
    assert resumed(run, "training.epochs=1", "training.keep_checkpoints=2").remark
    assert list_checkpoints(run) == [before, last]


def test_auto_resumes_the_latest_run_of_the_recipe(tmp_path: Path) -> None:
    options = [*OVERRIDES, f"run.folder={tmp_path}", "training.max_steps=3"]
    heard = Warnings()
    first = train(Config.load("demo", options), recipe="mine", resume="auto", reporter=heard).run
    assert first.parent == tmp_path
    assert train(Config.load("demo", options), recipe="mine", resume="auto", reporter=heard).run == first
    assert heard.notes == [f"No run of recipe mine in {tmp_path}/ to resume; starting a new one"]
    assert train(Config.load("demo", options), recipe="other", resume="auto").run != first


def test_a_run_that_begins_instead_of_going_on_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    assert find_start(Config().run, run, "demo", None).note is None
    assert find_start(Config().run, run, "demo", "auto").note == f"No run in {run} to resume; starting a new one"
    run.mkdir()
    (run / "config.yaml").touch()
    without = f"The run in {run} has no checkpoint to resume from; starting it again"
    assert find_start(Config().run, run, "demo", "auto").note == without
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert find_start(Config().run, run, "demo", None).note is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.hidden=[24,32]"], r"of another model: hidden 24/batch/0\.2, 24/layer/0\.2 \(here 24/batch/0\.2, 32/"),
        (
            ["loader.context=4"],
            r"trained with loader\.context \[3, 3\] \(here \[4, 4\]\); go on with 'loader.context=\[3, 3\]', or",
        ),
        (
            ["loader.batch_size=500"],
            r"a global batch of 250 \(here 500\); go on with loader\.batch_size=250, or begin another run$",
        ),
        (
            ["training.seed=1", "loader.subset=3", "loader.drop_last=false"],
            r"loader\.seed 0 \(here 1\), loader\.subset 9 \(here 3\), loader\.drop_last True \(here False\); "
            "go on with loader.seed=0 and loader.subset=9 and loader.drop_last=true, or",
        ),
        (
            ["data.train=dev"],
            r"trained with data\.train 'train' \(here 'dev'\); go on with 'data\.train=\[\"train\"\]', or",
        ),
    ],
)
def test_another_model_or_loader_is_refused(overrides: list[str], message: str, tmp_path: Path) -> None:
    run = resumed(tmp_path / "run", "training.max_steps=3").run
    kept = outcome(run)
    with pytest.raises((CheckpointError, UsageError), match=message):
        resumed(run, *overrides, resume=run)
    assert outcome(run) == kept


def test_what_does_not_change_the_past_may_change_at_resume(tmp_path: Path) -> None:
    """And is recorded, with the step after which it changed; what came after the checkpoint is forgotten."""
    run = resumed(tmp_path / "run", "training.epochs=1", "training.keep_checkpoints=9", "loader.masking=null").run
    first, last = list_checkpoints(run)[0], list_checkpoints(run)[-1]
    before = (last / "model.safetensors").read_bytes()
    changed = (
        "training.epochs=2",
        "training.max_steps=40",
        "model.dropout=[0,0.3]",
        "training.optimizer.learning_rate=0.0005",
        "training.schedule.kind=constant",
        "training.label_smoothing=0",
        "training.log_every=5",
        "training.save_every=null",
        "training.keep_checkpoints=9",
    )
    warnings = Warnings()
    train(Config.load("demo", [*OVERRIDES, *changed]), run=run, resume="auto", reporter=warnings)
    assert (last / "model.safetensors").read_bytes() == before
    assert load_checkpoint(run, "last").step == 40
    lines = changes(run)
    assert [line["step"] for line in lines] == [23] * len(lines)
    assert {line["key"]: (line["old"], line["new"]) for line in lines if line["key"] != "loader.masking"} == {
        "model.dropout": (0.2, [0.0, 0.3]),
        "training.epochs": (1, 2),
        "training.max_steps": (None, 40),
        "training.optimizer.learning_rate": (0.001, 0.0005),
        "training.schedule.kind": ("cosine", "constant"),
        "training.label_smoothing": (0.1, 0.0),
        "training.log_every": (4, 5),
        "training.save_every": (7, None),
    }
    assert lines[0]["key"] == "loader.masking"
    assert not warnings.messages, "what was asked for is no reason to warn"
    (message,) = warnings.notes
    assert message.startswith(f"{run}: from step 24 on, loader.masking {{")
    assert message.endswith(", training.log_every 5 (was 4), training.save_every null (was 7)")

    resumed(run, *changed, "training.max_steps=42", resume=run)
    assert [(line["step"], line["key"]) for line in changes(run)[len(lines) :]] == [(40, "training.max_steps")]
    resumed(run, "training.epochs=1", "training.keep_checkpoints=9", "loader.masking=null", resume=first)
    assert changes(run) == []


def changes(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "changes.jsonl").read_text().splitlines()]


def test_a_warm_up_of_more_than_a_quarter_of_the_run_is_said(tmp_path: Path) -> None:
    schedule = ScheduleConfig(warmup_steps=10)
    assert warmup_warnings(schedule, 40, ["training.epochs"]) == []
    (message,) = warmup_warnings(schedule, 30, ["training.epochs"])
    assert message.endswith("its peak after 33%; lower it to 3, a tenth of the steps, or train for more epochs")
    (message,) = warmup_warnings(schedule, 5, ["training.epochs"])
    assert message.endswith("never reaches its peak; set it to 0, which is no warm-up, or train for more epochs")
    (message,) = warmup_warnings(schedule, 5, ["training.epochs", "training.max_steps"])
    assert message.endswith("no warm-up, or raise training.epochs and training.max_steps")
    warnings = Warnings()
    config = Config.load("demo", [*OVERRIDES, "training.max_steps=9"])
    train(config, run=tmp_path / "run", reporter=warnings)
    (message,) = warnings.messages
    assert message.startswith("training.schedule.warmup_steps: 10, but the run has 9 steps, so that the learning rate")
    assert message.endswith(", or raise training.max_steps")


def test_folders_that_cannot_be_resumed_are_refused(tmp_path: Path) -> None:
    (tmp_path / "long").mkdir()
    (tmp_path / "long/config.yaml").touch()
    (tmp_path / "lnag").mkdir()  # not a run
    for name, near in (("nowhere", ""), ("lnog", f"; did you mean {tmp_path / 'long'}?")):
        with pytest.raises(CheckpointError) as raised:
            resumed(tmp_path, resume=tmp_path / name)
        assert str(raised.value) == (
            f"{tmp_path / name}: no such folder; give the folder of a run, as dali-asr train prints it{near}"
        )
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/text").write_text("mine")
    with pytest.raises(CheckpointError, match="not a run, it has no checkpoints"):
        resumed(tmp_path, resume=tmp_path / "notes")
    with pytest.raises(CheckpointError, match="not a run, and not empty"):
        resumed(tmp_path / "notes")
    assert (tmp_path / "notes/text").read_text() == "mine"
    run = resumed(tmp_path / "run", "training.max_steps=3").run
    with pytest.raises(CheckpointError, match="not a checkpoint; give the folder of a run, or one in its checkpoints"):
        resumed(run, resume=run / "checkpoints/epoch-0009-step-00000009")
    with pytest.raises(UsageError, match="a run continues in its own folder; leave out the former"):
        train(Config.load("demo", [*OVERRIDES]), run=tmp_path / "other", resume=run)
    with pytest.raises(UsageError, match=r"exists and is not empty; choose another folder .*, or continue"):
        train(Config.load("demo", [*OVERRIDES]), run=run)
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match=r"metrics.jsonl: 0 bytes, the checkpoint was saved after \d+; copy the whole"):
        resumed(run)


class Stop(Reporter):
    """Sends SIGTERM at a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def stepped(self, step: int, metrics: dict[str, float | None], speed: float) -> None:
        del metrics, speed
        if step == self._step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("steps", ["training.max_steps=30", "training.epochs=2"])
def test_a_signal_at_the_last_step_leaves_the_evaluation_to_the_resumed_run(steps: str, tmp_path: Path) -> None:
    """Both in an epoch cut short by `max_steps` and in a whole one."""
    last = 30 if "max_steps" in steps else 46
    config = Config.load("demo", [*OVERRIDES, steps, "training.log_every=1"])
    whole = train(config, run=tmp_path / "whole")
    with pytest.raises(TrainingInterrupted, match=f"interrupted at step {last} of {last}; the checkpoint is saved"):
        train(config, run=tmp_path / "run", reporter=Stop(last))
    assert load_checkpoint(tmp_path / "run", "last").epoch == 1
    again = train(config, run=tmp_path / "run", resume="auto")
    assert again.epochs == whole.epochs
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    timed = [json.loads(line)["epoch"] for line in (tmp_path / "run/timings.jsonl").read_text().splitlines()]
    assert timed == [1], "only the evaluation was left of the second"


def test_auto_ignores_runs_of_other_recipes(tmp_path: Path) -> None:
    options = [*OVERRIDES, f"run.folder={tmp_path}", "training.max_steps=3"]
    other = train(Config.load("demo", options), run=tmp_path / "a[b-2-20260101-000000").run
    assert train(Config.load("demo", options), recipe="a[b", resume="auto").run != other


def test_runs_of_one_second_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr("dali_asr.runs.start.datetime", Clock)
    (tmp_path / "mine.yaml").write_text(Config.load("demo").to_yaml())
    options = [*OVERRIDES, f"run.folder={tmp_path}", "training.max_steps=3"]
    config = Config.load(tmp_path / "mine.yaml", options)
    assert config.model_copy().recipe == "mine"
    names = [train(config, recipe=recipe).run.name for recipe in (None, None, "mine")]
    assert names == ["mine-20260102-030405", "mine-20260102-030405-2", "mine-20260102-030405-3"]
    assert train(config, resume="auto").run.name == names[-1]
    assert train(Config.load("demo", options)).run.name == "demo-20260102-030405"
    assert train(Config.check(config.model_dump())).run.name == "run-20260102-030405"


class Impatient(Reporter):
    """Presses Ctrl-C twice at a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def stepped(self, step: int, metrics: dict[str, float | None], speed: float) -> None:
        del metrics, speed
        if step == self._step:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("save_every", "kept"), [("null", None), ("7", "epoch-0000-step-00000007")])
def test_a_second_interrupt_says_what_is_kept_and_how_to_go_on(
    save_every: str, kept: str | None, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    config = Config.load("demo", [*OVERRIDES, f"training.save_every={save_every}", "training.max_steps=20"])
    says = f"{run} keeps the checkpoint {kept}, continue" if kept else "no checkpoint is saved yet, begin again"
    with pytest.raises(TrainingInterrupted, match=f"^interrupted at step 8; {says} with: dali-asr train") as error:
        train(config, run=run, reporter=Impatient(8))
    assert error.value.exit_code == 130
    done = run_cli(*str(error.value).partition("with: dali-asr ")[2].split())
    assert done.exit_code == 0, done.output
    assert load_checkpoint(run, "last").step == 20


def test_runs_in_a_folder_named_checkpoints(tmp_path: Path) -> None:
    run = resumed(tmp_path / "checkpoints/run", "training.max_steps=3").run
    assert resumed(run, "training.max_steps=5", resume=run).epochs[-1]["step"] == 5


def test_a_restart_by_torchrun_continues_from_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = resumed(tmp_path / "run", "training.max_steps=20", "training.keep_checkpoints=9").run
    first, *_, last = list_checkpoints(run)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    for resume in (None, first):
        start = find_start(Config().run, run, "demo", resume)
        assert (start.run, start.checkpoint) == (run, last)
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT")
    assert find_start(Config().run, run, "demo", first).checkpoint == first


def test_a_run_that_another_process_continued_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = resumed(tmp_path / "run", "training.max_steps=3").run
    find = find_start

    def found_too_early(*arguments: Any) -> Any:
        start = find(*arguments)
        monkeypatch.setattr("dali_asr.training.run.find_start", find)
        resumed(run, "training.max_steps=9")
        return start

    monkeypatch.setattr("dali_asr.training.run.find_start", found_too_early)
    with pytest.raises(UsageError, match="another process has just trained in this run; start again"):
        resumed(run)
    assert load_checkpoint(run, "last").step == 9
