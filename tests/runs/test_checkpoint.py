"""Checkpoints appear whole or not at all, damage is found, and nothing in them is executed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dali_asr.audio.settings import FeatureSettings
from dali_asr.config import Config
from dali_asr.corpus import Normalization
from dali_asr.corpus.segment_counts import SegmentCounts
from dali_asr.errors import CheckpointError, DataError
from dali_asr.inventory import ARPABET, Inventory
from dali_asr.model import HiddenLayer
from dali_asr.runs.checkpoint import (
    Checkpoint,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    read_checkpoint,
    read_training,
    save_checkpoint,
)
from dali_asr.runs.description import ModelDescription
from dali_asr.runs.run_path import check_run_folder
from dali_asr.training import train
from tests.training_runs import SMALL, Warnings

DESCRIPTION = ModelDescription(
    (1, 2),
    3,
    (HiddenLayer(4, 0.1, "batch"),),
    "gelu",
    False,
    ARPABET,
    Normalization("utterance"),
    FeatureSettings.of("librosa"),
)


def training_state(epoch: int, step: int) -> dict[str, Any]:
    measured = {"loss": 1.0, "accuracy": 0.5}
    return {
        "stepper": {
            "steps": step,
            "unaveraged": None,
            "optimizer": {},
            "schedule": {"scale": 1.0, "best": None, "waited": 0},
            "scaler": None,
            "metrics": {"loss": torch.zeros(2, dtype=torch.float64), "counts": torch.zeros(2, 2, dtype=torch.int64)},
        },
        "loader": {},
        "global_batch": 1,
        "generators": {"cpu": [torch.arange(step, dtype=torch.uint8)]},
        "epochs": [
            {"kind": "epoch", "epoch": at + 1, "step": step - epoch + at + 1, "train": measured, "dev": None}
            for at in range(epoch)
        ],
        "epoch_is_over": False,
    }


def save(run: Path, epoch: int, step: int, best: str | None = None, keep: int = 9) -> Path:
    torch.manual_seed(step)
    weights = DESCRIPTION.build().state_dict()
    segments = SegmentCounts.empty(42)
    segments.add(np.array([1, 1, 2]), np.array([0, 3]))
    found = (best, 0.5) if best else None
    made = Checkpoint(DESCRIPTION, epoch, step, None, found, 0, weights, segments=segments)
    save_checkpoint(run / "checkpoints", made, training_state(epoch, step), keep=keep)
    return run / "checkpoints" / made.name


def test_a_checkpoint_is_read_as_it_was_saved(tmp_path: Path) -> None:
    path = save(tmp_path, 1, 7)
    read = read_checkpoint(path)
    assert (read.description, read.epoch, read.step, read.best) == (DESCRIPTION, 1, 7, None)
    torch.manual_seed(7)
    for name, tensor in DESCRIPTION.build().state_dict().items():
        assert torch.equal(read.weights[name], tensor)
    assert read.segments is not None
    assert np.argwhere(read.segments.transitions).tolist() == [[1, 2], [2, 42], [42, 1]]
    assert torch.equal(read_training(path).generators["cpu"][0], torch.arange(7, dtype=torch.uint8))
    assert read.build(torch.device("cpu"))(torch.zeros(2, 4, 3)).shape == (2, 42)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=path, check=True, capture_output=True)


def test_every_cut_and_every_flipped_byte_is_found(tmp_path: Path) -> None:
    before, path = save(tmp_path, 0, 3), save(tmp_path, 0, 7)
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        places = range(0, len(content), max(len(content) // 40, 1))
        damaged = [content[:at] for at in places]
        damaged += [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in places]
        for changed in damaged:
            file.write_bytes(changed)
            with pytest.raises(CheckpointError, match=rf"use the checkpoint before: {before}$"):
                _ = read_checkpoint(path), read_training(path)
        file.unlink()
        with pytest.raises(CheckpointError, match="No such file"):
            _ = read_checkpoint(path), read_training(path)
        file.write_bytes(content)
    assert read_checkpoint(path).step == 7


def test_checkpoints_may_lack_counts_of_segments_but_not_have_wrong_ones(tmp_path: Path) -> None:
    path = save(tmp_path, 0, 7)
    sums = (path / "SHA256SUMS").read_text()
    for content in (b"{}", b"[]", b'{"frames": [1], "transitions": [], "durations": []}'):
        (path / "segments.json").write_bytes(content)
        others = [line for line in sums.splitlines(keepends=True) if "segments.json" not in line]
        changed = [*others, f"{hashlib.sha256(content).hexdigest()}  segments.json\n"]
        (path / "SHA256SUMS").write_text("".join(changed))
        with pytest.raises(CheckpointError, match=r"segments\.json: invalid \(.*\); train again"):
            read_checkpoint(path)
    (path / "segments.json").unlink()
    (path / "SHA256SUMS").write_text("".join(others))
    assert read_checkpoint(path).segments is None


def test_the_last_few_and_the_best_are_kept(tmp_path: Path) -> None:
    best = save(tmp_path, 1, 1, best="epoch-0001-step-00000001", keep=2)
    for step in range(2, 6):
        save(tmp_path, 1, step, best=best.name, keep=2)
        assert find_checkpoint(tmp_path, "best") == best
    assert [int(path.name[-8:]) for path in list_checkpoints(tmp_path)] == [1, 4, 5]
    save(tmp_path, 1, 5, best=best.name, keep=1)
    assert [int(path.name[-8:]) for path in list_checkpoints(tmp_path)] == [1, 5]


def test_the_best_of_every_kept_checkpoint_is_kept(tmp_path: Path) -> None:
    """So that it is still there when the run goes on from an older checkpoint."""
    first = save(tmp_path, 1, 1, best="epoch-0001-step-00000001", keep=2)
    save(tmp_path, 2, 2, best=first.name, keep=2)
    save(tmp_path, 3, 3, best="epoch-0003-step-00000003", keep=2)
    assert first in list_checkpoints(tmp_path)
    save(tmp_path, 4, 4, best="epoch-0003-step-00000003", keep=2)
    assert first not in list_checkpoints(tmp_path)


def test_folders_without_a_run_or_a_best_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder; give the folder of a run"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="not a run, it has no checkpoints; train one first"):
        load_checkpoint(tmp_path)
    save(tmp_path, 0, 1)
    with pytest.raises(CheckpointError, match=f"but the checkpoints of one; give {tmp_path}, or one of them"):
        load_checkpoint(tmp_path / "checkpoints")
    with pytest.raises(CheckpointError, match=r"no best checkpoint, .* use the last one \(checkpoint='last'\)"):
        load_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path, "last").step == 1


@pytest.mark.parametrize("pretrained", [False, True])
def test_what_is_not_the_folder_of_a_run_is_called_what_it_is(
    pretrained: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/tiny").mkdir(parents=True)
    for file in ("runs/tiny/config.yaml", "es.ONNX", "a.wav", "notes"):
        Path(file).touch()
    or_else = ", or a pretrained model (english-small)" if pretrained else ""
    remedy = f"give the folder of a run, as dali-asr train prints it{or_else}"
    for path, message in {
        "runs/tinny": f"no such folder; {remedy}; did you mean runs/tiny?",
        "runs/far": f"no such folder; {remedy}",
        "english-smal": f"no such folder; {remedy}" + ("; did you mean english-small?" if pretrained else ""),
        "es.ONNX": "is an ONNX file, which onnxruntime runs; give the folder of the run that it was exported from",
        "a.wav": f"is a recording, not the folder of a run; {remedy}",
        "notes": f"is a file, not the folder of a run; {remedy}",
        "runs/tiny/config.yaml": f"is a file, not the folder of a run; {remedy}; did you mean runs/tiny?",
    }.items():
        with pytest.raises(CheckpointError) as raised:
            check_run_folder(Path(path), pretrained=pretrained)
        assert str(raised.value) == f"{path}: {message}"
    check_run_folder(Path("runs/tiny"), pretrained=pretrained)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("zipped", [False, True])
def test_nothing_in_a_checkpoint_is_executed(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when its checksums are right."""
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path, 0, 1)
    if zipped:
        torch.save({"step": Evil()}, path / "training.pt")
    else:
        (path / "training.pt").write_bytes(pickle.dumps({"step": Evil()}))
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in path.iterdir()]
    (path / "SHA256SUMS").write_text("".join(sums))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_training(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("feature_dim", 27, "its weights do not fit the model it describes"),
        ("activation", "swish", "invalid"),
        ("inventory", ["a", "a"], "invalid"),
        ("hidden", [{"width": 4, "norm": "group"}], "invalid"),
    ],
)
def test_an_invalid_description_is_refused(tmp_path: Path, key: str, value: object, message: str) -> None:
    path = save(tmp_path, 0, 1)
    about = path / "checkpoint.json"
    values = json.loads(about.read_text())
    values["model"][key] = value
    old = hashlib.sha256(about.read_bytes()).hexdigest()
    about.write_text(json.dumps(values))
    sums = path / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(about.read_bytes()).hexdigest()))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path, "last").build(torch.device("cpu"))


