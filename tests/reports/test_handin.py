"""The archive that a run is handed in as."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from dali_asr.config import Config
from dali_asr.errors import DaliAsrError, UsageError
from dali_asr.reports.handin import hand_in

Run = Callable[..., Any]
WEIGHTS = (3 * 5 + 1) * 8 + (8 + 1) * 42  # 3 frames of 5 features, 8 hidden units, 42 labels


def unpack(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_run_is_handed_in_whole(run_cli: Run, copy: Path, tmp_path: Path) -> None:
    assert run_cli("evaluate", copy).exit_code == 0
    (evaluation,) = copy.glob("evaluation-*.json")
    checkpoint = evaluation.stem.removeprefix("evaluation-dev-")
    corpus = Config.load(copy / "config.yaml").data.root
    (copy / "test.csv").write_text("another prediction")
    (copy / "curves.png").write_bytes(b"of the run")
    done = run_cli("handin", copy, "-o", tmp_path / "h.zip", "--max-parameters", WEIGHTS)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[:2] == [
        f"{WEIGHTS} parameters of {WEIGHTS} allowed",
        f"Predicted test of {corpus} by {checkpoint}, frame by frame",
    ]
    files = unpack(tmp_path / "h.zip")
    assert list(files) == sorted(files)
    assert {name.partition("/")[0] for name in files} == {"tiny"}
    files = {name.removeprefix("tiny/"): content for name, content in files.items()}
    kept = ["config.yaml", "metrics.jsonl", "timings.jsonl", "environment.json", "curves.png"]
    kept += [path.name for path in copy.glob("evaluation-*")]
    assert len(kept) == 7
    assert set(files) == {*kept, "README.md", "model_metadata.json", "submission.csv"}
    assert all(files[name] == (copy / name).read_bytes() for name in kept)
    assert (copy / "test.csv").read_text() == "another prediction"
    assert run_cli("predict", copy, corpus, "-o", tmp_path / "p.csv").exit_code == 0
    assert files["submission.csv"] == (tmp_path / "p.csv").read_bytes()


def test_the_metadata_counts_what_the_checkpoint_holds(copy: Path, tmp_path: Path) -> None:
    handed = hand_in(copy, tmp_path / "h.zip", name="hw1p2")
    metadata = json.loads(unpack(tmp_path / "h.zip")["hw1p2/model_metadata.json"])
    (weights,) = [load_file(path / "model.safetensors") for path in copy.glob(f"checkpoints/{metadata['checkpoint']}")]
    assert metadata["parameters"] == handed.parameters == sum(w.size for w in weights.values()) == WEIGHTS
    assert sum(layer["parameters"] for layer in metadata["architecture"]["layers"]) == WEIGHTS
    assert metadata["architecture"]["hidden"] == [{"width": 8, "dropout": 0.0, "norm": "none"}]
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    best = max((e for e in lines if e["kind"] == "epoch"), key=lambda epoch: float(epoch["dev"]["accuracy"]))
    assert (metadata["epoch"], metadata["step"]) == (best["epoch"], best["step"])
    assert metadata["dev_accuracy"] == best["dev"]["accuracy"]


def test_the_same_run_gives_the_same_bytes(copy: Path, tmp_path: Path) -> None:
    first = hand_in(copy, tmp_path / "a.zip")
    for path in copy.iterdir():
        path.touch()
    second = hand_in(copy, tmp_path / "b.zip")
    assert first.submission == second.submission
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_the_commands_of_its_readme_reproduce_the_run(
    run_cli: Run, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = Config.load(copy / "config.yaml").data.root
    hand_in(copy, tmp_path / "h.zip")
    with zipfile.ZipFile(tmp_path / "h.zip") as archive:
        archive.extractall(tmp_path / "elsewhere")
    folder = tmp_path / "elsewhere/tiny"
    monkeypatch.chdir(folder)
    handed = (folder / "submission.csv").read_bytes()
    (folder / "submission.csv").unlink()
    (shell,) = re.findall(r"```sh\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    commands = shell.replace("CORPUS", corpus).splitlines()
    assert [command.split()[1] for command in commands] == ["train", "predict"]
    for command in commands:
        done = run_cli(*shlex.split(command)[1:])
        assert done.exit_code == 0, done.output
    assert (folder / "runs/tiny/metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    assert (folder / "submission.csv").read_bytes() == handed


def test_the_readme_tells_epochs_layers_and_changes(copy: Path, tmp_path: Path) -> None:
    change = {"step": 27, "key": "training.epochs", "old": 1, "new": 2}
    (copy / "changes.jsonl").write_text(json.dumps(change) + "\n")
    hand_in(copy, tmp_path / "h.zip", max_parameters=20_000_000)
    text = unpack(tmp_path / "h.zip")["tiny/README.md"].decode()
    assert re.findall("^## .*", text, flags=re.MULTILINE) == [
        "## Setup",
        "## Experiments",
        "## Architecture",
        "## Files",
    ]
    for line in map(json.loads, (copy / "metrics.jsonl").read_text().splitlines()):
        if line["kind"] == "epoch":
            train, dev = line["train"], line["dev"]
            shown = f"{train['loss']:.4f} | {train['accuracy']:.2%} | {dev['loss']:.4f} | {dev['accuracy']:.2%} |"
            assert f"| {line['epoch']} | {line['step']} | {shown}" in text
    assert "| 27 | training.epochs | 1 | 2 |" in text
    assert "| 1 | 8 | none | gelu | 0 |" in text
    assert "| Linear 15 -> 8 | [B, 8] | 128 |" in text
    assert f"It has {WEIGHTS} parameters, of 20,000,000 allowed." in text
    assert "| recipe | demo |" in text
    assert "W&B" not in text


def test_what_wandb_was_sent_is_a_table(copy: Path, tmp_path: Path) -> None:
    (copy / "wandb-id").write_text("0123456789abcdef")
    hand_in(copy, tmp_path / "h.zip")
    files = unpack(tmp_path / "h.zip")
    rows = list(csv.DictReader(files["tiny/wandb.csv"].decode().splitlines()))
    by_step = {int(row["step"]): row for row in rows}
    assert list(by_step) == sorted(by_step)
    for line in map(json.loads, (copy / "metrics.jsonl").read_text().splitlines()):
        row = by_step[line["step"]]
        if line["kind"] == "step":
            assert float(row["step/loss"]) == line["loss"]
        else:
            assert float(row["dev/accuracy"]) == line["dev"]["accuracy"]
    assert "W&B: project dali-asr, run 0123456789abcdef." in files["tiny/README.md"].decode()


def test_a_model_above_the_limit_is_refused_before_anything_is_predicted(
    run_cli: Run, copy: Path, tmp_path: Path
) -> None:
    refused = run_cli("handin", copy, "-o", tmp_path / "h.zip", "--max-parameters", WEIGHTS - 100)
    assert refused.exit_code == 2
    assert refused.output == (
        f"error: {copy}: the model has {WEIGHTS} parameters, 100 more than the {WEIGHTS - 100} allowed "
        "(--max-parameters); hand in a smaller one\n"
    )
    assert not (copy / "test.csv").exists()
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("max_parameters: null", "max_parameters: 5"))
    assert run_cli("handin", copy, "-o", tmp_path / "h.zip").exit_code == 2
    assert not (tmp_path / "h.zip").exists()


def test_a_run_without_test_partition_has_no_submission(run_cli: Run, copy: Path, tmp_path: Path) -> None:
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("test: test", "test: null"))
    done = run_cli("handin", copy, "-o", tmp_path / "h.zip")
    assert done.exit_code == 0, done.output
    assert "No submission: the run's data.test names no partition" in done.output
    files = unpack(tmp_path / "h.zip")
    assert "tiny/submission.csv" not in files
    assert b"predict" not in files["tiny/README.md"].partition(b"## Experiments")[0].partition(b"```sh")[2]
    assert hand_in(copy, tmp_path / "h.zip", partition="dev", overwrite=True).submission


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "environment.json").unlink(), r"environment\.json: missing; copy the whole folder"),
        (lambda run: (run / "environment.json").write_text("[1]"), r"environment\.json: damaged; copy"),
        (lambda run: (run / "metrics.jsonl").write_text("{"), r"metrics\.jsonl: damaged \(.*\); copy the whole"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "the run ended before its first checkpoint"),
        (
            lambda run: (run / "config.yaml").write_text("data: {root: /nowhere}\nloader: {context: 1}"),
            r"/nowhere: no such folder, which the run was trained on; name the corpus \(source=FOLDER\)",
        ),
    ],
)
def test_a_damaged_run_is_one_line(damage: Callable[[Path], object], message: str, copy: Path, tmp_path: Path) -> None:
    damage(copy)
    with pytest.raises(DaliAsrError, match=message) as raised:
        hand_in(copy, tmp_path / "h.zip")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_wrong_arguments_are_refused(run_cli: Run, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "h.zip").write_text("mine")
    refused = run_cli("handin", copy, "-o", tmp_path / "h.zip")
    assert refused.exit_code == 2
    assert "exists; choose another file, or overwrite it (--force)" in refused.output
    assert (tmp_path / "h.zip").read_text() == "mine"
    for name in ("h2.tar.gz", "h2", "zip"):
        refused = run_cli("handin", tmp_path / "nothing", "-o", tmp_path / name)
        assert refused.exit_code == 2
        assert refused.output == (
            f"error: {tmp_path / name}: what is written is a .zip file; give a name that ends in .zip\n"
        )
        with pytest.raises(UsageError, match=r"give a name that ends in \.zip"):
            hand_in(copy, tmp_path / name)
        assert not (tmp_path / name).exists()
    for name in ("../up", "a/b", ""):
        refused = run_cli("handin", copy, "-o", tmp_path / "h.zip", "--force", "--name", name or " ")
        assert refused.exit_code == 2
        assert "allowed are letters, digits, '_', '.' and '-'; give another (--name)" in refused.output
    refused = run_cli("handin", "english-small", "-o", tmp_path / "n.zip")
    assert refused.exit_code == 2
    assert "a model in the package, not a run; hand in a run of your own, which may start from it" in refused.output


def test_an_evaluation_older_than_its_checkpoint_is_left_out(copy: Path, tmp_path: Path) -> None:
    """The checkpoint of that name was written anew by a resumed run."""
    checkpoint = max((copy / "checkpoints").iterdir())
    evaluation = copy / f"evaluation-dev-{checkpoint.name}.json"
    evaluation.write_text("{}")
    os.utime(evaluation, (1, 1))
    hand_in(copy, tmp_path / "h.zip")
    with zipfile.ZipFile(tmp_path / "h.zip") as archive:
        assert not [name for name in archive.namelist() if "evaluation" in name]


def test_what_is_handed_in_is_of_the_checkpoint_and_corpus_named(
    run_cli: Run, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is what lies in the run's folder already, however new it is."""
    first, last = sorted((copy / "checkpoints").iterdir())
    for checkpoint in (first, last):
        (copy / f"evaluation-dev-{checkpoint.name}.json").write_text(
            '{"partition": "dev", "checkpoint": "it", "decoding": "none"}'
        )
    other = Path(shutil.copytree(Config.load(copy / "config.yaml").data.root, tmp_path / "other"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/tiny").symlink_to(copy)
    monkeypatch.chdir(tmp_path)
    for checkpoint in (first, last):
        predicted = copy / "test.csv"
        assert run_cli("predict", copy, other, "--decode", "median:9", "-o", predicted, "--force").exit_code == 0
        handed = hand_in(checkpoint, "h.zip", source=other, overwrite=True)
        assert handed.checkpoint == checkpoint.name
        assert handed.evaluations == (f"evaluation-dev-{checkpoint.name}.json",)
        files = unpack(tmp_path / "h.zip")
        text = files["tiny/README.md"].decode()
        assert (f"The checkpoint {first.name}, which is handed in" in text) == (checkpoint == first)
        command = re.findall("^dali-asr predict.*", text, flags=re.MULTILINE)[0]
        assert " PREDICTED_CORPUS " in command
        done = run_cli(*shlex.split(command.replace("PREDICTED_CORPUS", "other"))[1:], "--force")
        assert done.exit_code == 0, done.output
        assert (tmp_path / "submission.csv").read_bytes() == files["tiny/submission.csv"]


def test_a_missing_corpus_is_named_as_it_was_given(run_cli: Run, copy: Path, tmp_path: Path) -> None:
    refused = run_cli("handin", copy, "-o", tmp_path / "h.zip", "--corpus", "nowhere")
    assert refused.exit_code == 1
    assert refused.output == ("error: nowhere: no such folder; name a packed corpus or source files (--corpus)\n")
