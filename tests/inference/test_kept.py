"""Evaluations that a folder keeps: used for what they are of, and for nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dali_asr import Corpus, HiddenLayer, Inventory, Normalization, Partition
from dali_asr.inference import kept
from dali_asr.inference.evaluate import Evaluation, identity_of
from dali_asr.inference.kept import evaluate_once, evaluation_path, keep
from dali_asr.inference.scores import Scores, score_labels
from dali_asr.runs.checkpoint import Checkpoint
from dali_asr.runs.description import ModelDescription
from tests.makers import make_features

INVENTORY = Inventory(("s0", "s1", "s2"))


def make_checkpoint(width: int = 3) -> Checkpoint:
    description = ModelDescription((1, 1), 2, (HiddenLayer(width),), "relu", False, INVENTORY, Normalization("none"))
    return Checkpoint(description, 1, 7, None, None, 0, description.build().state_dict())


def make_dev(last_label: int = 1, name: str = "dev") -> Partition:
    frames = [make_features(9, 2), make_features(4, 2)]
    labels = [[0, 0, 1, 1, 2, 2, -100, 1, 0], [2, 2, 1, last_label]]
    return Corpus.from_arrays(frames, labels, INVENTORY, partition=name).partition(name)


def scores_of(count: int, seed: int = 0) -> Scores:
    """Return scores of random labels of as many symbols."""
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(-1, count, 400), rng.integers(0, count, 400)
    inventory = Inventory(tuple(f"s{at}" for at in range(count)))
    offsets = np.array([0, 150, 400])
    return score_labels(
        predicted, rng.random(400, np.float32), rng.random(400) < 0.5, true, offsets, inventory, silence=0
    )


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Score by made-up numbers instead of a model; return the list of the partitions that were scored."""
    calls = []

    def score(checkpoint: Checkpoint, partition: Partition, silence: int | None, **_: object) -> Evaluation:
        calls.append(partition.name)
        identity = identity_of(checkpoint, partition, silence)
        return Evaluation(partition.name, checkpoint.name, scores_of(3), INVENTORY, silence, identity=identity)

    monkeypatch.setattr(kept, "score", score)
    return calls


def test_what_is_kept_is_not_scored_again(tmp_path: Path, scored: list[str]) -> None:
    checkpoint = make_checkpoint()
    first, said = evaluate_once(tmp_path, checkpoint, make_dev(), 0)
    path = evaluation_path(tmp_path, "dev", checkpoint.name)
    assert said == f"Evaluated: no stored evaluation of this checkpoint. Stored in {path}"
    again, said = evaluate_once(tmp_path, checkpoint, make_dev(), 0)
    assert said == f"Scores were read from {path}"
    assert len(scored) == 1
    assert again.to_json() == first.to_json()
    assert (again.partition, again.checkpoint, again.silence) == ("dev", checkpoint.name, 0)


@pytest.mark.parametrize("change", ["label", "weight", "description", "silence"])
def test_an_evaluation_of_something_else_is_not_used(tmp_path: Path, scored: list[str], change: str) -> None:
    checkpoint, dev, silence = make_checkpoint(), make_dev(), 0
    evaluate_once(tmp_path, checkpoint, dev, silence)
    picture = evaluation_path(tmp_path, "dev", checkpoint.name).with_suffix(".png")
    picture.write_bytes(b"of the evaluation before")
    if change == "label":
        dev = make_dev(last_label=0)
    elif change == "weight":
        weights = {name: tensor.clone() for name, tensor in checkpoint.weights.items()}
        next(iter(weights.values())).view(-1)[0] += 1e-6
        checkpoint = replace(checkpoint, weights=weights)
    elif change == "description":
        checkpoint = replace(checkpoint, description=replace(checkpoint.description, activation="gelu"))
    else:
        silence = 1
    _, said = evaluate_once(tmp_path, checkpoint, dev, silence)
    assert said.startswith("Evaluated: the stored evaluation is of another corpus, model or version. Stored in ")
    assert len(scored) == 2
    assert not picture.exists()
    assert evaluate_once(tmp_path, checkpoint, dev, silence)[1].startswith("Scores were read from")


@pytest.mark.parametrize("content", ["", "{", "[]", "NaN", '{"identity": 3}', "cut", "no utterances", "a folder"])
def test_a_damaged_file_is_replaced(tmp_path: Path, scored: list[str], content: str) -> None:
    checkpoint = make_checkpoint()
    evaluate_once(tmp_path, checkpoint, make_dev(), 0)
    path = evaluation_path(tmp_path, "dev", checkpoint.name)
    whole = path.read_text()
    if content == "a folder":
        path.unlink()
        path.mkdir()
        assert ". Not stored: " in evaluate_once(tmp_path, checkpoint, make_dev(), 0)[1]
        return
    if content == "no utterances":
        content = json.dumps({**json.loads(whole), "utterances": None})
    path.write_text(whole[:-9] if content == "cut" else content)
    assert "Stored in" in evaluate_once(tmp_path, checkpoint, make_dev(), 0)[1]
    assert (path.read_text(), len(scored)) == (whole, 2)


def test_decodings_are_kept_apart(tmp_path: Path, scored: list[str]) -> None:
    checkpoint = make_checkpoint()
    evaluation, _ = evaluate_once(tmp_path, checkpoint, make_dev(name="a+b"), 0)
    other = keep(replace(evaluation, decode="median:5"), tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"evaluation-a-b-{checkpoint.name}.json",
        f"evaluation-a-b-median-5-{checkpoint.name}.json",
    ]
    assert other.is_file()
    assert evaluate_once(tmp_path, checkpoint, make_dev(name="a+b"), 0)[1].startswith("Scores were read from")
    assert len(scored) == 1


@pytest.mark.parametrize("count", [3, 400])
def test_scores_are_read_back_as_they_were(count: int) -> None:
    """Also of an inventory whose matrix is stored by cells."""
    scores = scores_of(count)
    inventory = Inventory(tuple(symbol.symbol for symbol in scores.symbols))
    read = Scores.from_json(json.loads(json.dumps(scores.to_json())), inventory, 0)
    assert read.to_json() == scores.to_json()
    for name, values in vars(scores.utterances).items():
        np.testing.assert_array_equal(getattr(read.utterances, name), values)
