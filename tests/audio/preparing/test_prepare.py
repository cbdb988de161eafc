"""Recordings and alignments to corpora: what is written, and what is said of files that cannot be used.

Recordings are noise: what counts is which label a frame gets, and which file is complained about.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from praatio import textgrid as praat
from praatio.utilities.constants import Interval

from dali_asr import Corpus
from dali_asr.audio.extract import Extracted, extract
from dali_asr.audio.preparing.prepare import Prepared, prepare
from dali_asr.audio.preparing.settings import PrepareSettings
from dali_asr.audio.settings import FeatureSettings
from dali_asr.corpus.normalize import Normalization
from dali_asr.corpus.packed import Manifest
from dali_asr.errors import DataError, UsageError
from dali_asr.inventory import ARPABET

RATE = 16_000
REAL = Path(__file__).parents[4] / "shared" / "data"
PHONES = [(0.0, 0.1, "sil"), (0.1, 0.25, "AH0"), (0.3, 0.45, "T")]  # a gap, and silence at the end


def record(path: Path, seconds: float = 0.5, rate: int = RATE) -> Path:
    """Write a recording of noise, which depends on its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(path.stem.encode())).normal(0, 0.1, round(seconds * rate))
    soundfile.write(path, noise.astype(np.float32), rate, format="FLAC" if path.suffix == ".flac" else "WAV")
    return path


