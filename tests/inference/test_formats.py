"""Formats of predictions, read back by other programs' readers."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from praatio import textgrid

from dali_asr import Inventory
from dali_asr.errors import DaliAsrWarning, UsageError
from dali_asr.inference.format_names import Format, format_of
from dali_asr.inference.formats import encode, encode_utterance
from dali_asr.inference.predict import LabelledUtterance, Labelling
from dali_asr.inference.textgrid import seconds_text, to_textgrid
from dali_asr.inference.writers import check_prediction, write_prediction
from dali_asr.inventory import ARPABET
from dali_asr.segments import FrameTiming

LABELS = {"a": [0, 5], "b b": [39, 40, 40, 1]}


def labelled(name: str, labels: list[int], symbols: int = 42) -> LabelledUtterance:
    posteriors = np.random.default_rng(len(labels)).dirichlet(np.ones(symbols), len(labels)).astype(np.float32)
    chosen = np.array(labels)
    return LabelledUtterance(name, chosen, posteriors[np.arange(len(labels)), chosen], posteriors)


def made(
    labels: dict[str, list[int]] | None = None,
    inventory: Inventory = ARPABET,
    timing: FrameTiming | None = None,
) -> Labelling:
    given = labels or LABELS
    utterances = (labelled(name, row, len(inventory)) for name, row in given.items())
    return Labelling("test", inventory, "viterbi", timing or FrameTiming(), tuple(given), utterances)


def encoded(form: Format, labelling: Labelling | None = None, *, frame_labels: bool = False) -> str:
    stream = io.BytesIO()
    encode(labelling or made(), form, stream, frame_labels=frame_labels)
    return stream.getvalue().decode()


def test_kaggle() -> None:
    rows = list(csv.reader(io.StringIO(encoded("kaggle"))))
    symbols = ["[SIL]", "AW", "ZH", "[SOS]", "[SOS]", "AA"]
    assert rows == [["id", "label"], *([str(at), symbol] for at, symbol in enumerate(symbols))]


def test_kaggle_quotes_symbols_with_commas_and_quotes() -> None:
    symbols = ("a,b", 'say "x"', "plain")
    rows = list(csv.reader(io.StringIO(encoded("kaggle", made({"u": [0, 1, 2]}, Inventory(symbols))))))
    assert rows[1:] == [[str(i), symbol] for i, symbol in enumerate(symbols)]


def test_npz(tmp_path: Path) -> None:
    write_prediction(made(), tmp_path / "p.npz", "npz")
    with np.load(tmp_path / "p.npz", allow_pickle=False) as stored:
        assert stored["posteriors"].dtype == np.float32
        expected = [utterance.posteriors for utterance in made().utterances]
        assert np.array_equal(stored["posteriors"], np.concatenate([row for row in expected if row is not None]))
        assert stored["offsets"].tolist() == [0, 2, 6]
        assert stored["labels"].tolist() == [0, 5, 39, 40, 40, 1]
        assert stored["utterances"].tolist() == ["a", "b b"]
        assert stored["inventory"].tolist() == list(ARPABET.symbols)


def test_json_holds_segments_and_frame_labels_if_asked_for() -> None:
    values = json.loads(encoded("json"))
    assert values["inventory"] == list(ARPABET.symbols)
    assert (values["partition"], values["decoding"], values["accuracy"]) == ("test", "viterbi", None)
    assert values["timing"] == {"sample_rate": 16_000, "window": 400, "hop": 160, "centered": False}
    first, second = values["utterances"]
    assert first.keys() == second.keys() == {"name", "segments"}
    assert [segment["label"] for segment in second["segments"]] == ["ZH", "[SOS]", "AA"]
    assert [segment["start"] for segment in second["segments"]] == [0, 0.0175, 0.0375]
    assert second["segments"][-1]["end"] == 0.0475
    confidences = labelled("b b", LABELS["b b"]).confidences
    assert second["segments"][1]["confidence"] == pytest.approx(confidences[1:3].mean(), abs=1e-4)
    with_labels = json.loads(encoded("json", frame_labels=True))
    assert with_labels["utterances"][1]["labels"] == ["ZH", "[SOS]", "[SOS]", "AA"]


def test_ctm_has_six_fields_per_segment() -> None:
    with pytest.warns(DaliAsrWarning, match="^ctm: 'b b' is written as b_b: spaces separate the fields of CTM$"):
        lines = [line.split(" ") for line in encoded("ctm", made(inventory=ARPABET)).splitlines()]
    assert [line[:2] for line in lines] == [["a", "1"]] * 2 + [["b_b", "1"]] * 3
    assert [line[4] for line in lines] == ["[SIL]", "AW", "ZH", "[SOS]", "AA"]
    assert [(float(line[2]), float(line[3])) for line in lines[2:]] == [(0, 0.0175), (0.0175, 0.02), (0.0375, 0.01)]
    assert all(0 < float(line[5]) < 1 for line in lines)
    spaced = Inventory(("two words", "tab\tand\nline"))
    with pytest.warns(DaliAsrWarning, match="^ctm: 'two words' is written as two_words, and 1 more likewise: spaces"):
        lines = [line.split(" ") for line in encoded("ctm", made({"u": [0, 1]}, spaced)).splitlines()]
    assert [line[4] for line in lines] == ["two_words", "tab_and_line"]


def test_audacity_reads_three_columns() -> None:
    (utterance,) = made({"u": [1, 1, 0]}).utterances
    assert encode_utterance(utterance, made(), "audacity") == b"0\t0.0275\tAA\n0.0275\t0.0375\t[SIL]\n"


@pytest.mark.parametrize("timing", [FrameTiming(), FrameTiming(44_100, 1000, 441, centered=True)])
def test_praat_reads_textgrids(timing: FrameTiming, tmp_path: Path) -> None:
    symbols = ("plain", 'say "x"', "ə ü", "two words")
    labels = {"u": [0, 0, 1, 1, 1, 2, 3, 0]}
    write_prediction(made(labels, Inventory(symbols), timing), tmp_path / "u.TextGrid", "textgrid")
    grid = textgrid.openTextgrid(str(tmp_path / "u.TextGrid"), includeEmptyIntervals=True)
    assert grid.tierNames == ("phones",)
    (utterance,) = made(labels, Inventory(symbols), timing).utterances
    segments = utterance.segments(Inventory(symbols), timing)
    entries = grid.getTier("phones").entries
    assert [entry.label for entry in entries] == [segment.label for segment in segments]
    for entry, segment in zip(entries, segments, strict=True):
        assert (entry.start, entry.end) == pytest.approx((segment.start, segment.end), abs=1e-6)
    assert grid.maxTimestamp == entries[-1].end


def test_times_are_plain_decimals() -> None:
    assert [seconds_text(t) for t in (0, 0.0275, 1e-5, 123456.75, 20, 0.1 + 0.2)] == [
        *("0", "0.0275", "0.00001", "123456.75", "20", "0.3")
    ]
    assert 'name = "a ""b"""' in to_textgrid({'a "b"': [(0, 1, "")]}, 1)
    grid = to_textgrid({"a": [(0, 0.5, ""), (0.5, 1.2345, "x")], "b": [(0, 1.2345, "")]}, 1.2345)
    times = re.findall("xm(?:in|ax) = (.*)", grid)
    assert {len(time.partition(".")[2]) for time in times} == {4}, "as many decimals as the finest time"
    assert set(times) == {"0.0000", "0.5000", "1.2345"}


