"""What partitions are like, and what is odd about them, judged by plain NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dali_asr import Corpus, Partition
from dali_asr.corpus import survey as module
from dali_asr.corpus.survey import find_oddities, survey, training_partition
from tests.makers import all_frames, make_features, make_partition

SYMBOLS = ["sil", "a", "b", "c"]


def corpus(labels: dict[str, list[list[int]]], scale: dict[str, float] | None = None) -> Corpus:
    """Return a corpus with these labels; features are scaled by partition."""
    frames = {
        name: [make_features(len(row), seed=at) * (scale or {}).get(name, 1) for at, row in enumerate(rows)]
        for name, rows in labels.items()
    }
    return Corpus.from_arrays(frames, labels, SYMBOLS)


def oddities(made: Corpus) -> list[str]:
    silence = made.inventory.silence()
    found = [survey(partition, silence) for partition in made.partitions.values()]
    return find_oddities(found, training_partition(made), silence)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 60), st.integers(0, 99))
def test_a_survey_counts_and_measures_everything(lengths: list[int], block: int, seed: int) -> None:
    partition = make_partition(lengths, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        found = survey(partition, 0)
    frames, labels = all_frames(partition).astype(np.float64), partition.labels()
    assert labels is not None
    assert found.lengths.tolist() == lengths
    assert found.counts.tolist() == np.bincount(labels, minlength=42).tolist()
    np.testing.assert_allclose(found.mean, frames.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, frames.std(axis=0), rtol=1e-9, atol=1e-12)
    rows = np.split(labels, np.cumsum(lengths)[:-1])
    assert found.silent == tuple(str(at) for at, row in enumerate(rows) if (row == 0).all())


def test_some_utterances_stand_for_all_of_them() -> None:
    partition = make_partition([20] * 100)
    found = survey(partition, max_utterances=3)
    rows = np.split(all_frames(partition).astype(np.float64), 100)
    chosen = np.concatenate([rows[0], rows[50], rows[99]])
    np.testing.assert_allclose(found.mean, chosen.mean(axis=0), rtol=1e-12)
    assert found.counts.sum() == 2000, "labels are all counted"


def test_a_corpus_like_others_has_nothing_odd() -> None:
    assert oddities(corpus({"train": [[0, 1, 2, 3] * 9], "dev": [[3, 2, 1, 0] * 9]})) == []


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (10.0, "dev: 5 of 5 features are 10 times as large as in train; check that they were computed alike"),
        (1 / 250, "dev: 5 of 5 features are 250 times smaller than in train; check that they were computed alike"),
        (8.0, None),
        (1 / 8, None),
    ],
)
def test_features_of_another_size_are_odd(scale: float, message: str | None) -> None:
    rows = [[0, 1, 2, 3] * 200]
    assert oddities(corpus({"train": rows, "dev": rows}, {"dev": scale})) == ([message] if message else [])


def test_features_at_another_level_are_odd() -> None:
    """Their spread is the same, their mean is not; a constant feature is not compared."""
    frames = make_features(500, dim=3)
    frames[:, 2] = 0
    shifted = frames + np.array([100, 0, 5], np.float32)
    made = Corpus.from_arrays({"train": [frames], "dev": [shifted]})
    (line,) = oddities(made)
    assert line.startswith("dev: 1 of 3 features are ")


def test_labels_of_one_partition_alone_are_odd() -> None:
    made = corpus({"train": [[0, 1, 2]], "dev": [[0, 1, 3]], "test": [[1, 1, 0]]})
    assert oddities(made) == [
        "train: labels that occur in no other partition: b",
        "dev: labels that occur in no other partition: c",
    ]
    assert oddities(corpus({"train": [[0, 1, 2]], "dev": [[-100] * 3]})) == [], "nothing to compare with"
    assert oddities(corpus({"train": [[0, 1, 2]]})) == []


def test_utterances_without_speech_are_odd() -> None:
    rows = [[0] * 5, [0, -100, 0], [0, 1], [-100, -100], [1, 2], [2]]
    assert oddities(corpus({"train": rows})) == ["train: 2 utterances are all sil, without speech: 0, 1"]
    assert oddities(corpus({"train": [[0]] * 7 + [[1]]})) == [
        "train: 7 utterances are all sil, without speech: 0, 1, 2, 3, 4 and 2 more"
    ]
    frames = [np.ones((3, 2)), np.ones((2, 2))]
    assert oddities(Corpus.from_arrays(frames, [[0, 0, 0], [1, 1]], ["x", "y"])) == [], "no symbol of silence"


def test_the_training_partition_is_named_or_the_largest() -> None:
    one, many = [[0, 1]], [[0, 1]] * 5
    assert training_partition(corpus({"dev": many, "train-100": one, "train-360": one * 2})) == "train-360"
    assert training_partition(corpus({"a": one, "b": many})) == "b"
    frames = {"a": [make_features(9)], "b": [make_features(99)]}
    assert training_partition(Corpus.from_arrays(frames, normalization="global", train=["a"])) == "a"


def test_real_speech_that_is_louder_is_found(real_speech: Path) -> None:
    """The first coefficient of the training speech is 20 times its size, as after another scaling."""
    frames = {}
    for name in ("train-clean", "dev-clean"):
        paths = sorted((real_speech / name / "mfcc").glob("*.npy"))[:20]
        frames[name] = [np.load(path) for path in paths]
    made = Corpus.from_arrays(frames)
    assert oddities(made) == []
    louder = [row * np.where(np.arange(28) == 0, 20, 1).astype(np.float32) for row in frames["dev-clean"]]
    made = Corpus.from_arrays(frames | {"dev-clean": louder})
    (line,) = oddities(made)
    assert line.startswith("dev-clean: 1 of 28 features are ")


def test_an_unlabelled_partition_has_no_counts() -> None:
    partition: Partition = Corpus.from_arrays([np.ones((4, 2))]).partition("all")
    found = survey(partition, 0)
    assert not found.labelled
    assert not found.counts.any()
    assert found.silent == ()