def align(path: Path, rate: int = RATE, phones: list[tuple[float, float, str]] = PHONES) -> None:
    """Write an alignment in the form that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".TextGrid":
        grid = praat.Textgrid()
        grid.addTier(praat.IntervalTier("phones", [Interval(*phone) for phone in phones], 0, phones[-1][1]))
        grid.save(str(path), "short_textgrid", includeBlankSpaces=True)
        return
    unit = {".phn": rate, ".PHN": rate, ".lab": 10_000_000}[path.suffix]
    path.write_text("".join(f"{round(a * unit)} {round(b * unit)} {phone}\n" for a, b, phone in phones))


def make(root: Path, *names: str, suffix: str = ".phn", rate: int = RATE) -> Path:
    for name in names:
        record(root / f"{name}.wav", rate=rate)
        align(root / f"{name}{suffix}", rate)
    return root


def run(source: Path, dest: Path, **settings: Any) -> tuple[Prepared, list[str]]:
    lines: list[str] = []
    given = PrepareSettings(FeatureSettings(), **settings)
    return prepare(source, dest, given, complain=lambda line: lines.append(line.replace(f"{source}/", ""))), lines


def labels_of(corpus: Corpus, partition: str) -> list[str]:
    labels = corpus.partition(partition).labels()
    assert labels is not None
    return [ARPABET.symbols[label] for label in labels]


@pytest.mark.parametrize(("suffix", "rate"), [(".phn", RATE), (".phn", 8_000), (".TextGrid", RATE), (".lab", 44_100)])
def test_frames_and_labels(tmp_path: Path, suffix: str, rate: int) -> None:
    """Labels are those at the centers, 12.5 ms + 10 ms · t, whatever the rate of the recording is."""
    source = make(tmp_path / "in", "ann_1", "bob_1", "cid_1", "cid_ü 2", suffix=suffix, rate=rate)
    prepared, lines = run(source, tmp_path / "out", split=(0.5, 0.25, 0.25))
    corpus = Corpus.open(tmp_path / "out")
    assert not lines
    assert not prepared.left_out
    assert {name: set(p.utterances) for name, p in corpus.partitions.items()}.keys() == {"train", "dev", "test"}
    settings = FeatureSettings()
    for name, partition in corpus.partitions.items():
        expected = []
        for utterance, frames in zip(partition.utterances, partition.frames(), strict=True):
            (found,) = extract([source / f"{utterance}.wav"], settings)
            assert isinstance(found, Extracted)
            np.testing.assert_allclose(frames.astype(float), Normalization("utterance").apply(found.frames), atol=1e-6)
            for center in (0.0125 + 0.01 * t for t in range(len(frames))):
                expected.append("AH" if 0.1 <= center < 0.25 else "T" if 0.3 <= center < 0.45 else "[SIL]")
        assert labels_of(corpus, name) == expected
    speakers = {speaker for p in Manifest.read(tmp_path / "out").partitions for speaker in p.speakers}
    assert speakers == {"ann", "bob", "cid"}
    assert "by the prefix of the file name" in prepared.facts[1]


def test_timit_as_it_is_published(tmp_path: Path) -> None:
    """In SPHERE, with 61 phones, in the folders TRAIN and TEST; speakers for dev are taken out of TRAIN."""
    for part, speakers in (("TRAIN", ["FAAA0", "FBBB0", "MCCC0"]), ("TEST", ["MDDD0"])):
        for speaker in speakers:
            path = tmp_path / "timit" / part / "DR1" / speaker / "SA1.WAV"
            recorded = record(path)
            samples, _ = soundfile.read(recorded, dtype="int16")
            header = f"NIST_1A\n   1024\nchannel_count -i 1\nsample_count -i {len(samples)}\nsample_rate -i 16000\n"
            header += "sample_n_bytes -i 2\nsample_byte_format -s2 01\nsample_sig_bits -i 16\nend_head\n"
            path.write_bytes(header.encode().ljust(1024) + samples.astype("<i2").tobytes())
            align(path.with_suffix(".PHN"), phones=[(0, 0.1, "h#"), (0.1, 0.2, "tcl"), (0.2, 0.5, "ix")])
    prepared, _ = run(tmp_path / "timit", tmp_path / "out")
    corpus = Corpus.open(tmp_path / "out")
    assert [(p.name, p.utterances, p.speakers) for p in prepared.partitions] == [
        ("train", 2, 2),
        ("dev", 1, 1),
        ("test", 1, 1),
    ]
    assert corpus.partition("test").utterances == ("MDDD0_SA1",)
    assert set(labels_of(corpus, "train")) == {"[SIL]", "IH"}
    assert prepared.facts[0] == "layout: TIMIT, .phn files of TIMIT's form (4)"
    assert prepared.facts[3] == "labels: 42 symbols, folded by timit61"
    recordings = {r for p in Manifest.read(tmp_path / "out").partitions for r in p.recordings}
    assert "TRAIN/DR1/FAAA0/SA1.WAV" in recordings


def no_audio(recording: Path) -> None:
    """Replace a recording by text, which has no alignment."""
    recording.write_text("words" * 50)
    recording.with_suffix(".phn").unlink()


FAULTS: dict[str, Callable[[Path], object]] = {
    "x.wav: has no alignment": lambda root: (root / "x.phn").unlink(),
    "x.phn: has no recording": lambda root: (root / "x.wav").unlink(),
    "x.flac and x.wav: two recordings of one name": lambda root: record(root / "x.flac"),
    "x.wav: lasts 20 ms, less than a window of 25 ms": lambda root: record(root / "x.wav", seconds=0.02),
    "x.wav: is empty": lambda root: (root / "x.wav").write_bytes(b""),
    "x.wav: is not audio that can be decoded": lambda root: (root / "x.wav").write_bytes(b"words" * 50),
    r"x.wav: is not audio that can be decoded \(.*\); convert it": lambda root: no_audio(root / "x.wav"),
    "x.phn: unknown symbol 'QQ' at 0.300 s": lambda root: align(root / "x.phn", phones=[(0.3, 0.45, "QQ")]),
    "x.phn: ends at 0.800 s, its recording at 0.500 s": lambda root: align(root / "x.phn", phones=[(0, 0.8, "T")]),
    "x.phn: ends at 312.500 s, .* looks like units of 100": lambda root: (root / "x.phn").write_text("0 5000000 T\n"),
    "x.phn: 'T' at 0.200 s overlaps 'AH'": lambda root: align(root / "x.phn", phones=[(0, 0.3, "AH"), (0.2, 0.4, "T")]),
    "x.phn, line 1: '0.1 0.2 T'; write `START_SAMPLE": lambda root: (root / "x.phn").write_text("0.1 0.2 T\n"),
    "x.TextGrid: no tier of phones; its tiers are 'w'": lambda root: (root / "x.TextGrid").write_text(
        '"ooTextFile" "TextGrid" 0 1 <exists> 1 "IntervalTier" "w" 0 1 1 0 1 "hi"'
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", FAULTS)
def test_one_bad_file(tmp_path: Path, message: str) -> None:
    """Named in one line; nothing is written, or everything else with `keep_going`."""
    source = make(tmp_path / "in", "x", "a", "b", "c")
    FAULTS[message](source)
    with pytest.raises(DataError, match=r"in: 1 fault, nothing is written; .* leave these out \(keep_going=True\)"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    prepared, lines = run(source, tmp_path / "out", keep_going=True)
    assert len(lines) == prepared.left_out == 1
    assert re.match(message, lines[0])
    corpus = Corpus.open(tmp_path / "out")
    assert {u for p in corpus.partitions.values() for u in p.utterances} == {"a", "b", "c"}


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "x", "y", "z")
    (source / "x.wav").unlink()
    (source / "y.phn").write_text("")
    lines: list[str] = []
    with pytest.raises(DataError, match="in: 2 faults"):
        prepare(source, tmp_path / "out", PrepareSettings(FeatureSettings()), complain=lines.append)
    assert sorted(line.rpartition("/")[2].partition(":")[0] for line in lines) == ["x.phn", "y.phn"]


def test_damage_that_only_decoding_finds(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "a", "b", "c", "x")
    record(source / "x.flac")
    (source / "x.wav").unlink()
    content = bytearray((source / "x.flac").read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (source / "x.flac").write_bytes(content)
    with pytest.raises(DataError, match="1 fault, nothing is written"):
        run(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [source]
    prepared, lines = run(source, tmp_path / "out", keep_going=True)
    assert lines[0].startswith("x.flac: cannot be decoded")
    assert sum(part.utterances for part in prepared.partitions) == 3


def test_nothing_of_use(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=r"in: no recordings with alignments; put x.TextGrid or x.phn beside"):
        run(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "x.wav").write_text("words")
    with pytest.raises(DataError, match=r"x\.wav: is not audio that can be decoded"):
        run(tmp_path / "in", tmp_path / "out")
    source = make(tmp_path / "in", "x")
    (source / "x.phn").write_text("words\n")
    with pytest.raises(DataError, match=r"in: 1 fault, nothing is written; repair the files$"):
        run(source, tmp_path / "out", keep_going=True)


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by a stand-in for the system, since root may read everything."""
    source = make(tmp_path / "in", "a", "b", "c", "locked/x")
    scan = os.scandir

    def refuse(path: str) -> Any:
        if path == str(source / "locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    _, lines = run(source, tmp_path / "out", keep_going=True)
    assert lines == ["locked: permission denied; allow reading it, or remove it"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = make(tmp_path / "in", "a", "b", "c")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DataError, match="No space left on device while writing; free some space"):
        run(source, tmp_path / "out", keep_going=True)
    assert list(tmp_path.iterdir()) == [source]


def test_a_speaker_is_never_in_two_partitions(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "train/ann_1", "train/bob_1", "dev/ann_2", "test/cid_1")
    with pytest.raises(
        DataError, match=r"speaker ann \(by the prefix of the file name\) is in dev and train; split again"
    ):
        run(source, tmp_path / "out")
    prepared, _ = run(source, tmp_path / "out", split=(0.4, 0.3, 0.3))
    assert {part.name: part.speakers for part in prepared.partitions} == {"train": 1, "dev": 1, "test": 1}


def test_one_speaker_is_split_by_recording_and_it_is_said(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "wavs/LJ001-0001", "wavs/LJ001-0002", "wavs/LJ002-0001")
    (source / "metadata.csv").touch()
    prepared, _ = run(source, tmp_path / "out")
    assert [part.utterances for part in prepared.partitions] == [1, 1, 1]
    assert "split by recording, since all are of one speaker" in prepared.facts[2]


def test_the_same_seed_gives_the_same_corpus(tmp_path: Path) -> None:
    source = make(tmp_path / "in", *(f"s{number}_1" for number in range(8)))
    contents = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(source, tmp_path / name, seed=seed)
        contents.append((tmp_path / name / "corpus.json").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_inventories(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "a", "b", "c")
    for name in "abc":
        align(source / f"{name}.phn", phones=[(0, 0.1, "sil"), (0.1, 0.3, "ʁ"), (0.3, 0.5, "a")])
    with pytest.raises(DataError, match="3 faults"):
        run(source, tmp_path / "out")
    run(source, tmp_path / "out", inventory="found")
    assert Corpus.open(tmp_path / "out").inventory.symbols == ("[SIL]", "a", "ʁ")
    symbols = tmp_path / "symbols"
    symbols.write_text("pau\nR\nA\n")
    fold = tmp_path / "fold"
    fold.write_text("ʁ R\na A\nsil [SIL]\n")
    run(source, tmp_path / "own", inventory=str(symbols), fold=str(fold), silence="pau")
    corpus = Corpus.open(tmp_path / "own")
    assert corpus.inventory.symbols == ("pau", "R", "A")
    assert np.bincount(corpus.partition("train").labels()).tolist() == [9, 20, 19]  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"has no symbol of silence, which gaps need; name it \(silence=SYMBOL\)"):
        run(source, tmp_path / "none", inventory=str(symbols))


def test_a_further_folder_of_alignments(tmp_path: Path) -> None:
    for name in ("84/1/84-1-0000", "85/2/85-2-0000", "86/3/86-3-0000"):
        record(tmp_path / "in" / "LibriSpeech" / "dev-clean" / f"{name}.flac")
        align(tmp_path / "grids" / f"{name}.TextGrid")
    prepared, _ = run(tmp_path / "in", tmp_path / "out", alignments=tmp_path / "grids")
    assert prepared.facts[:2] == (
        "layout: LibriSpeech, Praat TextGrids (3)",
        "speakers: by file name, as in LibriSpeech",
    )
    assert [part.speakers for part in prepared.partitions] == [1, 1, 1]


def test_names_that_two_recordings_would_have(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "train-a/x", "train-b/x", "train-b/y", "dev/z")
    prepared, lines = run(source, tmp_path / "out", keep_going=True)
    assert lines[0].startswith("train-b/x.wav: its utterance name would be x, which")
    assert [(part.name, part.utterances) for part in prepared.partitions] == [("train", 2), ("dev", 1)]


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "a", "b", "c")
    for suffix in (".wav", ".phn"):
        shutil.copy(source / f"a{suffix}", source / f"\udcff{suffix}")
    _, lines = run(source, tmp_path / "out", keep_going=True)
    assert lines == ["\udcff.wav: its path is not Unicode text; rename it"]


