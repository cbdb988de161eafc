"""Parts of partitions: picked utterances and withheld labels, against the arrays that they are parts of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dali_asr import Corpus, Partition
from dali_asr.corpus import pack_corpus
from dali_asr.errors import UsageError
from tests.makers import all_frames, make_course, make_partition


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Partition:
    """Return a packed partition of three blocks, the middle one unlabelled."""
    root = tmp_path_factory.mktemp("views")
    make_course(root / "c", {"a": [7, 1, 30, 12], "b": [5, 6], "c": [9, 4]}, unlabelled=("b",))
    pack_corpus(root / "c", root / "p")
    return Corpus.open(root / "p").partition("a", "b", "c")


@given(st.sets(st.integers(0, 7), min_size=1))
def test_picked_utterances_are_those_of_the_whole(joined: Partition, numbers: set[int]) -> None:
    chosen = sorted(numbers)
    part = joined.pick(list(numbers))
    rows = np.concatenate([np.arange(*joined.offsets[n : n + 2]) for n in chosen])
    assert part.utterances == tuple(joined.utterances[n] for n in chosen)
    assert part.lengths.tolist() == joined.lengths[chosen].tolist()
    np.testing.assert_array_equal(all_frames(part), all_frames(joined)[rows])
    whole, labels = joined.labels(), part.labels()
    assert whole is not None
    if labels is None:
        assert set(chosen) <= {4, 5}
    else:
        np.testing.assert_array_equal(labels, whole[rows])


@pytest.mark.parametrize("numbers", [[], [8], [-1]])
def test_utterances_that_are_not_there_cannot_be_picked(joined: Partition, numbers: list[int]) -> None:
    with pytest.raises(UsageError, match="at least one utterance of 0 to 7"):
        joined.pick(numbers)


@given(st.lists(st.booleans(), min_size=74, max_size=74))
def test_withheld_labels_are_missing_and_nothing_else_changes(joined: Partition, mask: list[bool]) -> None:
    withheld = np.array(mask)
    part = joined.withhold(withheld)
    whole, labels = joined.labels(), part.labels()
    assert whole is not None
    assert labels is not None
    np.testing.assert_array_equal(labels, np.where(withheld, -100, whole))
    np.testing.assert_array_equal(all_frames(part), all_frames(joined))
    assert part.labels(40, 60) is not None
    assert (part.fingerprint == joined.fingerprint) == bool(np.array_equal(labels, whole))


def test_memory_and_files_have_views_of_one_meaning() -> None:
    partition = make_partition([5, 8, 3])
    again = partition.withhold(np.arange(16) == 6).pick([1, 2])
    labels, whole = again.labels(), partition.labels()
    assert labels is not None
    assert whole is not None
    assert labels.tolist() == [whole[5], -100, *whole[7:]]