def test_differences_are_listed_side_by_side() -> None:
    other = ModelDescription(
        (1, 3), 3, (HiddenLayer(4), HiddenLayer(5)), "relu", True, Inventory(("a", "b")), Normalization("none")
    )
    assert DESCRIPTION.differences(DESCRIPTION) == []
    assert DESCRIPTION.differences(other) == [
        "context [1, 2] (here [1, 3])",
        "hidden 4/batch/0.1 (here 4/none/0, 5/none/0)",
        "activation gelu (here relu)",
        "residual False (here True)",
        "inventory of 42 symbols, label 0 is [SIL] (here 2, a)",
        "normalization utterance (here none, or other values)",
        "features computed by other settings",
    ]


def full_from(call: int, until: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full from one flush to another."""
    calls = iter(range(1, 1 << 20))
    flush = os.fsync

    def flushing(file: int) -> None:
        if call <= next(calls) < until:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(file)

    monkeypatch.setattr(os, "fsync", flushing)


def test_a_full_disk_gives_one_warning_and_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Warnings()
    full_from(12, 15, monkeypatch)
    config = Config.load("demo", [*SMALL, "training.epochs=5"])
    result = train(config, run=tmp_path / "run", reporter=heard)
    assert len(heard.messages) == 1
    assert "No space left on device while writing; free some space" in heard.messages[0]
    assert heard.messages[0].endswith("training continues and tries again")
    assert load_checkpoint(result.run, "last").epoch == 5
    lines = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [1, 2, 3, 4, 5]


def test_a_disk_that_stays_full_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_from(12, 1 << 20, monkeypatch)
    config = Config.load("demo", [*SMALL, "training.epochs=5"])
    with pytest.raises(DataError, match="No space left on device while writing; free some space"):
        train(config, run=tmp_path / "run", reporter=Warnings())
    last = load_checkpoint(tmp_path / "run", "last")
    assert last.epoch < 5
    assert not list((tmp_path / "run").rglob("*.partial"))
    monkeypatch.undo()
    assert len(train(config, run=tmp_path / "run", resume="auto").epochs) == 5


def test_a_full_disk_ends_the_run_if_so_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_from(12, 16, monkeypatch)
    config = Config.load("demo", [*SMALL, "training.epochs=5", "training.on_write_error=stop"])
    with pytest.raises(DataError, match="No space left on device while writing; free some space"):
        train(config, run=tmp_path / "run")
    assert load_checkpoint(tmp_path / "run", "last").epoch == 1


def test_metrics_refused_by_a_full_disk_are_written_later(tmp_path: Path) -> None:
    from dali_asr.runs.folder import RunFolder

    folder = RunFolder(tmp_path / "run")
    folder.cut(0)
    folder.log({"step": 1})
    metrics = tmp_path / "run/metrics.jsonl"
    metrics.rename(tmp_path / "kept")
    metrics.mkdir()  # whatever fails
    with pytest.raises(DataError):
        folder.log({"step": 2})
    metrics.rmdir()
    (tmp_path / "kept").rename(metrics)
    folder.log({"step": 3})
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [1, 2, 3]
    folder.close()
