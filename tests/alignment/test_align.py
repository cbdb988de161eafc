"""Alignment as a whole: frames that name their phones, whose times are known."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from praatio import textgrid

from dali_asr.alignment.durations import WEIGHT, trained_durations
from dali_asr.alignment.utterance import align_utterance
from dali_asr.alignment.viterbi import NoPathError
from dali_asr.config import Config
from dali_asr.corpus import Corpus, PackedWriter
from dali_asr.corpus.segment_counts import SegmentCounts
from dali_asr.demo import DEMO_RECORDING
from dali_asr.inventory import ARPABET, Inventory
from dali_asr.segments import FrameTiming
from dali_asr.training import train

SYMBOLS = ("[SIL]", "AA", "B", "K", "S")
TIMING = FrameTiming()
WORDS: list[tuple[str, list[tuple[int, ...]]]] = [("bob", [(2, 1, 2)]), ("kaa", [(3, 1), (3, 1, 4)])]


def frames_of(labels: NDArray[Any], seed: int = 0) -> NDArray[np.float32]:
    """Return features that tell the labels."""
    noise = np.random.default_rng(seed).normal(0, 0.3, (len(labels), len(SYMBOLS)))
    features: NDArray[np.float32] = (noise + 3 * np.eye(len(SYMBOLS))[labels]).astype(np.float32)
    return features


def spans(labels: list[int], durations: list[int]) -> NDArray[np.int64]:
    return np.repeat(labels, durations)


def test_times_of_a_known_path() -> None:
    """A silence, `bob`, `kaa` as its second pronunciation without a silence before it, a silence."""
    durations = [10, 4, 7, 3, 5, 9, 6, 20]
    truth = spans([0, 2, 1, 2, 3, 1, 4, 0], durations)
    scores = np.log(np.full((len(truth), 5), 0.05) + 0.75 * np.eye(5)[truth])
    found = align_utterance(scores, WORDS, Inventory(SYMBOLS), TIMING, duration=0.66)
    edges = TIMING.edges(len(truth))[np.cumsum([0, *durations])]
    edges[0], edges[-1] = 0, 0.66
    assert [s.label for s in found.phones] == ["[SIL]", "B", "AA", "B", "K", "AA", "S", "[SIL]"]
    assert np.allclose([s.start for s in found.phones], edges[:-1])
    assert np.allclose([s.end for s in found.phones], edges[1:])
    assert np.allclose([s.confidence for s in found.phones if s.confidence], 0.8)
    assert [(s.label, s.start, s.end) for s in found.words] == [
        ("", 0.0, pytest.approx(edges[1])),
        ("bob", pytest.approx(edges[1]), pytest.approx(edges[4])),
        ("kaa", pytest.approx(edges[4]), pytest.approx(edges[7])),
        ("", pytest.approx(edges[7]), 0.66),
    ]
    assert (found.labels == truth).all()


def test_boundaries_lie_where_log_posteriors_cross() -> None:
    """The second phone trails by 3 nats in the frame before the boundary and leads by 1 in the frame after it."""
    scores = np.full((10, 5), -9.0)
    scores[:5, 2], scores[5:, 1] = -1.0, -1.0
    scores[4, 1], scores[5, 2] = -4.0, -2.0
    words: list[tuple[str, list[tuple[int, ...]]]] = [("ba", [(2, 1)])]
    found = align_utterance(scores, words, Inventory(SYMBOLS), TIMING)
    centers = TIMING.centers(10)
    assert found.phones[0].end == pytest.approx(centers[4] + 0.75 * (centers[5] - centers[4]))
    plain = align_utterance(scores, words, Inventory(SYMBOLS), TIMING, refine=False)
    assert plain.phones[0].end == pytest.approx(TIMING.edges(10)[5])


def test_states_tell_where_phones_of_one_label_meet() -> None:
    """`b b`: the posteriors of the label are the same throughout, those of its three states are not."""
    parts = spans([3, 4, 5, 3, 4, 5], [2, 3, 2, 4, 2, 5])  # of B, whose label is 1
    scores = np.log(np.full((len(parts), 9), 0.02) + 0.82 * np.eye(9)[parts])
    words: list[tuple[str, list[tuple[int, ...]]]] = [("b", [(1,)]), ("b", [(1,)])]
    found = align_utterance(scores, words, Inventory(("AA", "B", "K")), TIMING, states=3, shift=0.002, refine=False)
    assert [s.end for s in found.phones] == pytest.approx([TIMING.edges(7)[7] + 0.002, TIMING.edges(18)[18]])
    assert [s.confidence for s in found.phones] == pytest.approx([0.88, 0.88])  # of all states of the label


def test_short_recordings_have_phones_of_any_duration() -> None:
    with pytest.raises(NoPathError, match="at least 5 phones, the recording 4 frames"):
        align_utterance(np.zeros((4, 5)), WORDS, Inventory(SYMBOLS), TIMING)
    found = align_utterance(np.zeros((5, 15)), WORDS, Inventory(SYMBOLS), TIMING, states=3)
    assert found.labels.tolist() == [2, 1, 2, 3, 1]


def test_states_last_as_the_phones_of_training() -> None:
    """The mean and the variance of the durations of phones, divided among the states; silence may last any time."""
    counts = SegmentCounts.empty(3)
    durations = np.random.default_rng(0).gamma(6, 3, 1000).round().astype(int)
    counts.durations[1] += np.bincount(durations - 1, minlength=1000)
    counts.durations[2, 40] = 5  # too few; silence has none
    found = trained_durations(counts, 3, silence=0)
    chances = np.exp(found.within / WEIGHT)[3:]
    assert chances.sum(axis=1) == pytest.approx(1, abs=0.01)
    assert chances @ np.arange(1, 25) == pytest.approx(durations.mean() / 3, rel=0.03)
    assert np.allclose(chances[:3], chances[3:], atol=0.01), "the durations of all phones stand for those of a rare one"
    assert (found.within[0, 2:] == 0).all()
    assert found.min_frames.tolist() == [3, *[1] * 8]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that has learned the symbols of frames."""
    root = tmp_path_factory.mktemp("align")
    rng = np.random.default_rng(0)
    for folder in ("mfcc", "transcript"):
        (root / "course" / "train" / folder).mkdir(parents=True)
    for number in range(3):
        labels = spans(rng.integers(0, 5, 40).tolist(), rng.integers(3, 12, 40).tolist())
        np.save(root / "course/train/mfcc" / f"{number}.npy", frames_of(labels, number))
        symbols = np.array(["[SOS]", *np.array(SYMBOLS)[labels], "[EOS]"])
        np.save(root / "course/train/transcript" / f"{number}.npy", symbols)
    config = {
        "data": {
            "root": str(root / "course"),
            "dev": None,
            "test": None,
            "inventory": [*SYMBOLS, "[SOS]", "[EOS]"],
            "normalization": "none",
        },
        "loader": {"context": 1, "batch_size": 16, "device": "cpu"},
        "model": {"hidden": [16]},
        "training": {"epochs": 3, "optimizer": {"learning_rate": 0.01}},
    }
    return train(Config.check(config), run=root / "run").run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_wrong_transcript_is_doubted_and_surplus_ones_are_counted(
    run: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    folder, out = tmp_path / "features", tmp_path / "out"
    folder.mkdir()
    np.save(folder / "a.npy", frames_of(spans([0, 2, 1, 2, 0, 3, 1, 0], [10, 4, 7, 4, 12, 5, 9, 20]), 0))
    (tmp_path / "own.dict").write_text("bob B AA B\nkaa K AA\n")
    for words, doubted in {"bob kaa": False, "kaa kaa kaa bob kaa kaa": True}.items():
        (tmp_path / "words.tsv").write_text(f"name\ttext\na\t{words}\nb\tbob\nc\tbob\n")
        result = run_cli(
            "align", run, folder, tmp_path / "words.tsv", "-o", out, "--dictionary", tmp_path / "own.dict", "--force"
        )
        assert f"error: 2 transcripts have no recording; they are listed in {out / 'failed.csv'}" in result.output
        doubt = "the recording matches its transcript poorly (mean log posterior below -1.5): a; listen: "
        assert (doubt in result.output) is doubted, result.output


def test_what_can_be_aligned_is_and_the_rest_is_listed(run: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    truth = spans([0, 2, 1, 2, 0, 3, 1, 0], [10, 4, 7, 4, 12, 5, 9, 20])
    folder, out = tmp_path / "features", tmp_path / "out"
    folder.mkdir()
    names = ("a b", "и\u0306мя", "short", "numbers", "silent", "no transcript", "foreign", "unknown", "wrong")
    for number, name in enumerate(names):
        np.save(folder / f"{name}.npy", frames_of(truth[: 3 if name == "short" else None], number))
    np.save(folder / "wrong.npy", np.zeros(3))
    lines = ["a b\tBob, kaa!", "ймя\tBOB kosob", "short\tbob kaa", "numbers\tbob 5", "silent\t...", "foreign\tbob кот"]
    lines += ["unknown\tsobok", "wrong\tbob", "no recording\tbob"]
    (tmp_path / "words.tsv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "own.dict").write_text("bob B AA B\nkaa K AA\n")
    arguments = ("align", run, folder, tmp_path / "words.tsv", "-o", out, "--dictionary", tmp_path / "own.dict")
    result = run_cli(*arguments)
    assert result.exit_code == 1, result.output
    assert "Aligned 2 recordings of " in result.output
    assert "8 failed" in result.output
    alone = run_cli(*arguments[:2], folder / "a b.npy", *arguments[3:5], tmp_path / "alone", *arguments[6:])
    assert alone.exit_code == 0, "the other transcripts are not asked for"
    alone = run_cli(*arguments[:2], folder / "short.npy", *arguments[3:5], tmp_path / "none", *arguments[6:])
    assert (alone.exit_code, alone.stdout) == (1, f"1 failed: {tmp_path / 'none' / 'failed.csv'}\n")
    grid = textgrid.openTextgrid(str(out / "a b.TextGrid"), includeEmptyIntervals=True)
    assert grid.tierNames == ("words", "phones", "confidence")
    assert [entry.label for entry in grid.getTier("words").entries] == ["", "bob", "", "kaa", ""]
    starts = [entry.start for entry in grid.getTier("phones").entries]
    expected = TIMING.edges(len(truth))[np.flatnonzero(np.diff(truth, prepend=-1))]
    assert np.abs(np.array(starts) - [0, *expected[1:]]).max() <= 0.0051  # refined within the frames at a boundary
    failed = {row["recording"]: row["reason"] for row in rows(out / "failed.csv")}
    remedies = {
        "short": r"at least 5 phones, the recording 3 frames; check that the transcript belongs to the recording",
        "numbers": "words.tsv, line 4: 5: not in the dictionary",
        "silent": "words.tsv, line 5: the transcript has no words; write what was said",
        "no transcript": "has no transcript; add one of the name 'no transcript'",
        "foreign": "and no pronunciation can be guessed; write it as it is said, or add one (--dictionary FILE)",
        "unknown": "line 7: no word is in the dictionary (sobok); is it English? Add",
        "wrong": "wrong.npy: ",
        "no recording": "line 9: no recording has the name 'no recording'; add it, or remove the transcript",
    }
    assert set(failed) == set(remedies)
    for name, remedy in remedies.items():
        assert remedy in failed[name], name
    assert [row["recording"] for row in rows(out / "aligned.csv")] == ["a b", "и\u0306мя"]
    guess = {"word": "kosob", "count": "1", "origin": "letters", "pronunciation": "K AA S AA B"}
    assert rows(out / "guesses.csv") == [guess]
    assert "exists; choose another folder, or overwrite it (--force)" in run_cli(*arguments).output
    (tmp_path / "words.tsv").write_text("id\ttext\nnobody\tbob\n")
    (mine := tmp_path / "out" / "mine.TextGrid").write_text("corrected")
    assert "holds what is not of the alignment, such as mine.TextGrid, which" in run_cli(*arguments, "--force").output
    mine.unlink()
    result = run_cli(*arguments, "--force")
    assert "none of its 1 transcripts is of a recording in" in result.output
    assert "their names are such as 'nobody', those" in result.output
    (folder / "no transcript.TextGrid").touch()
    (tmp_path / "words.tsv").write_text("id\ttext\na b\tbob kaa\n")
    assert (
        "no transcript.npy: has no transcript; add one of the name 'no transcript' (no transcript.TextGrid is none: "
        "TextGrids are not read as transcripts, but transcripts.tsv, "
    ) in run_cli(*arguments, "--force").output
    np.save(folder / "id.npy", frames_of(truth))
    (tmp_path / "words.tsv").write_text("id\tbob kaa bob\n")
    assert "Aligned 1 recording of " in run_cli(*arguments, "--force").output, "a recording of the name of a header"


def test_a_recording_and_corpora_of_its_features_have_the_same_boundaries(
    tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording in the package, a packed corpus, and a course folder, whose arrays are not normalized."""
    monkeypatch.chdir(tmp_path)
    Path("words.tsv").write_text("demo\tbob kaa bob\n")
    Path("own.dict").write_text("bob B AA B\nkaa K AA\n")
    for command in (
        "features demo.wav packed",
        "features demo.wav raw --normalization none",
        "data export course raw course",
    ):
        done = run_cli(*command.split())
        assert done.exit_code == 0, command
    assert "Exported 350 frames of 1 partition to course" in done.stdout
    (frames,) = Corpus.open("packed").partition("all").frames()
    with PackedWriter(
        "prepared", inventory=ARPABET, normalization="utterance", recordings_folder=DEMO_RECORDING.parent
    ) as writer:
        writer.add("all", "demo", frames, recording=DEMO_RECORDING.name)
    found, ends = {}, {}
    for source in ("demo.wav", "packed", "prepared", "packed --partition all", "course"):
        given = f"align english-small {source} words.tsv -o out --dictionary own.dict --device cpu --force"
        done = run_cli(*given.split())
        assert done.exit_code == 0, done.output
        grid = textgrid.openTextgrid("out/demo.TextGrid", includeEmptyIntervals=True)
        found[source] = [(one.start, one.label) for one in grid.getTier("phones").entries]
        ends[source] = grid.maxTimestamp
    assert ends["prepared"] == ends["demo.wav"] > ends["packed"], "the recording is found"
    expected = found.pop("demo.wav")
    assert len(expected) >= 8
    for source, phones in found.items():
        assert [label for _, label in phones] == [label for _, label in expected], source
        assert [start for start, _ in phones] == pytest.approx([start for start, _ in expected], abs=1e-3), source
    Path("sounds/dev").mkdir(parents=True)
    Path("sounds/train").mkdir()
    for path in ("sounds/dev/demo.wav", "sounds/train/other.wav"):
        shutil.copy(DEMO_RECORDING, path)
    Path("words.tsv").write_text("demo\tbob kaa bob\nother\tbob\n")
    done = run_cli(*given.replace("course", "sounds --partition dev").split())
    assert (done.exit_code, "Aligned 1 recording" in done.stdout) == (0, True), "other transcripts are not asked for"
    assert run_cli("features", "sounds", "two").exit_code == 0
    starts = {}
    for source in ("sounds", "two"):
        done = run_cli(*given.replace("course", source).split())
        assert (done.exit_code, "Aligned 2 recordings" in done.stdout) == (0, True), done.output
        assert {path.name for path in Path("out").iterdir() if path.is_dir()} == {"dev", "train"}
        grid = textgrid.openTextgrid("out/train/other.TextGrid", includeEmptyIntervals=True)
        starts[source] = [one.start for one in grid.getTier("phones").entries]
    assert starts["two"] == pytest.approx(starts["sounds"], abs=1e-3)
    Path("words.tsv").write_text("demo\tbob kaa bob\nother\tbob\nthird\tbob\n")
    done = run_cli(*given.replace("course", "two").split())
    assert (done.exit_code, "no recording has the name 'third'" in done.stderr) == (1, True), done.output
    for source, message in {
        "sounds --partition test": "sounds: no partition 'test'; it has 'dev', 'train'",
        "course --partition test": "test",
        "demo.wav --partition test": "partition test: single files have no partitions; leave it out",
    }.items():
        done = run_cli(*given.replace("course", source).split())
        assert (done.exit_code, message in done.stderr) == (2, True), done.stderr