NAMES = ["../../up", "a/b", "a_b", "a%2Fb", "..", ".", "nul\0", "x" * 300, "x" * 301, "ü" * 200, "new\nline", "C:\\x"]


@pytest.mark.parametrize("form", ["textgrid", "audacity"])
def test_each_utterance_has_a_file_in_the_folder(form: Format, tmp_path: Path) -> None:
    labels = {name: [at % 40, 1] for at, name in enumerate(NAMES)}
    folder = tmp_path / "deep/er"
    write_prediction(made(labels), folder, form)
    files = {path.read_bytes() for path in folder.iterdir()}
    assert len(list(folder.iterdir())) == len(NAMES)
    assert files == {encode_utterance(utterance, made(), form) for utterance in made(labels).utterances}
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["er"]


def test_formats_are_known_by_their_suffixes() -> None:
    suffixes = (".csv", ".npz", ".json", ".ctm", ".TextGrid", ".textgrid", ".txt", ".HTML", "", ".wav")
    formats = ("kaggle", "npz", "json", "ctm", "textgrid", "textgrid", "audacity", "html", None, None)
    assert tuple(map(format_of, suffixes)) == formats


def test_files_of_a_folder_are_kept_unless_overwritten(tmp_path: Path) -> None:
    (tmp_path / "b b.TextGrid").write_text("mine")
    (tmp_path / "other").write_text("mine too")
    with pytest.raises(UsageError, match=r"b b\.TextGrid: exists; choose another file, or overwrite it"):
        write_prediction(made(), tmp_path, "textgrid")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b b.TextGrid", "other"], "nothing was written"
    write_prediction(made(), tmp_path, "textgrid", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.TextGrid", "b b.TextGrid", "other"]
    assert (tmp_path / "other").read_text() == "mine too"
    with pytest.raises(UsageError, match="is a file, and textgrid writes a file per utterance; name a folder"):
        check_prediction(tmp_path / "other", "textgrid", ["a"])
    with pytest.raises(UsageError, match="a: two utterances have this name"):
        check_prediction(tmp_path / "new", "audacity", ["a", "b", "a"])


@pytest.mark.parametrize("form", ["textgrid", "audacity"])
def test_one_file_holds_one_utterance(form: Format, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{form}: is a file per utterance, and there are 2 utterances; name a fol"):
        encode(made(), form, io.BytesIO())
    suffix = {"textgrid": "TextGrid", "audacity": "txt"}[form]
    with pytest.raises(UsageError, match="name a folder"):
        write_prediction(made(), tmp_path / f"x.{suffix}", form)
    assert not list(tmp_path.iterdir())


def test_files_appear_as_utterances_are_labelled(tmp_path: Path) -> None:
    seen = []

    def flowing() -> object:
        for name in ("a", "b", "c"):
            seen.append(sorted(path.name for path in tmp_path.glob("*")))
            yield labelled(name, [0, 1])

    flow = Labelling("test", ARPABET, "none", FrameTiming(), ("a", "b", "c"), flowing())  # type: ignore[arg-type]
    write_prediction(flow, tmp_path, "audacity")
    assert seen == [[], ["a.txt"], ["a.txt", "b.txt"]]
