"""The audit finds what was planted in a corpus whose labels are otherwise certain."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from praatio import textgrid

from dali_asr import Corpus, PackedWriter
from dali_asr.corpus.origins import Origins
from dali_asr.errors import DataError, UsageError
from dali_asr.reports.audit import Audit, audit, auditing
from dali_asr.reports.audit.boundaries import MAX_SHIFT, MIN_SHIFT, boundary_shifts
from dali_asr.reports.audit.features import clipped_features, constant_runs
from dali_asr.reports.audit.folds import assign_folds, speakers
from dali_asr.reports.audit.segments import Segments
from dali_asr.reports.audit.spans import smoothed_labels
from dali_asr.reports.audit.writing import write_audit
from tests.reports.browser import dump

SYMBOLS = ("SIL", "A", "B", "C", "D", "E")
SEGMENT = 10  # frames
UTTERANCES = 40


def spoken(number: int) -> tuple[Any, Any]:
    """Return frames `[T, 8]` and their right labels; every label has a mean of its own."""
    rng = np.random.default_rng(number)
    order = [0]
    while len(order) < 10:
        order += [int(x) for x in rng.integers(1, 6, 1) if x != order[-1]]
    labels = np.repeat([*order, 0], SEGMENT)
    means = np.random.default_rng(99).normal(0, 2, (6, 8))
    return means[labels] + rng.normal(0, 0.5, (len(labels), 8)), labels


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Return a corpus with one error of each kind, in the utterances that the tests name."""
    frames, labels = (list(values) for values in zip(*map(spoken, range(UTTERANCES)), strict=True))
    wrong = next(label for label in range(1, 6) if label not in labels[3][30:60])
    labels[3][40:50] = wrong  # a label of another segment
    labels[5][50:56] = labels[5][49]  # a boundary moved by 60 ms
    labels[7], labels[8] = labels[8].copy(), labels[7].copy()
    frames[11], labels[11] = frames[10].copy(), labels[10].copy()
    labels[13][:] = 0
    frames[15][20:60], labels[15][20:60] = frames[15][20], labels[15][20]
    frames[17][:, 2] = np.minimum(frames[17][:, 2], np.quantile(frames[17][:, 2], 0.7))
    names = [f"s{number % 4}-{number:02d}" for number in range(UTTERANCES)]
    made = Corpus.from_arrays({"x": frames}, {"x": labels}, SYMBOLS, names={"x": names})
    origins = Origins(speakers=tuple(name[:2] for name in names))
    return replace(made, partitions={"x": replace(made.partition("x"), origins=origins)})


@pytest.fixture(scope="module")
def found(corpus: Corpus) -> Audit:
    return audit(corpus, folds=2)


def test_every_planted_error_leads_its_kind(found: Audit) -> None:
    first = {kind: findings[0] for kind, findings in found.findings.items() if findings}
    (segment,) = [f for f in found.findings["segment"][:5] if f.utterance == "s3-03"]
    assert (segment.start, segment.end) == (40, 50)
    assert segment.label == SYMBOLS[found.labels[segment.position * 110 + 40]]
    assert segment.folds == SYMBOLS[spoken(3)[1][40]]
    boundaries = [f for f in found.findings["boundary"] if f.utterance == "s1-05"]
    assert (boundaries[0].rank, boundaries[0].end) == (1, 56)
    assert boundaries[0].start in (49, 50, 51)
    assert re.search("[567]0 ms earlier", boundaries[0].note)
    assert {"s3-07", "s0-08"} <= {f.utterance for f in found.findings["transcript"]}
    assert [f.utterance for f in found.findings["duplicate"]] == ["s3-11"]
    assert re.search("frames equal to those of x/s2-10; the labels are equal", first["duplicate"].note)
    assert [f.utterance for f in found.findings["silent"]] == ["s1-13"]
    assert [(f.utterance, f.start, f.end) for f in found.findings["constant"]] == [("s3-15", 20, 60)]
    assert [f.utterance for f in found.findings["clipped"]] == ["s1-17"]
    assert [f.rank for f in found.findings["boundary"]] == list(range(1, len(found.findings["boundary"]) + 1))


