"""From a corpus of one's own to a model, without typing again what the corpus knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dali_asr import Config, PackedWriter
from tests.makers import make_course, make_features

SYMBOLS = ["speech", "sp", "noise"]
SMALL = ["model.hidden=[4]", "model.preset=null", "training.max_steps=2", "loader.batch_size=8", "loader.context=1"]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Return a packed corpus with an inventory, a dtype and a normalization that are not the defaults."""
    with PackedWriter(tmp_path / "mine", inventory=SYMBOLS, dtype="float16", normalization="none") as writer:
        for name in ("train", "dev", "test"):
            for at in range(3):
                frames = make_features(40, seed=at)
                writer.add(name, f"{name}-{at}", frames, np.arange(40) % 3 if name != "test" else None)
    return tmp_path / "mine"


def settings(*values: str) -> list[str]:
    return [part for value in (*SMALL, *values) for part in ("--set", value)]


def test_a_packed_corpus_supplies_inventory_dtype_and_normalization(
    packed: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    done = run_cli("train", "demo", *settings(f"data.root={packed}"), "--run-folder", run)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith(f"  or: dali-asr evaluate {run}\n"), "the test partition has no labels"
    data = Config.load(run / "config.yaml").data
    assert (data.inventory, data.dtype, data.normalization) == (tuple(SYMBOLS), "float16", "none")
    assert run_cli("predict", run, packed).exit_code == 0
    evaluated = run_cli("evaluate", run)
    assert evaluated.exit_code == 0, evaluated.output
    assert "frame accuracy without sp" in evaluated.stdout
    scores = json.loads((run / "evaluation-dev-epoch-0000-step-00000002.json").read_text())
    confusion = np.array(scores["confusion"])
    assert scores["accuracy_without_silence"] == pytest.approx(
        (confusion[0, 0] + confusion[2, 2]) / confusion[[0, 2]].sum()
    )


def test_a_setting_that_differs_is_refused(packed: Path, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    for setting, message in (
        ("data.dtype=float32", "packed with dtype float16, asked for float32; leave out data.dtype"),
        ("data.normalization=utterance", "packed with normalization none, asked for utterance"),
        ("data.inventory=arpabet", "packed with inventory 3 symbols, asked for 42 symbols"),
        ("data.silence=SIL", "silence 'SIL': not in the inventory"),
        ("data.fold=mfa", f"data.fold: 'mfa': {packed} is packed already; leave it out, or fold while packing"),
    ):
        for command in (["train", "demo"], ["config", "validate", "demo"]):
            done = run_cli(*command, *settings(f"data.root={packed}", setting))
            assert done.exit_code == 2
            assert message in done.stderr


def test_validate_opens_the_corpus(packed: Path, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    def validated(*values: str) -> str:
        return str(run_cli("config", "validate", "demo", *settings(*values)).output).strip()

    make_course(tmp_path / "course", {"train": [30], "dev": [9], "test": [8]}, unlabelled=("dev",))
    assert validated(f"data.root={packed}") == "demo: valid"
    assert "no partition 'devv'" in validated(f"data.root={packed}", "data.dev=devv")
    together = validated(f"data.root={packed}", "data.train=trian", "data.dev=devv", "model.preset=huge")
    assert "3 mistakes" in together
    for mistake in ("  model.preset: received 'huge'", "  data.train: ", "  data.dev: "):
        assert f"\n{mistake}" in together
    file = tmp_path / "mine.yaml"
    file.write_text("data: {root: /nowhere}")
    both = str(run_cli("config", "validate", file, *settings("epochs=3")).output).splitlines()
    assert both[0] == f"error: {file}: 2 mistakes"
    assert both[1].startswith("  --set: epochs: unknown key")
    assert both[2].startswith("  data.root: /nowhere: no such folder")
    file.write_text(f"data: {{root: {packed}}}")
    alone = run_cli("config", "validate", file, *settings("epochs=3", "data.train=trian")).output
    assert alone.startswith(f"error: --set ({file} itself is valid): 2 mistakes\n  epochs: unknown key")
    assert "model.max_parameters allows 9;" in validated(f"data.root={packed}", "model.max_parameters=9")
    assert "test: has no transcripts; name a labelled partition in data.dev" in validated(
        f"data.root={packed}", "data.dev=test"
    )
    assert "data.root: /nowhere: no such folder" in validated("data.root=/nowhere")
    course = f"data.root={tmp_path / 'course'}"
    assert "dev: has no transcripts; name a labelled partition in data.dev" in validated(course)
    assert validated(course, "data.dev=null") == (
        "demo: valid; all but the first utterances are checked when its corpus is packed"
    )
    assert "no partition 'other'" in validated(course, "data.train=other")
    assert "2 mistakes" in validated(course, "data.train=other", "data.dev=devv")
    transcript = tmp_path / "course/train/transcript/u00.npy"
    np.save(transcript, np.load(transcript)[1:-1])
    assert "holds 30 symbols for 30 frames; expected 32: [SOS], one per frame, [EOS]" in validated(
        course, "data.dev=null"
    )


def test_info_lists_the_inventory_in_label_order(packed: Path, run_cli: Callable[..., Any]) -> None:
    assert "inventory, in label order: speech sp noise\n" in run_cli("data", "info", packed).stdout


@pytest.mark.parametrize("what", ["a recording", "a folder of recordings"])
def test_recordings_are_told_what_is_needed(what: str, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    for name in ("one.wav", "two.FLAC"):
        (tmp_path / "sounds" / name).write_bytes(b"RIFF")
    source = tmp_path / "sounds" if "folder" in what else tmp_path / "sounds/two.FLAC"
    for command in (
        ["data", "pack", source, tmp_path / "p"],
        ["data", "info", source],
        ["train", "demo", *settings(f"data.root={source}")],
    ):
        done = run_cli(*command)
        assert done.exit_code == 1, done.output
        assert f"error: {source}: is {what}, but features are needed; make a packed corpus of" in done.stderr


def test_recordings_in_a_folder_of_a_folder_are_noticed(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "sounds/speaker").mkdir(parents=True)
    (tmp_path / "sounds/speaker/one.wav").touch()
    done = run_cli("data", "info", tmp_path / "sounds")
    assert f"error: {tmp_path / 'sounds'}: is a folder of recordings, but features are needed" in done.stderr


@pytest.mark.filterwarnings("error::UserWarning")
def test_an_evaluation_prints_symbols_without_escapes_and_markup(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    with PackedWriter(tmp_path / "odd", inventory=["[red]x[/red]", "\x1b[31mb", ":fire:"]) as writer:
        for name in ("train", "dev"):
            writer.add(name, "u", make_features(60), np.arange(60) % 3)
    options = settings(f"data.root={tmp_path / 'odd'}", "data.test=null", 'data.silence="\\e[31mb"')
    run = tmp_path / "run"
    assert run_cli("train", "demo", *options, "--run-folder", run).exit_code == 0
    done = run_cli("evaluate", run)
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.stdout
    for symbol in ("\n[red]x[/red] ", "\n\\x1b[31mb ", "\n:fire: ", "frame accuracy without \\x1b[31mb"):
        assert symbol in done.stdout
