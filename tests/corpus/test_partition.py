"""Partitions in memory, in files, and joined: the same frames and labels by every way of reading."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dali_asr import Corpus, Partition
from dali_asr.corpus import pack_corpus
from dali_asr.errors import DataError, UsageError
from dali_asr.inventory import ARPABET, Inventory
from tests.makers import all_frames, make_course, make_partition


@pytest.fixture
def joined(course: Path, tmp_path: Path) -> Partition:
    """Return labelled and unlabelled packed partitions, joined out of order."""
    pack_corpus(course, tmp_path / "p")
    return Corpus.open(tmp_path / "p").partition("train", "test", "dev")


def test_parts_of_the_labels_are_those_of_the_whole(joined: Partition) -> None:
    whole = joined.labels()
    assert whole is not None
    assert (whole[50:61] == -100).all()
    assert (np.delete(whole, np.s_[50:61]) >= 0).all()
    for first in range(joined.frame_count):
        for end in (first, first + 1, first + 9, joined.frame_count):
            part = joined.labels(first, min(end, joined.frame_count), np.int8)
            assert part is not None
            assert part.dtype == np.int8
            assert part.tolist() == whole[first:end].tolist()


def test_utterances_read_in_any_run_are_those_of_the_whole(joined: Partition) -> None:
    frames = list(joined.frames())
    for first in range(len(frames)):
        for end in range(first + 1, len(frames) + 1):
            read = [np.zeros_like(utterance) for utterance in frames[first:end]]
            joined.read_into(read, first)
            assert all(np.array_equal(a, b) for a, b in zip(read, frames[first:end], strict=True))


def test_threads_read_at_the_same_time(tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train": [300] * 64})
    pack_corpus(tmp_path / "c", tmp_path / "p")
    partition = Corpus.open(tmp_path / "p").partition("train")
    frames = list(partition.frames())

    def read(first: int) -> bool:
        arrays = [np.zeros((300, 5), np.float32) for _ in range(8)]
        partition.read_into(arrays, first)
        return all(np.array_equal(a, b) for a, b in zip(arrays, frames[first : first + 8], strict=True))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, list(range(57)) * 4))


def test_another_dtype_is_in_memory(joined: Partition, tmp_path: Path) -> None:
    half = joined.astype("float16")
    (tmp_path / "p/frames.npy").unlink()
    assert half.dtype == np.float16
    assert half.utterances == joined.utterances
    assert half.lengths.tolist() == joined.lengths.tolist()
    labels, expected = half.labels(), joined.labels()
    assert labels is not None
    assert expected is not None
    assert labels.tolist() == expected.tolist()
    half.check_unchanged()
    with pytest.raises(DataError, match=r"frames\.npy"):
        joined.check_unchanged()


def test_frames_in_another_dtype_are_rounded(joined: Partition) -> None:
    assert np.array_equal(all_frames(joined.astype("float16")), all_frames(joined).astype(np.float16))


def test_the_fingerprint_is_that_of_the_content(course: Path, tmp_path: Path) -> None:
    pack_corpus(course, tmp_path / "p")
    packed = Corpus.open(tmp_path / "p").partition("train")
    assert packed.fingerprint == packed.astype("float32").fingerprint
    changed = packed.astype("float32")
    frames = all_frames(changed)
    frames[3, 2] += 1
    labels = changed.labels()
    assert labels is not None
    stored = labels.astype(np.uint8)
    others = [
        Partition.from_memory("train", ARPABET, packed.utterances, packed.lengths, frames, stored),
        Partition.from_memory("train", ARPABET, packed.utterances, packed.lengths, all_frames(packed), stored[::-1]),
        Partition.from_memory("train", ARPABET, packed.utterances, packed.lengths, all_frames(packed)),
        Partition.from_memory("dev", ARPABET, packed.utterances, packed.lengths, all_frames(packed), stored),
        Partition.from_memory("train", ARPABET, packed.utterances, packed.lengths[::-1], all_frames(packed), stored),
        packed.astype("float16"),
    ]
    assert len({packed.fingerprint, *(p.fingerprint for p in others)}) == 7


def test_partitions_that_differ_cannot_be_joined() -> None:
    a = Corpus.from_arrays([np.ones((2, 3))], partition="a")
    b = Corpus.from_arrays([np.ones((2, 4))], partition="b")
    both = Corpus({**a.partitions, **b.partitions}, ARPABET, a.normalization)
    with pytest.raises(DataError, match="a and b differ in inventory, features or dtype"):
        both.partition("a", "b")
    for names in ((), ("a", "a")):
        with pytest.raises(UsageError, match="name at least one, without duplicates"):
            both.partition(*names)


def test_a_partition_in_memory_has_its_labels_checked() -> None:
    frames, labels = np.ones((2, 3), np.float32), np.array([1, 5], np.uint8)
    partition = Partition.from_memory("t", Inventory(("a", "b")), ("u",), np.array([2]), frames, labels)
    with pytest.raises(DataError, match="label 5 in a corpus whose inventory has 2 symbols"):
        partition.labels()
    assert make_partition([3]).labels() is not None
