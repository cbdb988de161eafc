"""Layouts, speakers and splits, by the paths of files that are not read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dali_asr.audio.preparing.files import File
from dali_asr.audio.preparing.layouts import PARTITIONS, SourceLayout, find_source_layout
from dali_asr.audio.preparing.pairs import Alignment, Pair
from dali_asr.audio.preparing.speakers import find_speakers
from dali_asr.audio.preparing.split import parse_split, split_speakers
from dali_asr.errors import DataError, UsageError

TIMIT = ["TRAIN/DR1/FCJF0/SA1.WAV", "TRAIN/DR1/FCJF0/SX7.WAV", "TEST/DR8/MPAM1/SA1.WAV", "TEST/DR8/MPAM1/SX7.WAV"]
TIMIT_NAMES, TIMIT_SPEAKERS = "FCJF0_SA1 FCJF0_SX7 MPAM1_SA1 MPAM1_SX7", "FCJF0 FCJF0 MPAM1 MPAM1"
LIBRISPEECH = ["train-clean-100/84/121123/84-121123-0000.flac", "dev-other/116/288045/116-288045-0003.flac"]
LIBRISPEECH_NAMES = "84-121123-0000 116-288045-0003"
PAIRS = "recordings with alignments"


def layout_of(names: list[str], *tables: str) -> SourceLayout:
    pairs = [Pair(file(name), Alignment(Path(name).with_suffix(".phn"), ".phn")) for name in names]
    return find_source_layout(pairs, [file(name) for name in tables])


def file(name: str) -> File:
    path = Path(name)
    return File(path, path.parts[:-1], path.stem)


@pytest.mark.parametrize(
    ("names", "title", "utterances", "partitions", "speakers", "how"),
    [
        (TIMIT, "TIMIT", TIMIT_NAMES, "train train test test", TIMIT_SPEAKERS, "in TIMIT"),
        (LIBRISPEECH, "LibriSpeech", LIBRISPEECH_NAMES, "train dev", "84 116", "in LibriSpeech"),
        ([f"x/{n}" for n in LIBRISPEECH], "LibriSpeech", LIBRISPEECH_NAMES, "train dev", "84 116", "in LibriSpeech"),
        (["wavs/ann/1.wav", "wavs/bob/1.wav"], PAIRS, "ann_1 bob_1", "None None", "ann bob", "by folder"),
        (["p1_1.wav", "p1_2.wav", "p2_1.wav"], PAIRS, "p1_1 p1_2 p2_1", "None None None", "p1 p1 p2", "prefix"),
        (["Train/a.wav", "valid/a.wav"], "partition folders", "a a", "train dev", "Train/a.wav valid/a.wav", "unknown"),
        (["train/a.wav", "train/b.wav"], PAIRS, "a b", "None None", "train/a.wav train/b.wav", "unknown"),
        (["train/a.wav", "other/b.wav"], PAIRS, "a b", "None None", "train other", "by folder"),
    ],
)
def test_layouts(names: list[str], title: str, utterances: str, partitions: str, speakers: str, how: str) -> None:
    layout = layout_of(names)
    found = find_speakers(layout, [], None)
    assert layout.title == title
    assert " ".join(placed.name for placed in layout.placed) == utterances
    assert " ".join(str(placed.partition) for placed in layout.placed) == partitions
    assert " ".join(found.names) == speakers
    assert how in found.how


def test_ljspeech_is_of_one_speaker() -> None:
    layout = layout_of(["wavs/LJ001-0001.wav", "wavs/LJ002-0001.wav"], "metadata.csv")
    assert layout.title == "LJSpeech"
    assert set(find_speakers(layout, [], None).names) == {"LJ"}


def test_speakers_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "transcripts.tsv"
    table.write_text("a\u0308\tann\tHI THERE\nb\tbob\tNO\n", encoding="utf-8")
    layout = layout_of(["ä.wav", "b.wav"])
    assert find_speakers(layout, [File(table, (), "transcripts")], None).names == ("ann", "bob")
    assert find_speakers(layout, [], str(table)).names == ("ann", "bob")
    table.write_text("ä\tHI THERE\nb\tNO\n", encoding="utf-8")  # names and words alone
    assert not find_speakers(layout, [File(table, (), "transcripts")], None).known


@pytest.mark.parametrize(
    ("way", "speakers"),
    [("folder", "x y"), ("prefix", "p q"), (r"-(\d)", "1 2"), ("none", "x/p-1.wav y/q-2.wav")],
)
def test_ways_to_tell_speakers(way: str, speakers: str) -> None:
    assert " ".join(find_speakers(layout_of(["x/p-1.wav", "y/q-2.wav"]), [], way).names) == speakers


@pytest.mark.parametrize(
    ("way", "error", "message"),
    [
        ("no/file", UsageError, "no such file; give folder, prefix, none, a file of lines"),
        ("no-file", UsageError, r"with a group around the speaker's part of the name, such as '\^\(\[\^_\]\+\)_'"),
        (
            r"\d{5}",
            UsageError,
            r"speakers '\\d\{5\}': the pattern needs a group .* name, as in '\(\\d\{5\}\)'; there is",
        ),
        (
            "[a-z]+",
            UsageError,
            r"the pattern needs a group around the speaker's part of the name, as in '\(\[a-z\]\+\)'",
        ),
        ("(", UsageError, "give a regular expression such as"),
        ("(a)(b)", UsageError, "has 2 groups"),
        ("z(.)", DataError, r"x/p-1.wav: speakers 'z\(.\)' does not match its name, 'p-1'; write a regular expression"),
        ("[pq](x)?", DataError, r"x/p-1.wav: no speaker by \[pq\]\(x\)\?; name another way"),
    ],
)
def test_ways_that_tell_no_speakers(way: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        find_speakers(layout_of(["x/p-1.wav", "y/q-2.wav"]), [], way)


@given(
    recordings=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=80),
    seed=st.integers(0, 5),
    order=st.randoms(use_true_random=False),
)
def test_a_split_keeps_speakers_together(recordings: list[tuple[int, float]], seed: int, order) -> None:  # type: ignore[no-untyped-def]
    """Each partition has a speaker if there are enough, and the order of the recordings does not matter."""
    speakers, seconds = [f"s{speaker}" for speaker, _ in recordings], [duration for _, duration in recordings]
    parts = split_speakers(speakers, seconds, (0.8, 0.1, 0.1), seed)
    of = dict(zip(speakers, parts, strict=True))
    assert [of[speaker] for speaker in speakers] == parts
    assert set(parts) == set(PARTITIONS[: len(of)])
    shuffled = list(zip(speakers, seconds, strict=True))
    order.shuffle(shuffled)
    again = split_speakers([s for s, _ in shuffled], [duration for _, duration in shuffled], (0.8, 0.1, 0.1), seed)
    assert again == [of[speaker] for speaker, _ in shuffled]


def test_a_split_has_the_shares_that_are_asked_for() -> None:
    speakers, ones = [f"s{number}" for number in range(200)], [1.0] * 200
    first = split_speakers(speakers, ones, (0.7, 0.2, 0.1), 3)
    assert Counter(first) == {"train": 140, "dev": 40, "test": 20}
    assert split_speakers(speakers, ones, (0.7, 0.2, 0.1), 4) != first
    assert set(split_speakers(speakers, ones, (0.9, 0.1, 0), 3)) == {"train", "dev"}


@pytest.mark.parametrize("text", ["", "0.8", "0.8,0.2", "0,0.5,0.5", "0.8,0.3,-0.1", "0.8,0.1,0.2", "a,b,c", "nan,0,1"])
def test_splits_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"give the shares of train, dev and test: 0.8,0.1,0.1"):
        parse_split(text)


def test_split_is_read() -> None:
    assert parse_split("0.8, 0.1,0.1") == (0.8, 0.1, 0.1)
