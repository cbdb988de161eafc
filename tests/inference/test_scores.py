"""Scores, judged by plain Python and by other libraries."""

from __future__ import annotations

import errno
import json
import os
import tracemalloc
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional import calibration_error, confusion_matrix
from torchmetrics.functional.text import word_error_rate

from dali_asr import Corpus, Inventory
from dali_asr.corpus import Normalization
from dali_asr.errors import DataError
from dali_asr.inference.evaluate import Evaluation, score
from dali_asr.inference.scores import Confusion, accuracy_without, collapse, error_rate, score_labels, symbol_scores
from dali_asr.inference.writers import write_evaluation
from dali_asr.model import HiddenLayer
from dali_asr.runs.checkpoint import Checkpoint
from dali_asr.runs.description import ModelDescription
from tests.makers import make_features

LABELS = st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), min_size=1, max_size=40)


@given(pairs=LABELS)
def test_symbols_are_scored_as_by_counting(pairs: list[tuple[int, int]]) -> None:
    counted = [(g, t) for g, t in pairs if t >= 0]
    given_labels, true_labels = np.array(pairs, np.int64).T
    confusion = Confusion.count(given_labels, true_labels, 5)
    matrix = np.zeros((5, 5), np.int64)
    for g, t in counted:
        matrix[t, g] += 1
    assert np.array_equal(confusion.dense(np.arange(5)), matrix)
    assert np.array_equal(confusion.dense(np.array([1, 3])), matrix[np.ix_([1, 3], [1, 3])])
    inventory = Inventory(("[SIL]", "a", "b", "c", "d"))
    for at, found in enumerate(symbol_scores(confusion, inventory)):
        right = sum(g == t == at for g, t in counted)
        labelled, given_ = sum(t == at for _, t in counted), sum(g == at for g, _ in counted)
        assert found.frames == labelled
        assert found.recall == (right / labelled if labelled else None)
        assert found.precision == (right / given_ if given_ else None)
        if found.precision and found.recall:
            assert found.f1 == pytest.approx(2 / (1 / found.precision + 1 / found.recall))
        wrong = [g for g, t in counted if t == at != g]
        assert (found.confused_with is None) == (not wrong)
        if found.confused_with:
            named = inventory.symbols.index(found.confused_with)
            counts = [wrong.count(other) for other in range(5)]
            assert named == counts.index(max(counts))
    speech = [(g, t) for g, t in counted if t != 0]
    expected = sum(g == t for g, t in speech) / len(speech) if speech else None
    assert accuracy_without(confusion, 0) == expected
    assert accuracy_without(confusion, None) is None


@settings(deadline=None)
@given(utterances=st.lists(LABELS, min_size=1, max_size=4), leave_out=st.sampled_from([None, 0]))
def test_the_error_rate_is_the_word_error_rate_of_collapsed_labels(
    utterances: list[list[tuple[int, int]]], leave_out: int | None
) -> None:
    flat = [pair for utterance in utterances for pair in utterance]
    offsets = np.cumsum([0, *(len(u) for u in utterances)])
    given_, true = (np.array([pair[side] for pair in flat]) for side in (0, 1))
    texts: list[list[str]] = [[], []]
    for utterance in utterances:
        for side in (0, 1):
            labels = [pair[side] for pair in utterance if pair[1] >= 0]
            kept = [label for label, _ in groupby(labels) if label != leave_out]
            texts[side].append(" ".join(map(str, kept)))
    rate = error_rate(given_, true, offsets, leave_out)
    if any(texts[1]):
        assert rate == pytest.approx(float(word_error_rate(texts[0], texts[1])))


def test_runs_of_equal_labels_are_collapsed_into_one() -> None:
    assert collapse(np.array([1, 1, 0, 0, 1, 2, 2])) == [1, 0, 1, 2]
    assert collapse(np.array([1, 1, 0, 0, 1, 2, 2]), 0) == [1, 1, 2], "collapsed first"
    assert collapse(np.array([], np.int64)) == []


