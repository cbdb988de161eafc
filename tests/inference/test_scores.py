"""Scores, judged by plain Python and by other libraries."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import word_error_rate

from dali_asr import Corpus, Inventory
from dali_asr.corpus import Normalization
from dali_asr.inference.evaluate import score
from dali_asr.inference.scores import accuracy_without, collapse, error_rate, symbol_scores
from dali_asr.model import HiddenLayer
from dali_asr.runs.checkpoint import Checkpoint
from dali_asr.runs.description import ModelDescription
from tests.makers import make_features

LABELS = st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 4)), min_size=1, max_size=40)


@given(pairs=LABELS)
def test_symbols_are_scored_as_by_counting(pairs: list[tuple[int, int]]) -> None:
    counted = [(g, t) for g, t in pairs if t >= 0]
    confusion = np.zeros((5, 5), np.int64)
    for g, t in counted:
        confusion[t, g] += 1
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
            assert wrong.count(named) == max(wrong.count(other) for other in range(5))
    speech = [(g, t) for g, t in counted if t != 0]
    expected = sum(g == t for g, t in speech) / len(speech) if speech else None
    assert accuracy_without(confusion, inventory, "[SIL]") == expected
    assert accuracy_without(confusion, inventory, "e") is None


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


def test_collapsing() -> None:
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
    scores = score(checkpoint, partition, device="cpu", progress=lambda *done: heard.append(done)).scores
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
    assert scores.confusion.sum() == len(truth)
    assert scores.to_json()["confusion"] == scores.confusion.tolist()