def test_places_that_are_taken(tmp_path: Path) -> None:
    source = make(tmp_path / "in", "a", "b", "c")
    with pytest.raises(UsageError, match="is inside"):
        run(source, source / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists; choose another place"):
        run(source, tmp_path / "out")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no {REAL}")
def test_real_recordings_have_the_labels_of_the_aligner(tmp_path: Path) -> None:
    """The arrays, made by the aligner, label a frame by the 10 ms that begin with it, which is one frame earlier."""
    names = [path.stem for path in sorted((REAL / "recordings" / "dev").glob("*.flac"))[:3]]
    for name in names:
        for suffix in (".flac", ".phn"):
            (tmp_path / "in").mkdir(exist_ok=True)
            (tmp_path / "in" / f"{name}{suffix}").symlink_to(REAL / "recordings" / "dev" / f"{name}{suffix}")
    run(tmp_path / "in", tmp_path / "out", normalization="none", split=(1, 0, 0))
    partition = Corpus.open(tmp_path / "out").partition("train")
    for at, frames in enumerate(partition.frames()):
        own = labels_of(Corpus.open(tmp_path / "out"), "train")[partition.offsets[at] : partition.offsets[at + 1]]
        folder = REAL / "so762" / "dev-clean"
        arrays = np.load(folder / "mfcc" / f"{partition.utterances[at]}.npy")
        given = np.load(folder / "transcript" / f"{partition.utterances[at]}.npy")[1:-1]
        distances = [
            np.abs(frames[first : first + len(arrays)] - arrays).max() for first in range(len(frames) - len(arrays) + 1)
        ]
        first = int(np.argmin(distances))
        assert min(distances) < 0.01
        assert own[first : first + len(arrays) - 1] == given[1:].tolist()
