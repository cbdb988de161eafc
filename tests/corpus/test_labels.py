"""Label counts, class weights, and the warning about symbols that label no frame."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dali_asr import Corpus, Inventory
from dali_asr.corpus.labels import balanced_weights, label_counts, warn_of_missing
from dali_asr.errors import DataError
from dali_asr.inventory import ARPABET
from tests.makers import make_features, make_partition


def test_counts_equal_a_plain_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dali_asr.corpus.labels._BLOCK", 7)
    partition = make_partition([5, 1, 30, 12])
    truth = partition.labels()
    assert truth is not None
    expected = Counter(truth.tolist())
    assert label_counts(partition, "data.train").tolist() == [expected[at] for at in range(42)]


def test_weights_make_labels_count_the_same() -> None:
    counts = np.array([10, 0, 30, 1])
    weights = balanced_weights(counts)
    assert weights[[0, 2, 3]] * counts[[0, 2, 3]] == pytest.approx([41 / 3] * 3)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[1] == 1


def test_a_partition_without_labels_is_refused() -> None:
    unlabelled = Corpus.from_arrays([make_features(4)]).partition("all")
    with pytest.raises(DataError, match=r"all: has no transcripts; name a labelled partition in data\.train"):
        label_counts(unlabelled, "data.train")
    empty = Corpus.from_arrays([make_features(4)], [[-100] * 4]).partition("all")
    with pytest.raises(DataError, match=r"all: all of its 4 frames are unlabelled; name a labelled partition"):
        label_counts(empty, "data.dev")


def test_symbols_that_never_occur_are_named() -> None:
    counts = np.ones(42, np.int64)
    counts[[40, 41]] = 0
    assert warn_of_missing(counts, ARPABET, "train") is None, "start and end never label a frame"
    counts[39] = 0
    message = warn_of_missing(counts, ARPABET, "train")
    assert message is not None
    assert message == "train: no frame is labelled ZH; the model cannot learn what it never sees"
    started = warn_of_missing(counts, ARPABET, "train", trained=True)
    assert started == "train: no frame is labelled ZH; the model may forget those it knows"
    few = warn_of_missing(np.array([1, 0, 0, 0, 0, 0, 0, 0]), Inventory(tuple("abcdefgh")), "x")
    assert few is not None
    assert "b, c, d, e, f and 2 more" in few
    assert few.endswith(", check data.inventory and data.train")
