"""Kaldi's data folders, written by kaldi_native_io."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import kaldi_native_io
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dali_asr.corpus.layouts import layout_title
from dali_asr.errors import DataError
from dali_asr.inventory import ARPABET, ARPABET_SYMBOLS, Inventory
from tests.corpus.layouts.references import Utterances, check, packed
from tests.makers import make_features


def write_feats(folder: Path, features: dict[str, Any], kind: str = "Float", options: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    writer = getattr(kaldi_native_io, f"{kind}MatrixWriter")
    with writer(f"ark{options},scp:{folder}/raw.ark,{folder}/feats.scp") as out:
        for name, frames in features.items():
            if kind == "Compressed":
                out.write(name, frames, method=kaldi_native_io.CompressionMethod.kAutomaticMethod)
            else:
                out.write(name, frames)


def data(lengths: list[int], seed: int = 0) -> Utterances:
    rng = np.random.default_rng(seed)
    return {f"s{at}-{seed}": (make_features(n, 4, at), rng.integers(0, 40, n)) for at, n in enumerate(lengths)}


def frames_of(utterances: Utterances) -> dict[str, Any]:
    return {name: frames for name, (frames, _) in utterances.items()}


def ctm(utterances: Utterances, symbols: Any = ARPABET_SYMBOLS) -> str:
    """Return CTM lines of the runs of equal labels; frames without a label are left out."""
    lines = []
    for name, (_, labels) in utterances.items():
        assert labels is not None
        edges = [0, *(np.flatnonzero(np.diff(labels)) + 1), len(labels)]
        for first, end in pairwise(edges):
            if labels[first] >= 0:
                lines.append(f"{name} 1 {first * 0.01:.3f} {(end - first) * 0.01:.3f} {symbols[labels[first]]}\n")
    return "".join(lines)


@pytest.mark.parametrize(("kind", "options"), [("Float", ""), ("Double", ""), ("Float", ",t"), ("Compressed", "")])
def test_matrices_of_every_kind_are_read(tmp_path: Path, kind: str, options: str) -> None:
    made = data([5, 9, 2])
    frames = {n: f.astype(np.float64) if kind == "Double" else f for n, f in frames_of(made).items()}
    write_feats(tmp_path / "k/train", frames, kind, options)
    (tmp_path / "k/train/ctm").write_text(ctm(made))
    assert layout_title(tmp_path / "k") == "Kaldi data folders"
    expected = dict(made)
    with kaldi_native_io.SequentialFloatMatrixReader(f"scp:{tmp_path}/k/train/feats.scp") as read:
        expected = {name: (np.array(matrix), made[name][1]) for name, matrix in read}
    if kind == "Compressed":
        assert all(np.abs(expected[n][0] - f).max() < 0.2 for n, f in frames_of(made).items())
    check(packed(tmp_path / "k", tmp_path / "p"), {"train": expected}, ARPABET_SYMBOLS)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.sampled_from([-100, 0, 5, 7]), min_size=1, max_size=30), min_size=1, max_size=4))
def test_a_ctm_labels_the_frames_that_it_covers(tmp_path_factory: Any, rows: list[list[int]]) -> None:
    """Frames between phones have no label, and neither has an utterance without lines."""
    root = tmp_path_factory.mktemp("ctm")
    made = {f"u{at}": (make_features(len(row), 3, at), np.array(row)) for at, row in enumerate([[3, 3], *rows])}
    write_feats(root / "k/t", frames_of(made))
    (root / "k/t/phones.ctm").write_text(ctm(made))
    check(packed(root / "k", root / "p"), {"t": made}, ARPABET_SYMBOLS)


def test_one_folder_is_a_partition_of_its_name(tmp_path: Path) -> None:
    made = data([4, 3])
    write_feats(tmp_path / "train_clean", frames_of(made))
    text = "".join(f"{n} {' '.join(ARPABET_SYMBOLS[i] for i in row)}\n" for n, (_, row) in made.items())  # type: ignore[union-attr]
    (tmp_path / "train_clean/ali.txt").write_text(text)
    check(packed(tmp_path / "train_clean", tmp_path / "p"), {"train_clean": made}, ARPABET_SYMBOLS)


def test_numbers_are_phones_of_the_table(tmp_path: Path) -> None:
    """`<eps>` is no label; disambiguation symbols are no labels either; positions in words are dropped if need be."""
    frames = make_features(4, 3)
    (tmp_path / "k").mkdir()
    (tmp_path / "k/phones.txt").write_text("<eps> 0\nSIL 1\nAH0_B 7\nB_E 3\n#0 9\n")
    write_feats(tmp_path / "k/t", {"u": frames})
    (tmp_path / "k/t/ali.txt").write_text("u 1 7 0 3\n")
    expected = {"t": {"u": (frames, np.array([0, 2, -100, 1]))}}
    check(packed(tmp_path / "k", tmp_path / "p"), expected, ("SIL", "B_E", "AH0_B"))
    expected = {"t": {"u": (frames, np.array([0, 3, -100, 7]))}}
    check(packed(tmp_path / "k", tmp_path / "q", inventory=ARPABET, fold="arpabet"), expected, ARPABET_SYMBOLS)


def test_relative_archives_are_found_from_the_folder_upwards(tmp_path: Path) -> None:
    made = {"u": (make_features(4, 3), None)}
    write_feats(tmp_path / "egs/mfcc", frames_of(made))
    (tmp_path / "egs/data/t").mkdir(parents=True)
    scp = (tmp_path / "egs/mfcc/feats.scp").read_text().replace(f"{tmp_path}/egs/", "")
    (tmp_path / "egs/data/t/feats.scp").write_text(scp)
    check(packed(tmp_path / "egs/data", tmp_path / "p"), {"t": made}, ARPABET_SYMBOLS)


def test_features_may_end_before_the_alignment(tmp_path: Path) -> None:
    write_feats(tmp_path / "k/t", {"u": make_features(5, 3)})
    (tmp_path / "k/t/ctm").write_text("u 1 0 0.02 AA\nu 1 0.02 0.06 B 0.9\n")
    labels = packed(tmp_path / "k", tmp_path / "p", inventory=Inventory(("AA", "B"))).partition("t").labels()
    assert labels is not None
    assert labels.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("feats.scp", "u gunzip -c raw.ark.gz |\n", "without commands and ranges"),
        ("feats.scp", "u raw.ark:2[0:3]\n", "without commands and ranges"),
        ("feats.scp", "u\n", "write `NAME FILE.ark:OFFSET`"),
        ("feats.scp", "", "names no utterance"),
        ("feats.scp", "u none.ark:2\n", r"none\.ark: no such file"),
        ("feats.scp", "u raw.ark:3\n", r"feats\.scp, line 1: no matrix at byte 3"),
        ("feats.scp", "u raw.ark:2\nu raw.ark:2\n", "line 2: u is also in line 1"),
        ("feats.scp", b"\xff raw.ark:2\n", r"feats\.scp: is not UTF-8"),
        ("ctm", "u 1 0.0 0.3 AA\n", "line 1: ends at frame 30 of 5"),
        ("ctm", "u 1 0.0 0.02 AA\nu 1 0.01 0.02 B\n", "line 2: overlaps"),
        ("ctm", "u 1 0.0 AA\n", "line 1: .*write `NAME CHANNEL START DURATION PHONE`"),
        ("ctm", "u 1 0.0 nan AA\n", "line 1: .*in seconds"),
        ("ctm", "u 1 0.0 0.02 AAA\n", "unknown symbol 'AAA'"),
        ("ctm", "v 1 0.0 0.02 AA\n", "names no utterance of feats.scp"),
        ("ali.txt", "u AA B\n", "line 1: 2 phones for 5 frames"),
        ("phones.txt", "AA\n", r"phones\.txt, line 1: 'AA'; write `PHONE NUMBER`"),
    ],
)
def test_a_fault_is_one_line_and_leaves_nothing(tmp_path: Path, name: str, text: Any, message: str) -> None:
    write_feats(tmp_path / "k/t", {"u": make_features(5, 3)})
    if name == "phones.txt":
        (tmp_path / "k/t/ali.txt").write_text("u AA AA B B B\n")
    (tmp_path / "k/t" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as error:
        packed(tmp_path / "k", tmp_path / "p")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_two_alignments_are_refused(tmp_path: Path) -> None:
    write_feats(tmp_path / "k/t", {"u": make_features(5, 3)})
    for name in ("ctm", "ali.txt"):
        (tmp_path / "k/t" / name).write_text("u AA AA B B B\n")
    with pytest.raises(DataError, match=r"k/t: holds ctm and ali\.txt; leave one of them"):
        packed(tmp_path / "k", tmp_path / "p")


def test_a_missing_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_feats(tmp_path / "k/t", {"u": make_features(5, 3)})
    monkeypatch.setitem(__import__("sys").modules, "kaldi_native_io", None)
    with pytest.raises(DataError, match=r"needs kaldi_native_io: pip install 'dali-asr\[kaldi\]'"):
        packed(tmp_path / "k", tmp_path / "p")
