"""The model in the package: what it is, how it is named, and that training can start from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dali_asr import load_model
from dali_asr.audio.settings import FeatureSettings
from dali_asr.cli.train import _recipe_of_init
from dali_asr.config import Config
from dali_asr.errors import CheckpointError, UsageError
from dali_asr.inventory import ARPABET
from dali_asr.model import parameter_count
from dali_asr.pretrained import PRETRAINED, pretrained_names
from dali_asr.runs.checkpoint import load_checkpoint, output_folder, run_of
from dali_asr.training import train

NAME = "english-small"
FOLDER = PRETRAINED / NAME


def test_the_model_is_small_and_knows_its_features() -> None:
    assert pretrained_names() == [NAME]
    model = load_model(NAME, device="cpu")
    assert model.features == FeatureSettings.of("course")
    assert model.inventory == ARPABET
    assert parameter_count(model.model) <= 1_500_000
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 4e6
    for word in ("speechocean762", "56 speakers", "Apache", "Mandarin", "## Limits"):
        assert word in (FOLDER / "README.md").read_text(encoding="utf-8"), word


def test_weights_are_stored_as_float16_and_read_as_float32() -> None:
    (path,) = FOLDER.rglob("model.safetensors")
    stored, read = load_file(path), load_checkpoint(Path(NAME)).weights
    assert {one.dtype for one in stored.values() if one.ndim > 1} == {torch.float16}
    assert {one.dtype for one in read.values() if one.is_floating_point()} == {torch.float32}
    for name, one in stored.items():
        assert torch.equal(one.to(read[name].dtype), read[name])


def test_damage_is_found(tmp_path: Path) -> None:
    copy = shutil.copytree(FOLDER, tmp_path / "copy")
    (path,) = copy.rglob("model.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its SHA-256 differs"):
        load_model(copy)


def test_a_folder_of_the_name_is_meant_rather_than_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_of(Path(NAME)) == FOLDER
    assert output_folder(Path(NAME)) == Path()
    assert run_of(tmp_path / NAME) == tmp_path / NAME
    with pytest.raises(
        CheckpointError, match=r"english-smal: no such folder; .* or a pretrained model \(english-small\)"
    ):
        load_model("english-smal")
    Path(NAME).mkdir()
    assert run_of(Path(NAME)) == output_folder(Path(NAME)) == Path(NAME)
    with pytest.raises(CheckpointError, match="english-small: not a run"):
        load_model(NAME)


def test_without_a_corpus_it_is_said_that_the_model_has_none(
    run_cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus").mkdir()  # of which its configuration speaks
    assert run_cli("evaluate", NAME).stderr == (
        f"error: {NAME}: a model in the package comes without a corpus; give one after it, as in dali-asr evaluate "
        f"{NAME} CORPUS\n"
    )
    Path("run").mkdir()
    Path("run/config.yaml").touch()
    assert run_cli("compare", NAME, "run").stderr == (
        f"error: {NAME}: a model in the package comes without a corpus; name one for all runs (--corpus)\n"
    )
    done = run_cli("predict", NAME)
    assert done.stderr == (
        f"error: predict: name recordings or a corpus after {NAME}, as in dali-asr predict {NAME} demo.wav\n"
    )


def test_training_starts_from_the_model_and_does_not_resume_it(tmp_path: Path) -> None:
    assert _recipe_of_init([f"training.init={NAME}"]) == NAME
    assert _recipe_of_init(['training.init="runs/one"', "data.root=x"]) is None
    overrides = ["data.root=demo", f"training.init={NAME}", "training.max_steps=1", "loader.subset=50"]
    small = ["loader.batch_size=64", "training.optimizer.learning_rate=1e-9", "training.ema=null", "data.dev=null"]
    result = train(Config.load(NAME, [*overrides, *small]), run=tmp_path / "run")
    before, after = load_checkpoint(Path(NAME)).weights, load_checkpoint(result.run, "last").weights
    linear = [name for name, one in before.items() if one.ndim == 2]
    for name in linear:
        assert torch.allclose(before[name], after[name], rtol=0, atol=1e-6), name
    with pytest.raises(
        UsageError, match=r"a pretrained model is not a run; start from it \(training\.init=english-small\)"
    ):
        train(Config.load(NAME, overrides), resume=NAME)


def test_the_model_is_evaluated_without_writing_into_the_package(
    run_cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(FOLDER.rglob("*"))
    done = run_cli("predict", NAME, "demo", "--partition", "dev", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"Predicting with {NAME}, on the CPU")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.csv"]
    done = run_cli("report", NAME, "demo", "--device", "cpu")
    assert f"\n{NAME} on dev: frame accuracy" in done.stdout
    assert f"Checkpoint {NAME}, evaluated on dev" in Path("report-dev.html").read_text(encoding="utf-8")
    assert sorted(FOLDER.rglob("*")) == before
