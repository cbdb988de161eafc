"""Corpora written utterance by utterance or made from arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dali_asr import Corpus, Inventory, PackedWriter
from dali_asr.corpus.packed import Manifest
from dali_asr.errors import DataError, UsageError
from dali_asr.inventory import ARPABET
from tests.makers import all_frames, make_features


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    dim=st.integers(1, 4),
    size=st.sampled_from([2, 300, 70_000]),
    normalization=st.sampled_from(["none", "utterance"]),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_writer_and_arrays_give_the_same_corpus(
    tmp_path: Path, lengths: list[int], dim: int, size: int, normalization: Any, dtype: str
) -> None:
    inventory = Inventory(tuple(f"s{i}" for i in range(size)))
    rng = np.random.default_rng(dim)
    frames = [make_features(n, dim, seed=i) for i, n in enumerate(lengths)]
    labels = [np.where(rng.random(n) < 0.2, -100, rng.integers(0, size, n)) for n in lengths]
    names = [f"u{i}" for i in range(len(lengths))]
    arguments: dict[str, Any] = {"normalization": normalization, "dtype": dtype}
    with PackedWriter(tmp_path / "w", inventory=inventory, overwrite=True, **arguments) as writer:
        for name, f, row in zip(names, frames, labels, strict=True):
            writer.add("all", name, f, row)
    written = Corpus.open(tmp_path / "w").partition("all")
    made = Corpus.from_arrays(frames, labels, inventory, names=names, **arguments).partition("all")
    assert written.utterances == made.utterances
    assert np.array_equal(written.offsets, made.offsets)
    assert all_frames(written).tobytes() == all_frames(made).tobytes()
    assert written.fingerprint == made.fingerprint
    for partition in (written, made):
        read = partition.labels()
        assert read is not None
        assert np.array_equal(read, np.concatenate(labels))


def test_a_writer_writes_several_partitions(tmp_path: Path) -> None:
    with PackedWriter(tmp_path / "w", inventory=ARPABET) as writer:
        writer.add("train", "a", make_features(3), [1, 2, 3])
        writer.add("test", "b", make_features(2))
    corpus = Corpus.open(tmp_path / "w")
    assert corpus.partition("train").labels() is not None
    assert corpus.partition("test").labels() is None
    both = corpus.partition("train", "test")
    labels = both.labels()
    assert labels is not None
    assert labels.tolist() == [1, 2, 3, -100, -100]
    assert corpus.normalization.kind == "none"


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ([("t", "a", np.ones(3), None)], "frames must be floats"),
        ([("t", "a", np.ones((2, 2), int), None)], "frames must be floats"),
        ([("t", "a", np.full((2, 2), np.nan), None)], "t/a: nan at frame 0"),
        ([("t", "a", np.ones((2, 2)), [1])], r"expected integers \[2\]"),
        ([("t", "a", np.ones((2, 2)), [1, 42])], "label 42 at frame 1; the inventory has labels 0 to 41"),
        ([("t", "a", np.ones((2, 2)), [-1, 2])], "label -1 at frame 0"),
        ([("t", "a", np.ones((2, 2)), None), ("t", "b", np.ones((2, 3)), None)], "3 features per frame, 2 in"),
        ([("t", "a", np.ones((2, 2)), None), ("t", "b", np.ones((1, 2)), [1])], "has labels, unlike"),
        (
            [("t", "a", np.ones((2, 2)), None), ("s", "b", np.ones((1, 2)), None), ("t", "c", np.ones((1, 2)), None)],
            "other partitions were added after t",
        ),
        ([("t", "a", np.ones((2, 2)), None), ("t", "a", np.ones((2, 2)), None)], "t/a: was added before"),
        ([("../t", "a", np.ones((2, 2)), None)], "partition '../t': invalid name"),
        ([("", "a", np.ones((2, 2)), None)], "partition '': invalid name"),
        ([(3, "a", np.ones((2, 2)), None)], "add: received 3 as a name"),
        ([("t", "\udcff", np.ones((2, 2)), None)], "utterance '.udcff': invalid name"),
        ([("t", 3, np.ones((2, 2)), None)], "add: received 3 as a name"),
        ([], "no utterance was added"),
    ],
)
def test_an_utterance_that_is_refused_leaves_no_files(tmp_path: Path, calls: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message), PackedWriter(tmp_path / "w", inventory=ARPABET) as writer:
        for call in calls:
            writer.add(*call)
    assert list(tmp_path.iterdir()) == []


def test_from_arrays_refuses_invalid_arrays() -> None:
    with pytest.raises(UsageError, match="all has no utterances"):
        Corpus.from_arrays([], [])
    with pytest.raises(UsageError, match="all: frames of 1, labels of 2; give both"):
        Corpus.from_arrays([np.ones((1, 2))], [[1], [2]])
    with pytest.raises(DataError, match="utterance 1: 3 features per frame, 2 in utterance 0"):
        Corpus.from_arrays([np.ones((1, 2)), np.ones((1, 3))])
    with pytest.raises(UsageError, match="dtype 'float64'"):
        Corpus.from_arrays([np.ones((1, 2))], dtype="float64")


def test_an_utterance_that_is_refused_leaves_no_empty_partition(tmp_path: Path) -> None:
    with PackedWriter(tmp_path / "w", inventory=ARPABET, dtype="float16") as writer:
        writer.add("a", "1", np.ones((2, 3)))
        with pytest.raises(DataError, match="does not fit float16"):
            writer.add("b", "1", np.full((2, 3), 1e6))
    assert list(Corpus.open(tmp_path / "w").partitions) == ["a"]


def test_a_writer_is_used_inside_its_block(tmp_path: Path) -> None:
    writer = PackedWriter(tmp_path / "w", inventory=ARPABET)
    with pytest.raises(UsageError, match="the writer is not open; add utterances inside its with block"):
        writer.add("t", "a", np.ones((2, 2)))
    with writer:
        writer.add("t", "a", np.ones((2, 2)))
    with pytest.raises(UsageError, match="the writer is not open"):
        writer.add("t", "b", np.ones((2, 2)))
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_an_error_inside_the_block_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), PackedWriter(tmp_path / "w", inventory=ARPABET) as writer:
        writer.add("t", "a", np.ones((2, 2)))
        (tmp_path / "missing").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_speakers_and_recordings_are_kept(tmp_path: Path) -> None:
    """For all utterances of a partition or for none."""
    with PackedWriter(tmp_path / "out", inventory=["a"]) as writer:
        writer.add("train", "u1", make_features(3), speaker="ann", recording="ann/1.wav")
        writer.add("train", "u2", make_features(4), speaker="bob", recording="bob/1.wav")
        writer.add("dev", "u1", make_features(3), speaker="cid")
        with pytest.raises(DataError, match="dev/u2: a speaker for some utterances of dev alone"):
            writer.add("dev", "u2", make_features(3))
        with pytest.raises(DataError, match="dev/u2: a recording for some utterances of dev alone"):
            writer.add("dev", "u2", make_features(3), speaker="dan", recording="2.wav")
    train, dev = Manifest.read(tmp_path / "out").partitions
    assert (train.speakers, train.recordings) == (("ann", "bob"), ("ann/1.wav", "bob/1.wav"))
    assert (dev.speakers, dev.recordings) == (("cid",), ())
