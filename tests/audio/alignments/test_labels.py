"""Segments to labels, judged by a loop over frames."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dali_asr.audio.alignments.labels import LabelRule, check_extent, check_order
from dali_asr.corpus.folding import FOLDS
from dali_asr.errors import DaliAsrWarning, DataError, SymbolError
from dali_asr.inventory import ARPABET, Inventory
from dali_asr.segments import FrameTiming, Segment

PATH = Path("x.phn")
TIMING = FrameTiming()
TIMIT = LabelRule(ARPABET, "[SIL]", FOLDS["timit61"])


def check(times: list[tuple[float, float]]) -> None:
    """Check segments in seconds of a recording of two seconds."""
    segments = [Segment(a, b, "a") for a, b in times]
    check_order(PATH, segments)
    check_extent(PATH, segments, 2.0, TIMING, 1)


@given(
    edges=st.lists(st.integers(0, 200), min_size=2, max_size=12, unique=True).map(sorted),
    symbols=st.lists(st.sampled_from(["ix", "tcl", "h#", "S", "AH0", "dx"]), min_size=12, max_size=12),
    frames=st.integers(0, 200),
)
def test_a_frame_has_the_label_at_its_center(edges: list[int], symbols: list[str], frames: int) -> None:
    """Every other stretch is a gap, which is silence. Edges lie between centers, which are at 12.5 ms + t · 10 ms."""
    meaning = {"ix": "IH", "tcl": "[SIL]", "h#": "[SIL]", "S": "S", "AH0": "AH", "dx": "D"}
    stretches = list(zip(edges, edges[1:], symbols, strict=False))[::2]
    segments = [Segment(a / 100, b / 100, symbol) for a, b, symbol in stretches]
    expected = []
    for t in range(frames):
        inside = [meaning[symbol] for a, b, symbol in stretches if a <= t + 1.25 < b]
        expected.append(ARPABET.symbols.index(inside[0] if inside else "[SIL]"))
    assert TIMIT.labels(PATH, segments, TIMING, frames).tolist() == expected


def test_positions_in_words_are_dropped_unless_known() -> None:
    assert TIMIT.target("AH0_B") == "AH"
    assert LabelRule(Inventory(("SIL", "a_B")), "SIL", {}).target("a_B") == "a_B"
    assert TIMIT.target("x_B") is None


def test_unknown_symbols_are_named_with_file_and_time() -> None:
    with pytest.raises(SymbolError, match=r"x.phn: unknown symbol 'ay!' at 1.250 s; did you mean AY\?; fold it by"):
        TIMIT.labels(PATH, [Segment(0, 1, "S"), Segment(1.25, 2, "ay!")], TIMING, 10)
    for path, has_tiers in {PATH: False, Path("x.TextGrid"): True}.items():
        with pytest.raises(SymbolError) as error:
            TIMIT.check(path, [Segment(0, 1, "ay!")])
        assert ("tier=NAME" in str(error.value)) is has_tiers


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([], "x.phn: holds no segments"),
        ([(0, 1), (0.9, 2)], "'a' at 0.900 s overlaps 'a', which ends at 1.000 s"),
        ([(1, 2), (0, 1)], "'a' at 0.000 s overlaps"),
        ([(1, 0.5)], "'a' lasts from 1.000 to 0.500 s"),
        ([(-1, 0.5)], "'a' lasts from -1.000"),
        ([(0, 2.03)], "x.phn: ends at 2.030 s, its recording at 2.000 s; give the alignment of this recording"),
        ([(0, 32_000)], "looks like samples at 16000 Hz, not seconds"),
        ([(0, 1_900)], "looks like milliseconds, not seconds"),
        ([(0, 198)], "looks like frames of 10 ms, not seconds"),
        ([(0, 2e7)], "looks like units of 100 ns, not seconds"),
    ],
)
def test_faults(segments: list[tuple[float, float]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(segments)


@pytest.mark.parametrize(
    ("end", "rate", "message"),
    [
        (200 / 16_000, 16_000, "looks like frames of 10 ms, not samples at 16000 Hz"),
        (2_000 / 16_000, 16_000, "looks like milliseconds, not samples at 16000 Hz"),
        (2_000 / 1e7, 1e7, "looks like milliseconds, not units of 100 ns"),
        (2 * 22_050 / 16_000, 16_000, "looks like samples at 22050 Hz, not samples at 16000 Hz"),
    ],
)
def test_other_units_than_those_of_the_format(end: float, rate: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_extent(PATH, [Segment(0, end, "a")], 2.0, TIMING, rate)


def test_an_alignment_of_less_than_half_a_recording_is_told() -> None:
    with pytest.warns(
        DaliAsrWarning, match=r"ends at 0\.900 s, its recording at 2\.000 s; the rest is labelled silence"
    ):
        check([(0, 0.9)])


@pytest.mark.filterwarnings("ignore::dali_asr.errors.DaliAsrWarning")
@pytest.mark.parametrize("segments", [[(0, 2.02)], [(0, 0.05)], [(0, 1), (0.9995, 2)], [(0, 1), (1, 1), (1, 2)]])
def test_what_is_accepted(segments: list[tuple[float, float]]) -> None:
    """Ends within a window of the recording's, short speech, rounded times, and segments of no length."""
    check(segments)
