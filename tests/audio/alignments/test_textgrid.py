"""TextGrids, judged by praatio's writer and by hand-written files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from praatio import textgrid as praat
from praatio.utilities.constants import Interval

from dali_asr.audio.alignments.textgrid import read_textgrid, read_tiers
from dali_asr.errors import DataError
from dali_asr.segments import Segment

REAL = Path(__file__).parents[4] / "shared" / "data" / "textgrid"
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
0.9
<exists>
2
"IntervalTier"
"words"
0
0.9
1
0
0.9
"say ""hi"" now"
"IntervalTier"
"Phones"
0
0.9
2
0
0.25
""
0.25
0.9
"AH0"
"""
LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 0.9
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "TextTier" ! "a comment" 5
        name = "clicks"
        xmin = 0
        xmax = 0.9
        points: size = 1
        points [1]:
            number = 0.5
            mark = "intervals [1]:"
    item [2]:
        class = "IntervalTier"
        name = "ann - phones"
        xmin = 0
        xmax = 0.9
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = "item [2]: size = 7"
        intervals [2]:
            xmin = 0.25
            xmax = 9e-1
            text = "two
lines"
"""


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "x.TextGrid"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_short_format(tmp_path: Path, encoding: str, end: str) -> None:
    path = written(tmp_path, SHORT.replace("\n", end), encoding)
    assert read_textgrid(path) == [Segment(0, 0.25, ""), Segment(0.25, 0.9, "AH0")]
    assert read_textgrid(path, "words") == [Segment(0, 0.9, 'say "hi" now')]


def test_long_format(tmp_path: Path) -> None:
    path = written(tmp_path, LONG)
    expected = [Segment(0, 0.25, "item [2]: size = 7"), Segment(0.25, 0.9, "two\nlines")]
    assert read_textgrid(path) == expected
    assert read_textgrid(path, "ANN*") == expected
    assert [tier.name for tier in read_tiers(path)] == ["ann - phones"]


@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=8),
    data=st.data(),
    form=st.sampled_from(["short_textgrid", "long_textgrid"]),
)
def test_what_praatio_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], data: st.DataObject, form: str
) -> None:
    """But for points and line breaks, which praatio's own reader changes."""
    alphabet = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"])
    edges = [sum(lengths[:at]) / 1000 for at in range(len(lengths) + 1)]
    labels = [data.draw(st.text(alphabet, max_size=6)) for _ in lengths]
    segments = [Segment(a, b, label) for a, b, label in zip(edges, edges[1:], labels, strict=False)]
    grid = praat.Textgrid()
    grid.addTier(praat.IntervalTier("phones", [Interval(*s[:3]) for s in segments], 0, edges[-1]))
    path = tmp_path_factory.mktemp("praat") / "ä b.TextGrid"
    grid.save(str(path), form, includeBlankSpaces=True)
    assert read_textgrid(path) == segments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("Phones", "phon"), r"no tier of phones; its tiers are 'words', 'phon'; name one \(tier=NAME\)"),
        (('"words"', '"phones"'), "2 tiers match tier of phones; its tiers are 'phones', 'Phones'"),
        (
            ('"say ""hi"" now"', '"say "hi" now"'),
            r"line 15: damaged TextGrid, a quote that is not closed, or not doubled",
        ),
        (('"AH0"\n', '"AH0\n'), "line 26: .* a quote that is not closed"),
        (('0.9\n"AH0"\n', ""), "damaged TextGrid, it ends where a number belongs"),
        (("0.25\n0.9", "x 0.25\n0,9"), "'AH0' where a number belongs"),
        (("<exists>\n2", "<exists>\n2.5"), "2.5 is not a number of tiers"),
        (("IntervalTier", "Interval"), "'Interval' is not a class of tiers"),
        (("ooTextFile", "ooBinaryFile"), 'it does not open with "ooTextFile"'),
    ],
)
def test_faults_are_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = written(tmp_path, SHORT.replace(*change, 1))
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}.*{message}"):
        read_textgrid(path)


@given(cut=st.integers(0, len(SHORT) - 3))
def test_a_file_that_was_cut_off_is_an_error(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = written(tmp_path_factory.mktemp("cut"), SHORT[:cut])
    with pytest.raises(DataError, match="damaged TextGrid"):
        read_tiers(path)


def test_a_tier_of_a_near_name_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no tier 'word'; its tiers are 'words', 'Phones'; did you mean words\?"):
        read_textgrid(written(tmp_path, SHORT), "word")


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is neither UTF-8 nor UTF-16; save it as UTF-8"):
        read_textgrid(written(tmp_path, SHORT.replace("hi", "hä"), "latin-1"))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no {REAL}")
@pytest.mark.parametrize("name", ["acoustic_corpus", "61-70968-0000", "michaelandsickmichael_short_tg"])
def test_real_textgrids_read_as_by_praatio(name: str) -> None:
    path = REAL / f"{name}.TextGrid"
    grid = praat.openTextgrid(str(path), includeEmptyIntervals=True)
    assert [t.name for t in read_tiers(path)] == list(grid.tierNames)
    for tier in read_tiers(path):
        assert [s[:3] for s in tier.segments] == [tuple(entry) for entry in grid.getTier(tier.name).entries]
