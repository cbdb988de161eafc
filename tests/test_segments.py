"""The times of frames, and segments, against plain loops over samples."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dali_asr.errors import DataError, UsageError
from dali_asr.segments import FrameTiming, Segment, boundary_shifts, common_shift, covering_segments, segments_of

timings = st.builds(
    FrameTiming,
    sample_rate=st.sampled_from([4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 192_000]),
    window=st.integers(1, 600),
    hop=st.integers(1, 400),
    centered=st.booleans(),
)


@given(timings, st.integers(0, 5_000))
def test_every_frame_begins_within_the_recording(timing: FrameTiming, samples: int) -> None:
    if timing.centered:
        starts = [s for s in range(samples + 1) if s % timing.hop == 0]
    else:
        starts = [s for s in range(samples) if s % timing.hop == 0 and s + timing.window <= samples]
    assert timing.frame_count(samples) == len(starts)


@given(timings, st.integers(0, 50))
def test_a_frame_stands_for_half_a_hop_around_its_center(timing: FrameTiming, frames: int) -> None:
    half = Fraction(0) if timing.centered else Fraction(timing.window, 2)
    centers = [(t * timing.hop + half) / timing.sample_rate for t in range(frames)]
    edges = [(t * timing.hop + half - Fraction(timing.hop, 2)) / timing.sample_rate for t in range(frames + 1)]
    assert timing.centers(frames).tolist() == [float(c) for c in centers]
    assert timing.edges(frames).tolist() == [float(e) for e in edges]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9, unique=True).map(sorted))
def test_shifts_lead_from_where_labels_change_to_the_boundaries(times: list[int]) -> None:
    """Times in whole hops lie 2.5 ms after the edges of frames of 25 ms; others are not alike."""
    timing, edges = FrameTiming(), FrameTiming().edges(60)
    for period in (0.01, 0.0091):
        starts = [0.0, *(period * time for time in times)]
        segments = [Segment(a, b, str(n)) for n, (a, b) in enumerate(zip(starts, [*starts[1:], 0.6], strict=True))]
        found = covering_segments(segments, timing, 59)
        changes = [edges[np.flatnonzero(found >= n)[0]] for n in range(1, len(segments)) if (found == n).any()]
        shifts = boundary_shifts(segments, timing)
        assert np.abs(shifts).max() < 0.0051
        if len(changes) == len(shifts):
            assert np.allclose(np.add(changes, shifts), starts[1:])
        if period == 0.01:
            assert common_shift([shifts, shifts]) == 0.0025
    assert common_shift([np.linspace(-0.005, 0.005, 30)]) == common_shift([]) == 0.0


@given(timings, st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_labels_survive_segments(timing: FrameTiming, labels: list[int]) -> None:
    segments = segments_of(np.array(labels), "abcd", timing)
    assert [a != b for a, b in pairwise(segments)] == [True] * (len(segments) - 1)
    assert all(a.end == b.start for a, b in pairwise(segments))
    found = covering_segments(segments, timing, len(labels))
    assert [segments[at].label for at in found] == ["abcd"[label] for label in labels]


@given(timings, st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), max_size=8), st.integers(0, 40))
def test_a_frame_has_the_segment_of_its_center(timing: FrameTiming, steps: list[tuple[int, int]], frames: int) -> None:
    segments, end = [], 0
    for gap, length in steps:  # of milliseconds
        segments.append(Segment((end + gap) / 1000, (end + gap + length) / 1000, "a"))
        end += gap + length
    expected = [
        next((at for at, s in enumerate(segments) if s.start <= center < s.end), -1)
        for center in timing.centers(frames).tolist()
    ]
    assert covering_segments(segments, timing, frames).tolist() == expected


def test_segments_reach_from_the_start_to_the_end_of_a_recording() -> None:
    labels, probabilities = np.array([0, 0, 1]), np.array([0.5, 1.0, 0.25])
    segments = segments_of(labels, ["SIL", "AH"], FrameTiming(), duration=0.05, probabilities=probabilities)
    assert segments == [Segment(0.0, 0.0275, "SIL", 0.75), Segment(0.0275, 0.05, "AH", 0.25)]
    assert segments_of(labels[:0], ["SIL"], FrameTiming()) == []


@given(timings, st.lists(st.sampled_from([-100, 0, 1]), max_size=40))
def test_frames_without_a_label_are_in_no_segment(timing: FrameTiming, labels: list[int]) -> None:
    segments = segments_of(labels, "ab", timing)
    found = covering_segments(segments, timing, len(labels))
    assert [segments[at].label if at >= 0 else None for at in found] == [{0: "a", 1: "b"}.get(n) for n in labels]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -1], "label -1 at frame 1; the symbols have labels 0 to 1, and -100 stands for none"),
        (np.array([0, 1, 2], np.uint8), "label 2 at frame 2"),
        ([0.0, 1.0], r"labels are float64 \[2\]; expected integers"),
        ([[0, 1]], r"labels are int64 \[1, 2\]"),
    ],
)
def test_labels_that_no_symbol_has_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"segments_of: {message}"):
        segments_of(labels, "ab", FrameTiming())
    with pytest.raises(DataError, match=r"probabilities \[1\]; expected \[2\]"):
        segments_of([0, 1], "ab", FrameTiming(), probabilities=[0.5])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sample_rate": 0}, "sample_rate: 0; expected a positive integer number of Hz"),
        ({"window": True}, "window: True; expected a positive integer number of samples"),
        ({"hop": 0.01}, "hop: 0.01; expected a positive integer number of samples"),
        ({"hop": "160"}, "hop: '160'; expected"),
        ({"centered": "no"}, "centered: 'no'; expected True or False"),
    ],
)
def test_a_timing_is_of_positive_integers(changed: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FrameTiming(**changed)
    assert type(FrameTiming(hop=np.int32(80)).hop) is int
