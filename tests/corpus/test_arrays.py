"""Corpora from arrays in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dali_asr import Corpus, Inventory, Normalization, PackedWriter, WindowLoader
from dali_asr.errors import DataError, UsageError
from tests.makers import make_features, make_partition

FRAMES = [make_features(length, seed=length) for length in (4, 7, 5)]
LABELS = [np.arange(length) % 3 for length in (4, 7, 5)]


def test_a_list_of_symbols_is_an_inventory() -> None:
    corpus = Corpus.from_arrays(FRAMES, LABELS, ["a", "b", "c"])
    assert corpus.inventory == Inventory(("a", "b", "c"))
    assert Corpus.from_arrays(FRAMES, LABELS, np.array(["a", "b", "c"])).inventory == corpus.inventory  # type: ignore[arg-type]
    assert np.array_equal(corpus.partition("all").labels(), np.concatenate(LABELS))  # type: ignore[arg-type]


def test_without_an_inventory_labels_are_named_by_their_numbers() -> None:
    assert Corpus.from_arrays(FRAMES, LABELS).inventory.symbols == ("0", "1", "2")


@pytest.mark.parametrize("inventory", [42, "abc", [1, 2, 3], {"a": 0}])
def test_another_inventory_is_refused(inventory: Any) -> None:
    with pytest.raises(UsageError, match=r"inventory .*; expected an Inventory, or a list of symbols in label order"):
        Corpus.from_arrays(FRAMES, LABELS, inventory)


def test_several_partitions_share_global_statistics_of_the_training_partitions() -> None:
    frames = {"train": FRAMES[:2], "more": FRAMES[2:], "test": FRAMES[:1]}
    labels = {"train": LABELS[:2], "more": LABELS[2:]}
    corpus = Corpus.from_arrays(frames, labels, normalization="global", train=("train", "more"), names={"test": ["x"]})
    every = np.concatenate(FRAMES).astype(np.float64)
    assert list(corpus.partitions) == ["train", "more", "test"]
    assert [p.labelled for p in corpus.partitions.values()] == [True, True, False]
    assert corpus.partition("test").utterances == ("x",)
    assert corpus.normalization.partitions == ("train", "more")
    np.testing.assert_allclose(corpus.normalization.mean, every.mean(axis=0))
    np.testing.assert_allclose(corpus.normalization.deviation, every.std(axis=0))
    alone = Corpus.from_arrays(frames, labels, normalization="global", train="more").normalization
    assert alone.partitions == ("more",)
    (normalized,) = corpus.partition("test").frames()
    np.testing.assert_allclose(normalized, (FRAMES[0] - every.mean(axis=0)) / every.std(axis=0), rtol=1e-5, atol=1e-6)


def test_statistics_for_a_writer_are_those_of_numpy(tmp_path: Path) -> None:
    """Computed from a generator, which is read once."""
    normalization = Normalization.of((frames for frames in FRAMES), partitions=("train",))
    with PackedWriter(tmp_path / "packed", inventory=["a", "b", "c"], normalization=normalization) as writer:
        for at, (frames, labels) in enumerate(zip(FRAMES, LABELS, strict=True)):
            writer.add("train", f"u{at}", frames, labels)
    packed = Corpus.open(tmp_path / "packed")
    joined = np.concatenate(list(packed.partition("train").frames()))
    np.testing.assert_allclose(joined.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(joined.std(axis=0), 1, rtol=1e-5)
    with pytest.raises(UsageError, match=r"global statistics: Normalization\.of\(FRAMES\)"):
        PackedWriter(tmp_path / "other", inventory=["a"], normalization="global")
    with pytest.raises(UsageError, match="received no utterances"):
        Normalization.of([])
    with pytest.raises(DataError, match=r"Normalization.of: utterance 1: nan at frame 0, .*; repair the frames, or"):
        Normalization.of([FRAMES[0], np.full((2, 5), np.nan)])
    with pytest.raises(DataError, match=r"Normalization.of: utterance 1: float.*; give a list of finite floats"):
        Normalization.of([FRAMES[0], FRAMES[0][0]])
    with pytest.raises(DataError, match=r"Normalization.of: utterance 1: 3 features per frame, 2 in the utterances"):
        Normalization.of([np.ones((3, 2)), np.ones((4, 3))])


def test_a_corpus_is_shown_in_one_line() -> None:
    corpus = Corpus.from_arrays({"train": FRAMES, "dev": FRAMES[:1]}, inventory=["a", "b"])
    total, feature_dim = sum(map(len, FRAMES)), FRAMES[0].shape[1]
    assert repr(corpus) == (
        f"Corpus(train [{total}, {feature_dim}], dev [{len(FRAMES[0])}, {feature_dim}], float32, none, 2 symbols)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"frames": [np.ones((3, 2)), np.ones(3)]}, DataError, r"utterance 1: float64 \[3\]; frames must be floats"),
        ({"frames": [np.ones((3, 2))], "names": ["x"], "labels": [[0, 1]]}, DataError, "utterance x: labels are int64"),
        (
            {"frames": [np.ones((3, 2)), np.ones((3, 4))]},
            DataError,
            "utterance 1: 4 features per frame, 2 in utterance 0",
        ),
        ({"frames": [[[np.nan]]]}, DataError, r"utterance 0: nan at frame 0, feature 0.*zero: numpy\.nan_to_num\("),
        ({"frames": []}, UsageError, "all has no utterances"),
        ({"frames": {}}, UsageError, "received no utterances"),
        (
            {"frames": {"a": FRAMES}, "labels": {"b": LABELS}},
            UsageError,
            "labels of 'b', which has no frames; it has a",
        ),
        ({"frames": {"a": FRAMES, "b": FRAMES}, "labels": LABELS}, UsageError, "labels in a list; give a dict, too"),
        (
            {"frames": FRAMES, "labels": LABELS[:2]},
            UsageError,
            "all: frames of 3, labels of 2; give both",
        ),
        (
            {"frames": {"train": FRAMES, "dev": [FRAMES[0], np.array([[0, 1], [2, np.inf]])]}},
            DataError,
            r"dev/1: inf at frame 1, feature 1; ",
        ),
        ({"frames": FRAMES[0]}, UsageError, r"frames of all: one array \[4, .*\]; give a list of utterances"),
        ({"frames": {"a": torch.ones(2, 3)}}, UsageError, r"frames of a: one array \[2, 3\]; give a list"),
        ({"frames": [np.ones((3, 2))], "labels": np.zeros(3, int)}, UsageError, r"labels of all: one array \[3\]"),
        ({"frames": 3}, UsageError, "frames of all: 3; give a list of utterances"),
        ({"frames": {"a": {"u": FRAMES[0]}}}, UsageError, "frames of a: a dict; give a list of utterances, and names="),
        (
            {"frames": [np.ones((3, 2), np.int16)]},
            DataError,
            r'frames must be floats .*; give frames\.astype\("float32"\)',
        ),
        (
            {"frames": FRAMES, "labels": [LABELS[0], None, LABELS[2]]},
            DataError,
            "utterance 1: has no labels, unlike 2 of the 3 utterances; give labels for all of a partition, -100 where",
        ),
        ({"frames": [[[1.0, 2.0], [3.0]]]}, DataError, "utterance 0: frames cannot be read by NumPy .* one length"),
        (
            {"frames": [torch.ones(2, 3, dtype=torch.bfloat16)]},
            DataError,
            r"utterance 0: frames cannot .*BFloat16\); give tensor\.detach\(\)\.float\(\)\.cpu\(\)\.numpy\(\)$",
        ),
        (
            {"frames": {"a": FRAMES[:1]}, "labels": {"a": [torch.ones(4, requires_grad=True)]}},
            DataError,
            r"a/0: labels cannot .* requires grad\); give tensor\.detach\(\)\.cpu\(\)",
        ),
        ({"frames": FRAMES[:2], "names": ["x", "x"]}, DataError, "all/x: was added before; give every utterance"),
        ({"frames": FRAMES[:2], "names": [0, 1]}, DataError, "all: utterance 0: invalid name; give a string"),
        (
            {"frames": FRAMES, "normalization": "cmvn"},
            UsageError,
            r"normalization 'cmvn'; expected none, utterance, global, or statistics: Normalization\.of\(FRAMES\)",
        ),
        (
            {"frames": FRAMES, "normalization": "global", "train": ["x"]},
            UsageError,
            "train names 'x', which has no frames",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as refused:
        Corpus.from_arrays(**arguments)
    assert "\n" not in str(refused.value)


def test_arrays_may_come_from_generators() -> None:
    corpus = Corpus.from_arrays((frames for frames in FRAMES), (row for row in LABELS), names=map(str, "abc"))
    expected = Corpus.from_arrays(FRAMES, LABELS, names=["a", "b", "c"])
    assert corpus.partition("all").fingerprint == expected.partition("all").fingerprint
    stacked = np.stack([FRAMES[0], FRAMES[0]])
    assert [len(utterance) for utterance in Corpus.from_arrays(stacked).partition("all").frames()] == [4, 4]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_every_frame_belongs_to_its_utterance(lengths: list[int]) -> None:
    partition = make_partition(lengths)
    expected = np.repeat(np.arange(len(lengths)), lengths)
    assert partition.utterance_of(np.arange(sum(lengths))).tolist() == expected.tolist()
    with pytest.raises(UsageError, match=f"frame {sum(lengths)}; the partition has frames 0 to {sum(lengths) - 1}"):
        partition.utterance_of([0, sum(lengths)])


def test_the_frames_of_a_batch_lead_to_their_utterances() -> None:
    partition = make_partition([3, 4])
    (batch,) = WindowLoader(partition, context=1, batch_size=7, shuffle=False, device="cpu")
    assert partition.utterance_of(batch.frame_ids).tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert partition.utterance_of(torch.tensor([], dtype=torch.int64)).tolist() == []


def test_transposed_frames_are_suspected() -> None:
    message = r"utterance 0: labels are int64 \[9\]; expected integers \[5\], .*; or are the frames transposed\?"
    with pytest.raises(DataError, match=message):
        Corpus.from_arrays([np.zeros((5, 9), np.float32)], [np.zeros(9, np.int64)])
