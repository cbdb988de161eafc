"""`.phn`, `.lab`, Audacity's label tracks and CTM, written by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dali_asr.audio.alignments.ctm import read_ctm
from dali_asr.audio.alignments.label_files import read_audacity, read_lab, read_phn
from dali_asr.errors import DataError
from dali_asr.segments import Segment


def written(folder: Path, text: str) -> Path:
    path = folder / "x.txt"
    path.write_text(text, encoding="utf-8")
    return path


@given(
    edges=st.lists(st.integers(0, 10**7), min_size=2, max_size=8, unique=True).map(sorted),
    rate=st.sampled_from([8000, 16000, 44100]),
)
def test_segments_come_back(tmp_path_factory: pytest.TempPathFactory, edges: list[int], rate: int) -> None:
    folder = tmp_path_factory.mktemp("lines")
    pairs = list(pairwise(edges))
    phn = written(folder, "".join(f"{a} {b} ax-h\n" for a, b in pairs))
    assert read_phn(phn, rate) == [Segment(a / rate, b / rate, "ax-h") for a, b in pairs]
    lab = written(folder, "".join(f"{a * 100} {b * 100} sil -7.5 word\n" for a, b in pairs))
    assert read_lab(lab) == [Segment(a / 1e5, b / 1e5, "sil") for a, b in pairs]
    track = written(folder, "".join(f"{a / rate!r}\t{b / rate!r}\tə x\n\\\t10\t20\n" for a, b in pairs))
    assert read_audacity(track) == [Segment(a / rate, b / rate, "ə x") for a, b in pairs]
    ctm = written(
        folder, "".join(f"ü 1 {a / 8!r} {(b - a) / 8!r} AH0_B\n" for a, b in reversed(pairs))
    )  # exact eighths
    assert read_ctm(ctm) == {"ü": [Segment(a / 8, b / 8, "AH0_B") for a, b in pairs]}


def test_labels_of_audacity_may_be_empty(tmp_path: Path) -> None:
    assert read_audacity(written(tmp_path, "0.5\t1.0\t\n1.0\t1.5\n")) == [Segment(0.5, 1, ""), Segment(1, 1.5, "")]


def test_ctm_has_comments_confidences_and_many_recordings(tmp_path: Path) -> None:
    path = written(tmp_path, ";; made by hand\nb 1 0 0.5 AH 0.25\na 1 1 1 B -12.5\nb 1 0.5 0.5 T x\n")
    expected = {"b": [Segment(0, 0.5, "AH", 0.25), Segment(0.5, 1, "T")], "a": [Segment(1, 2, "B")]}
    assert read_ctm(path) == expected


@pytest.mark.parametrize(
    ("read", "line", "message"),
    [
        (lambda path: read_phn(path, 16_000), "0.5 1.5 AH", "in whole samples"),
        (lambda path: read_phn(path, 16_000), "0 5 AH B", "in whole samples"),
        (read_lab, "she had your dark suit", "in units of 100 ns"),
        (read_lab, "0 5", "in units of 100 ns"),
        (read_audacity, "0,5\t1,5\tAH", "as Audacity does"),
        (read_audacity, "nan\t1\tAH", "as Audacity does"),
        (read_audacity, "word", "as Audacity does"),
        (read_ctm, "a 1 0.5 -1 AH", "NAME CHANNEL START DURATION PHONE"),
        (read_ctm, "a 1 0.5 1", "NAME CHANNEL START DURATION PHONE"),
    ],
)
def test_lines_of_another_form(tmp_path: Path, read, line: str, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=f"x.txt, line 2: .*{message}"):
        read(written(tmp_path, f"\n{line}\n"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="x: no such file or directory; check the path"):
        read_lab(tmp_path / "x")
    with pytest.raises(DataError, match="is not a regular file"):
        read_lab(tmp_path)
