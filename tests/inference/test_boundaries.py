"""Errors of boundaries, on cases worked out by hand and against plain loops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dali_asr.inference.boundaries import score_boundaries


def scored(predicted: str, true: str, period: float = 0.01) -> object:
    """Score labels given as letters; `.` has no label and `|` ends an utterance."""
    rows = [[ord(c) if c != "." else -100 for c in text.replace("|", "")] for text in (predicted, true)]
    offsets = np.cumsum([0, *map(len, true.split("|"))])
    found = score_boundaries(np.array(rows[0]), np.array(rows[1]), offsets, period)
    return tuple(None if value is None else round(value, 6) for value in vars(found).values())


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ("aaabbbccc", "aaabbbccc", (2, 1, 0, 0, 1, 1, 1)),
        ("aabbbbbcc", "aaabbbccc", (2, 1, 0.01, 0.01, 1, 1, 1)),
        ("aaaaabbbc", "abbbbbbbc", (2, 1, 0.02, 0.02, 0.5, 0.5, 1)),
        ("aaaxxxccc", "aaabbbccc", (2, 0, None, None, None, None, None)),  # b is not found
        ("aaabxbccc", "aaabbbccc", (2, 1, 0.005, 0.005, 1, 1, 1)),
        ("aaaaaaaaa", "aaaaaaaaa", (0, None, None, None, None, None, None)),
        ("aabb|ccdd", "aabb|cddd", (2, 1, 0.005, 0.005, 1, 1, 1)),  # the end of an utterance is no boundary
        ("aaabbbcc", "aa..bbcc", (1, 1, 0, 0, 1, 1, 1)),  # nor are frames without a label
        ("...", "...", (0, None, None, None, None, None, None)),
    ],
)
def test_boundaries_are_matched_between_equal_neighbours(predicted: str, true: str, expected: object) -> None:
    if "bxb" in predicted:  # a shortest path may align either b
        assert scored(predicted, true)[:2] in ((2, 0.5), (2, 1))  # type: ignore[index]
    else:
        assert scored(predicted, true) == expected


@given(
    durations=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=8),
    period=st.sampled_from([0.01, 0.005, 441 / 44100]),
)
def test_boundaries_of_the_true_phones_are_all_matched(durations: list[tuple[int, int]], period: float) -> None:
    """As in forced alignment: the n-th boundary with the n-th."""
    ours, theirs = (np.array(side) for side in zip(*durations, strict=True))
    ours[-1] += max(theirs.sum() - ours.sum(), 0)
    theirs[-1] += max(ours.sum() - theirs.sum(), 0)
    phones = np.arange(len(ours))
    found = score_boundaries(np.repeat(phones, ours), np.repeat(phones, theirs), np.array([0, ours.sum()]), period)
    errors = [abs(int(a) - int(b)) * period for a, b in zip(np.cumsum(ours)[:-1], np.cumsum(theirs)[:-1], strict=True)]
    assert (found.count, found.matched) == (len(errors), 1)
    assert found.mean == pytest.approx(np.mean(errors))
    assert found.median == pytest.approx(np.median(errors))
    within = [found.within_10_ms, found.within_20_ms, found.within_50_ms]
    for share, tolerance in zip(within, (0.010, 0.020, 0.050), strict=True):
        assert share == pytest.approx(np.mean([error <= tolerance + 1e-9 for error in errors]))
    assert all(a is not None and b is not None and a <= b for a, b in pairwise(within))