def test_the_folder_holds_csv_textgrids_and_a_page(found: Audit, tmp_path: Path) -> None:
    write_audit(found, tmp_path / "a", "test")
    with (tmp_path / "a/findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["utterance"] for row in rows] == [finding.utterance for finding in found.ordered()]
    grids = sorted(path.stem for path in (tmp_path / "a/textgrids/x").iterdir())
    assert grids == sorted({row["utterance"] for row in rows})
    grid = textgrid.openTextgrid(str(tmp_path / "a/textgrids/x/s3-03.TextGrid"), includeEmptyIntervals=True)
    assert grid.tierNames == ("labels", "folds", "doubt")
    assert grid.maxTimestamp == pytest.approx(1.1075)
    given_labels = [(e.start, e.end, e.label) for e in grid.getTier("labels").entries]
    first = next(row for row in rows if row["kind"] == "segment" and row["utterance"] == "s3-03")
    assert (float(first["start_seconds"]), float(first["end_seconds"]), first["label"]) in given_labels
    assert any(f"segment {first['rank']}: " in e.label for e in grid.getTier("doubt").entries)
    page = (tmp_path / "a/index.html").read_text()
    assert len(page) < 5e6
    assert not re.search(r"(src|href)=\"(https?:)?//|<script|@import|url\(", page)
    HTMLParser().feed(page)
    assert page.count("<article") == len(rows)


def test_pictures_are_whole_on_a_narrow_screen(found: Audit, tmp_path: Path) -> None:
    """They scroll in their own frames, and are neither squeezed nor cut off."""
    write_audit(found, tmp_path / "a", "test")
    script = """
      const inside = (text) => {
        const [inner, outer] = [text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect()];
        return inner.right <= outer.right + 1 && inner.bottom <= outer.bottom + 1;
      };
      const page = document.documentElement;
      return [[...document.querySelectorAll("svg text")].filter((text) => !inside(text)).length,
        page.scrollWidth <= page.clientWidth].join(" ");
    """
    assert dump(tmp_path / "a/index.html", script, tmp_path, "--window-size=390,800") == "0 true"


def test_what_exists_stays(found: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="exists and is not an audit"):
        write_audit(found, tmp_path / "mine", "test", overwrite=True)
    write_audit(found, tmp_path / "a", "test")
    with pytest.raises(UsageError, match="exists; choose another folder"):
        write_audit(found, tmp_path / "a", "test")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = (tmp_path / "a/findings.csv").read_bytes()
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DataError, match="No space left on device while writing; free some space"):
        write_audit(found, tmp_path / "a", "test", overwrite=True)
    assert (tmp_path / "a/findings.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "mine"]


@pytest.fixture
def quick_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the models of folds for one epoch, where a test is not about what they find."""
    for name in ("OF_FRAMES", "OF_SEGMENTS"):
        monkeypatch.setattr(auditing, name, replace(getattr(auditing, name), epochs=1))


@pytest.mark.usefixtures("quick_folds")
def test_names_cannot_leave_the_page_or_the_folder(tmp_path: Path) -> None:
    pairs = [spoken(n) for n in range(4)]
    silent = [np.zeros_like(labels) for _, labels in pairs]
    names = ["../../up", '<b>"x"</b>', "ü", "d"]
    made = Corpus.from_arrays([frames for frames, _ in pairs], silent, SYMBOLS, names=names)
    write_audit(audit(made, folds=2, budget=1), tmp_path / "deep/er/a", "<i>")
    assert (tmp_path / "deep/er/a/textgrids/all/..%2F..%2Fup.TextGrid").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    page = (tmp_path / "deep/er/a/index.html").read_text()
    assert "<b>" not in page
    assert "<i>" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 1}, "folds 1; expected 2 or more"),
        ({"budget": 0}, "budget 0; expected a fraction"),
        ({"speaker_pattern": "("}, "give a regular expression with one group"),
        ({"speaker_pattern": "s."}, "has 0 groups; give one"),
        ({"speaker_pattern": "(s)"}, "finds one speaker, 's', in all utterances; folds need two"),
        ({"speaker_pattern": "(s0)"}, "finds no speaker in 's1-01'"),
        ({"partitions": ["y"]}, "no partition 'y'"),
        ({"folds": 21}, "40 labelled utterances are too few for 21 folds of at least 2; audit more partitions"),
    ],
)
def test_what_cannot_be_audited_is_said_in_one_line(corpus: Corpus, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((UsageError, DataError), match=re.escape(message)) as raised:
        audit(corpus, **arguments)
    assert "\n" not in str(raised.value)


def test_a_corpus_without_labels_is_refused() -> None:
    with pytest.raises(DataError, match="no partition is labelled; an audit judges labels"):
        audit(Corpus.from_arrays([spoken(n)[0] for n in range(9)]))


@pytest.mark.usefixtures("quick_folds")
def test_the_command_writes_a_folder(
    run_cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PackedWriter(tmp_path / "small", inventory=SYMBOLS) as writer:
        for number in range(5):
            writer.add("x", f"u{number}", *spoken(number))
    monkeypatch.chdir(tmp_path)
    few = run_cli("audit", "small")
    assert (few.exit_code, "5 labelled utterances are too few" in few.stderr) == (1, True)
    assert "use fewer folds (--folds)" in few.stderr
    done = run_cli("audit", "small", "--folds", 2)
    assert done.exit_code == 0, done.output
    assert "Page: audit-small/index.html" in done.stdout
    again = run_cli("audit", "small", "--folds", 2)
    assert (again.exit_code, "overwrite it (--force)" in again.stderr) == (2, True)


def test_speakers_are_never_in_two_folds_and_folds_are_of_one_size() -> None:
    names = [f"{number % 7}-1-{number}" for number in range(70)]
    groups = speakers(names).groups
    folds = assign_folds(groups, np.full(70, 100), 3)
    assert all(len({f for f, g in zip(folds, groups, strict=True) if g == s}) == 1 for s in set(groups))
    assert sorted(np.bincount(folds)) == [20, 20, 30]


@pytest.mark.parametrize(
    ("names", "pattern", "known", "groups", "said"),
    [
        ("1-1-1 1-1-2 2-1-1", None, "", "1 1 2", "speaker (2; as in LibriSpeech's names)"),
        ("1-1-1 1-1-2 2-1-1", None, "a b b", "a b b", "speaker (2; the corpus names them)"),
        ("1-1-1 1-1-2 2-1-1", r"-(\d)$", "a b b", "1 2 1", r"speaker (2; by the pattern -(\d)$)"),
        ("1-1-1 1-1-2 2-1-1", None, "a a a", "0 1 2", "utterance"),
        ("1-1-1 1-1-2", None, "", "0 1", "utterance"),
        ("u u", None, "", "0 1", "utterance"),
    ],
)
def test_speakers_are_told_by_pattern_corpus_and_names(
    names: str, pattern: str | None, known: str, groups: str, said: str
) -> None:
    found = speakers(names.split(), pattern, known.split())
    assert (" ".join(found.groups), str(found)) == (groups, said)


def test_the_page_plays_the_stretch_of_each_finding(found: Audit, tmp_path: Path) -> None:
    """A finding is heard with half a second on either side; a sample of the recordings tells its own time."""
    assert str(found.grouped_by) == "speaker (4; the corpus names them)"
    names = found.partition.utterances
    soundfile.write(tmp_path / "r.wav", np.arange(8_800) / 8_800, 8_000, subtype="PCM_16")
    recordings = tuple("gone.wav" if name == "s3-03" else "r.wav" for name in names)
    partition = replace(found.partition, origins=Origins((), recordings, tmp_path))
    remark = write_audit(replace(found, partition=partition), tmp_path / "a", "test")
    assert re.match(rf"{tmp_path}/gone.wav: no such file; the page lacks the sound of it: say", remark)
    page = (tmp_path / "a/index.html").read_text()
    assert "speaker (4; the corpus names them)" in page
    findings = [f for f in found.ordered() if page.count(f"{f.rank}. {f.partition}/{f.utterance}, ")]
    missing = [f for f in findings if f.utterance == "s3-03"]
    assert page.count("No sound: its recording is missing or cannot be read.") == len(missing) > 0
    heard = [f for f in findings if f.utterance != "s3-03"]
    sounds = re.findall(r'aria-label="Sound of finding (\d+), (\w+)" src="data:audio/flac;base64,([^"]*)"', page)
    assert [(int(rank), kind) for rank, kind, _ in sounds] == [(f.rank, f.kind) for f in heard]
    for finding, (*_, content) in zip(heard, sounds, strict=True):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
        start = 0.0075 + 0.01 * finding.start - 0.5 if finding.start else 0.0
        end = min(0.0075 + 0.01 * finding.end + 0.5, 1.1)
        assert len(samples) / rate == pytest.approx(end - max(start, 0), abs=3e-4)
        assert samples[0] * 1.1 == pytest.approx(max(start, 0), abs=3e-4)


@given(arrays(np.float32, (24, 3), elements=st.floats(-9, 0, width=16)), st.integers(1, 23))
def test_shifts_are_those_of_a_search(log_posteriors: Any, boundary: int) -> None:
    labels = np.where(np.arange(24) < boundary, 1, 2)
    left, shift, gain = boundary_shifts(Segments.of(labels, np.array([0, 24])), log_posteriors)
    gains = {0: 0.0}
    for move in range(-MAX_SHIFT, MAX_SHIFT + 1):
        if move and 1 <= boundary + move <= 23:
            other = np.where(np.arange(24) < boundary + move, 1, 2)
            rows = np.arange(24)
            difference = log_posteriors[rows, other].astype(float) - log_posteriors[rows, labels]
            gains[move] = difference.sum() / abs(move) ** 0.5
    best = max(gains.values())
    assert left.tolist() == [0]
    if abs(shift[0]) >= MIN_SHIFT:
        assert gain[0] == pytest.approx(best)
        assert gains[int(shift[0])] == pytest.approx(best)
    else:
        assert gain[0] == 0
        assert max((g for m, g in gains.items() if abs(m) < MIN_SHIFT), default=0) == pytest.approx(best)


@given(arrays(np.float32, (5, 3), elements=st.floats(-9, 0, width=16)))
def test_smoothed_labels_are_the_best_path(log_posteriors: Any) -> None:
    def score(path: Any) -> float:
        changes = sum(a != b for a, b in pairwise(path))
        total = sum(float(log_posteriors[t, c]) for t, c in enumerate(path))
        return total - 4.0 * int(changes)

    best = max(score(path) for path in product(range(3), repeat=5))
    assert score(smoothed_labels(log_posteriors).tolist()) == pytest.approx(best, abs=1e-4)


def test_constant_and_clipped_features_are_counted() -> None:
    frames = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    assert constant_runs(frames) == []
    assert clipped_features(frames) == []
    frames[:20], frames[80:] = frames[0], frames[80]
    frames[30:49] = frames[30]
    assert constant_runs(frames) == [(0, 20), (80, 100)]
    frames[40:52, 1] = 9
    assert clipped_features(frames) == [(1, 12)]
