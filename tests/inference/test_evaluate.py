"""`evaluate`, as a command and as a function."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dali_asr import Corpus, evaluate, predict
from dali_asr.config import Config
from dali_asr.errors import CheckpointError, DataError
from dali_asr.runs.checkpoint import find_checkpoint
from dali_asr.training import train
from tests.makers import make_course, make_features
from tests.training_runs import SMALL


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(Config.load("demo", [*SMALL, "training.epochs=1"]), run=tmp_path_factory.mktemp("e") / "run").run


def test_the_command_writes_and_prints_all_scores(run: Path, run_cli: Callable[..., Any]) -> None:
    done = run_cli("evaluate", run, "--device", "cpu")
    assert done.exit_code == 0, done.output
    (scores,) = run.glob("evaluation-dev-*.json")
    assert scores.stem == f"evaluation-dev-{find_checkpoint(run, 'best').name}"
    values = json.loads(scores.read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert values["accuracy"] == pytest.approx(lines[-1]["dev"]["accuracy"]), "as in training"
    assert f"{values['accuracy']:.2%}" in done.output
    assert "phoneme error rate without [SIL]" in done.output
    assert values["checkpoint"].startswith("epoch-0001-step-")
    assert len(values["symbols"]) == len(values["confusion"]) == 42
    assert [one["decode"] for one in values["decodings"]] == ["none", "median:5", "viterbi"]
    assert values["decodings"][0]["phoneme_error_rate"] == values["phoneme_error_rate"]
    assert f"{values['decodings'][2]['phoneme_error_rate']:.2%}" in done.output
    assert f"{1000 * values['decodings'][2]['boundaries']['mean']:.1f} ms" in done.output
    assert scores.with_suffix(".png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert f"matrix: {scores}\nPicture of the matrix: {scores.with_suffix('.png')}\n" in done.output
    of_checkpoint = run_cli("evaluate", next((run / "checkpoints").iterdir()), "--device", "cpu")
    assert of_checkpoint.exit_code == 0, of_checkpoint.output
    assert run_cli("evaluate", run, "demo", "--partition", "test", "--checkpoint", "last").exit_code == 0
    assert len(list(run.glob("evaluation-test-*.json"))) == 1


def test_the_function_returns_all_scores(run: Path) -> None:
    evaluation = evaluate(run, partition="test", device="cpu")
    assert evaluation.partition == "test"
    assert evaluation.scores.phoneme_error_rate > 0
    assert evaluation.scores.top3_accuracy >= evaluation.scores.accuracy > 0
    other = evaluate(run, partition="test", device="cpu", decode="median:9")
    assert [one.decode for one in other.decodings] == ["none", "median:5", "viterbi", "median:9"]
    assert other.decodings[:3] == evaluation.decodings
    assert other.decodings[3].accuracy == other.scores.accuracy != evaluation.scores.accuracy
    assert other.scores.phoneme_error_rate < evaluation.scores.phoneme_error_rate
    predicted = predict(run, "demo", partition="test", decode="median:9", device="cpu")
    assert predicted.accuracy == pytest.approx(other.scores.accuracy)


def train_on(course: Path, run: Path) -> Path:
    """Train a small model on a course folder made for it; return the folder of the run."""
    make_course(course, {"train": [40, 30], "dev": [20], "test-clean": [9]}, dim=28)
    small = ["loader.batch_size=4", "training.max_steps=2", "data.test=null", f"data.root={course}"]
    return train(Config.load("demo", [*SMALL, *small]), run=run).run


def test_unlabelled_partitions_and_missing_runs_and_corpora_are_refused(
    run: Path, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    make_course(tmp_path / "c", {"test-clean": [40, 30]}, dim=28, unlabelled=("test-clean",))
    done = run_cli("evaluate", run, tmp_path / "c", "--partition", "test-clean")
    assert done.exit_code == 1
    assert "test-clean: has no transcripts; name a labelled partition in --partition" in done.stderr
    with pytest.raises(CheckpointError, match="no such folder"):
        evaluate(tmp_path / "nowhere")
    (tmp_path / "c").rename(tmp_path / "gone")
    moved = train_on(tmp_path / "c", tmp_path / "run")
    (tmp_path / "c").rename(tmp_path / "moved")
    missing = (
        f"{moved}: the corpus that it was trained on, {tmp_path / 'c'}, is not there; give one after the run, as in"
    )
    with pytest.raises(DataError, match=f"{missing} dali-asr evaluate {moved} CORPUS"):
        evaluate(moved)
    assert evaluate(moved, tmp_path / "moved", partition="dev").scores.frames == 20
    corpus = Corpus.from_arrays([make_features(9, 28)], [[-100] * 9])
    with pytest.raises(DataError, match="unlabelled"):
        from dali_asr.corpus.labels import label_counts

        label_counts(corpus.partition("all"), "--partition")
