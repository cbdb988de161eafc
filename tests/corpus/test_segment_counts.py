"""Counts of segments and the states of their frames, against plain loops."""

from __future__ import annotations

import json
from collections import Counter
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dali_asr import Corpus, Inventory
from dali_asr.corpus.segment_counts import MAX_DURATION, SegmentCounts, count_segments
from dali_asr.corpus.states import frame_states
from tests.makers import make_features

UTTERANCES = st.lists(st.lists(st.sampled_from([-100, 0, 1, 2]), min_size=1, max_size=12), min_size=1, max_size=5)


def counted(utterances: list[list[int]]) -> SegmentCounts:
    counts = SegmentCounts.empty(3)
    counts.add(np.array([label for u in utterances for label in u]), np.cumsum([0, *map(len, utterances)]))
    return counts


def cells(table: np.ndarray) -> dict[tuple[int, int], int]:
    return {(int(a), int(b)): int(table[a, b]) for a, b in np.argwhere(table)}


@settings(max_examples=40)
@given(UTTERANCES)
def test_segments_are_counted_as_by_a_loop(utterances: list[list[int]]) -> None:
    edge = 3
    transitions: Counter[tuple[int, int]] = Counter()
    durations: Counter[tuple[int, int]] = Counter()
    for utterance in utterances:
        segments = [(edge, 0), *((label, len(list(run))) for label, run in groupby(utterance)), (edge, 0)]
        transitions.update((a, b) for (a, _), (b, _) in pairwise(segments) if a >= 0 and b >= 0)
        for before, (label, length), after in zip(segments, segments[1:-1], segments[2:], strict=False):
            if min(before[0], label, after[0]) >= 0:
                durations[label, length - 1] += 1
    counts = counted(utterances)
    assert cells(counts.transitions) == transitions
    assert cells(counts.durations) == durations
    assert counts.frames.tolist() == [sum(u.count(label) for u in utterances) for label in range(3)]


@settings(max_examples=40)
@given(UTTERANCES)
def test_counts_survive_json(utterances: list[list[int]]) -> None:
    counts = counted(utterances)
    again = SegmentCounts.from_json(json.loads(json.dumps(counts.to_json())), 3)
    for name, values in vars(counts).items():
        assert np.array_equal(values, getattr(again, name))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("frames", [1, 2]),
        ("frames", [1, 2, -3]),
        ("transitions", [[0, 4, 1]]),
        ("transitions", [[0, 1]]),
        ("durations", [[0, MAX_DURATION, 1]]),
        ("durations", [[0, 0, 1.5]]),
        ("durations", [[0, 0, "1"]]),
        ("durations", 7),
        ("frames", None),
    ],
)
def test_values_that_are_no_counts_are_refused(key: str, value: Any) -> None:
    values = counted([[0, 1, 1, 2]]).to_json()
    with pytest.raises((ValueError, TypeError)):
        SegmentCounts.from_json(values | {key: value}, 3)


def test_a_partition_is_counted_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dali_asr.corpus.segment_counts._BLOCK", 7)
    labels = [[0, 0, 1], [2] * 9, [1], [-100, 1, 2, 0, 0]]
    frames = [make_features(len(row), 2) for row in labels]
    counts = count_segments(Corpus.from_arrays(frames, labels, Inventory(("a", "b", "c"))).partition("all"))
    assert counts is not None
    assert cells(counts.transitions) == cells(counted(labels).transitions)
    assert cells(counts.durations) == cells(counted(labels).durations)


def test_long_segments_count_as_the_longest_and_large_inventories_are_not_counted() -> None:
    assert cells(counted([[1] * (MAX_DURATION + 5)]).durations) == {(1, MAX_DURATION - 1): 1}
    many = Inventory(tuple(f"s{n}" for n in range(1001)))
    assert count_segments(Corpus.from_arrays([make_features(2, 2)], [[0, 1]], many).partition("all")) is None


@settings(max_examples=40)
@given(UTTERANCES, st.integers(1, 4))
def test_segments_are_divided_into_states_of_equal_length(utterances: list[list[int]], states: int) -> None:
    expected = []
    for label, run in (pair for utterance in utterances for pair in groupby(utterance)):
        length = len(list(run))
        expected += [0 if label == 0 else int((frame + 0.5) / length * states) for frame in range(length)]
    frames = [make_features(len(utterance), 1) for utterance in utterances]
    corpus = Corpus.from_arrays(frames, utterances, Inventory(("[SIL]", "b", "c")))
    assert frame_states(corpus.partition("all"), states).tolist() == expected