def test_all_scores_of_a_model() -> None:
    """Judged by plain torch and NumPy on the logits of the whole partition."""
    inventory = Inventory(("[SIL]", "a", "b", "c"))
    rng = np.random.default_rng(0)
    frames = [make_features(n, 3, n) for n in (40, 25)]
    labels = [rng.integers(-1, 4, n) for n in (40, 25)]
    labels = [np.where(labelled < 0, -100, labelled) for labelled in labels]
    partition = Corpus.from_arrays(frames, labels, inventory).partition("all")
    description = ModelDescription((0, 0), 3, (HiddenLayer(5),), "gelu", False, inventory, Normalization("none"))
    torch.manual_seed(0)
    model = description.build().eval()
    checkpoint = Checkpoint(description, 0, 0, None, None, 0, model.state_dict())
    heard: list[tuple[int, int]] = []
    scores = score(
        checkpoint, partition, inventory.silence(), device="cpu", progress=lambda *done: heard.append(done)
    ).scores
    assert heard[-1] == (65, 65)
    with torch.inference_mode():
        logits = model(torch.from_numpy(np.concatenate(list(partition.frames())))[:, None])
    truth = torch.from_numpy(np.concatenate(labels))
    kept = truth >= 0
    posteriors, truth = logits.softmax(1)[kept].double(), truth[kept]
    right = posteriors.argmax(1) == truth
    assert scores.frames == len(truth)
    assert scores.accuracy == pytest.approx(right.double().mean().item())
    assert scores.top3_accuracy == pytest.approx(
        (posteriors.topk(3).indices == truth[:, None]).any(1).double().mean().item()
    )
    assert scores.accuracy_without_silence == pytest.approx(right[truth > 0].double().mean().item())
    confidence, error = posteriors.max(1).values, 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            gap = right[inside].double().mean() - confidence[inside].mean()
            error += float(inside.double().mean() * gap.abs())
    assert scores.calibration_error == pytest.approx(error, abs=1e-6)
    assert scores.confusion.frames == len(truth)
    expected = confusion_matrix(posteriors, truth, "multiclass", num_classes=4)
    assert scores.to_json()["confusion"] == expected.tolist()
    assert scores.calibration_error == pytest.approx(calibration_error(posteriors, truth, "multiclass", num_classes=4))


def many_symbols(count: int) -> Inventory:
    return Inventory(tuple(f"s{number}" for number in range(count)))


def test_the_scores_of_8_000_symbols_take_little_memory_and_few_bytes() -> None:
    inventory = many_symbols(8_000)
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 8_000, (2, 10_000))
    true[:10] = -100
    tracemalloc.start()
    scores = score_labels(
        predicted, np.full(10_000, 0.5, np.float32), true == predicted, true, np.array([0, 6_000, 10_000]), inventory
    )
    text = json.dumps(scores.to_json())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 << 20
    assert len(text) < 5_000_000
    values = json.loads(text)
    assert "confusion" not in values
    cells = values["confusion_cells"]
    assert sum(count for _, _, count in cells) == scores.frames == 9_990
    first_true, first_predicted, count = cells[0]
    assert count == ((true == first_true) & (predicted == first_predicted)).sum()


def test_the_confusion_matrix_is_dense_up_to_300_symbols() -> None:
    labels = np.array([0, 1, 299])
    assert len(Confusion.count(labels, labels, 300).to_json()["confusion"]) == 300
    assert Confusion.count(labels, labels, 301).to_json() == {"confusion_cells": [[0, 0, 1], [1, 1, 1], [299, 299, 1]]}


@pytest.mark.parametrize("symbols", [1, 2, 500])
def test_inventories_of_any_size_are_scored_and_drawn(symbols: int, tmp_path: Path) -> None:
    inventory = many_symbols(symbols)
    labels = np.arange(1000) % symbols
    partition = Corpus.from_arrays([make_features(1000, 3)], [labels], inventory).partition("all")
    description = ModelDescription((0, 0), 3, (HiddenLayer(5),), "gelu", False, inventory, Normalization("none"))
    checkpoint = Checkpoint(description, 0, 0, None, None, 0, description.build().state_dict())
    evaluation = score(checkpoint, partition, device="cpu")
    assert 0 <= evaluation.scores.accuracy <= evaluation.scores.top3_accuracy <= 1
    scores, picture = write_evaluation(evaluation, tmp_path)
    values = json.loads(scores.read_text())
    assert ("confusion" in values) == (symbols <= 300)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    if symbols == 1:
        assert evaluation.scores.accuracy == evaluation.scores.top3_accuracy == 1


def test_an_evaluation_that_cannot_be_written_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = many_symbols(2)
    labels = np.array([0, 1])
    scores = score_labels(labels, np.ones(2, np.float32), labels == labels, labels, np.array([0, 2]), inventory)
    evaluation = Evaluation("dev", "c", scores, inventory)
    before = [path.read_bytes() for path in write_evaluation(evaluation, tmp_path)]

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device while writing; free some space"):
        write_evaluation(Evaluation("dev", "other", scores, inventory), tmp_path)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before
