"""Two processes train one model, with torchrun and gloo."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dali_asr.runs.checkpoint import find_checkpoint, list_checkpoints, load_checkpoint
from tests.training_runs import Forker

# Without batch norm and dropout, whose results depend on how a batch is split.
TWO_EPOCHS = ("loader.batch_size=125", "training.epochs=2")
PLAIN = ("model.norm=layer", "model.dropout=0", "loader.drop_last=false")


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    forker.finish(run, *PLAIN, "loader.batch_size=250")
    return run


def assert_same_curve(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert {k: a[k] for k in ("kind", "epoch", "step")} == {k: b[k] for k in ("kind", "epoch", "step")}
        for name in ("train", "dev") if a["kind"] == "epoch" else (None,):
            x, y = (a, b) if name is None else (a[name], b[name])
            assert x["loss"] == pytest.approx(y["loss"], rel=1e-5)
            assert x["accuracy"] == pytest.approx(y["accuracy"], abs=2e-3)


@pytest.fixture(scope="module")
def two(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return a run of two processes that kept all its checkpoints, and what it printed."""
    run = tmp_path_factory.mktemp("two") / "run"
    options = (*PLAIN, "loader.batch_size=125", "training.keep_checkpoints=99")
    return run, forker.finish(run, *options, ranks=2)


@pytest.fixture(scope="module")
def two_epochs(forker: Forker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two processes over two epochs, with batch norm and dropout."""
    run = tmp_path_factory.mktemp("epochs") / "run"
    forker.finish(run, *TWO_EPOCHS, ranks=2)
    return run


def test_two_processes_give_the_loss_curve_of_one(alone: Path, two: tuple[Path, list[str]]) -> None:
    """With the same global batch. The last steps of an epoch are ragged, and unlabelled frames do not count."""
    run, printed = two
    assert printed == [str(step) for step in (*range(4, 97, 4),)], "rank 0 alone reports"
    assert_same_curve(lines(run), lines(alone))
    ours, theirs = (load_checkpoint(run, "last").weights for run in (run, alone))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-5)


def test_one_process_continues_a_run_of_two(
    alone: Path, two: tuple[Path, list[str]], forker: Forker, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(two[0], run)
    for checkpoint in list_checkpoints(run):
        if int(checkpoint.name[-8:]) > 42:
            shutil.rmtree(checkpoint)
    assert load_checkpoint(run, "last").step == 42
    forker.finish(run, *PLAIN, "loader.batch_size=250")
    assert_same_curve(lines(run), lines(alone))


def test_batch_norm_and_dropout_train_on_two_processes(two_epochs: Path) -> None:
    assert (find_checkpoint(two_epochs, "last") / "training.pt").is_file()


def test_a_rank_that_dies_ends_the_others(forker: Forker, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = forker.end(run, "loader.batch_size=125", AGENT_RESTARTS="0", DIE_ON_RANK="1", DIE_AT_STEP="30")
    assert ended == 1
    # Rank 0 fails too when its peer is gone; which of them torch's agent sees first is up to the machine.
    assert forker.printed[-1] in ("rank 1 failed with exit code 3", "rank 0 failed with exit code 1")
    assert load_checkpoint(run, "last").step == 28


def test_an_elastic_restart_continues_from_the_last_checkpoint(
    two_epochs: Path, forker: Forker, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert forker.end(run, *TWO_EPOCHS, AGENT_RESTARTS="1", DIE_ON_RANK="1", DIE_AT_STEP="30") == 0
    assert [int(line) for line in forker.printed] == [*range(4, 29, 4), *range(32, 47, 4), 46]
    for name in ("metrics.jsonl", "checkpoints/epoch-0002-step-00000046/model.safetensors"):
        assert (run / name).read_bytes() == (two_epochs / name).read_bytes()


def test_a_full_disk_ends_all_ranks_with_its_error(forker: Forker, tmp_path: Path) -> None:
    options = ("loader.batch_size=125", "training.epochs=1", "training.on_write_error=stop")
    assert forker.end(tmp_path / "run", *options, ranks=2, FULL_FROM="12") == 1
    raised = [line for line in forker.printed if "Error: " in line]
    told = [line for line in raised if "DataError" in line and "No space left on device while writing" in line]
    assert len(told) == 2, forker.printed
    assert len(set(told)) == 1
    assert not any("RuntimeError" in line for line in raised)


def test_a_used_folder_is_refused_once(forker: Forker, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes").write_text("mine")
    command = ["train", "--run-folder", str(tmp_path / "run"), "--set", "loader.device=cpu"]
    ended = forker.end(
        Path(),
        ranks=2,
        COMMAND=json.dumps(command),
        ERRORS=str(tmp_path / "err"),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert ended == 2
    errors = (tmp_path / "err").read_text()
    assert errors.count("exists and is not empty; choose another folder") == 1
    assert "unexpected" not in errors
    assert not (tmp_path / "cache").exists(), "refused before the corpus was opened"
