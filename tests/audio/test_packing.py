"""`dali-asr features`: recordings to a packed corpus, continued, repeated and with recordings that cannot be used."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from dali_asr import Corpus, Inventory, PackedWriter
from dali_asr.audio import packing
from dali_asr.audio.packing import Summary, extract_corpus
from dali_asr.audio.pipelines import compute
from dali_asr.audio.settings import FeatureSettings
from dali_asr.corpus import Normalization
from dali_asr.corpus.packing import Progress
from dali_asr.errors import DataError, UsageError
from dali_asr.files import write_file
from dali_asr.model import HiddenLayer
from dali_asr.runs.description import ModelDescription
from dali_asr.segments import FrameTiming
from tests.audio.signals import make_signal
from tests.makers import all_frames

SETTINGS = FeatureSettings(coefficients=13, hop=0.02)
NAMES = {"train": ("b", "a", "c d"), "test": ("a",)}


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    for partition, names in NAMES.items():
        (tmp_path / "rec" / partition).mkdir(parents=True)
        for name in names:
            path = tmp_path / "rec" / partition / f"{name}.wav"
            soundfile.write(path, make_signal(3_000 + 100 * len(name), seed=len(partition)), 16_000)
    return tmp_path / "rec"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Killed(BaseException):
    """Ends the work as a signal does."""


def stop_at(recording: int) -> Progress:
    def report(stage: str, done: int, total: int) -> None:
        if stage == "computing features" and done == recording:
            raise Killed

    return report


def test_a_folder_becomes_a_packed_corpus_that_keeps_its_settings(recordings: Path, tmp_path: Path) -> None:
    summary = extract_corpus(recordings, tmp_path / "corpus", SETTINGS, normalization="none")
    assert summary == Summary(4, computed=4)
    corpus = Corpus.open(tmp_path / "corpus")
    assert {name: p.utterances for name, p in corpus.partitions.items()} == {
        "train": ("a", "b", "c d"),
        "test": ("a",),
    }
    assert not any(p.labelled for p in corpus.partitions.values())
    assert corpus.features is not None
    assert FeatureSettings.from_json(corpus.features) == SETTINGS
    assert corpus.timing == FrameTiming(16_000, 400, 320)
    samples, _ = soundfile.read(recordings / "test" / "a.wav", dtype="float32")
    np.testing.assert_array_equal(all_frames(corpus.partition("test")), compute([samples], SETTINGS)[0])


def test_one_file_and_a_folder_without_partitions(recordings: Path, tmp_path: Path) -> None:
    extract_corpus(recordings / "train" / "c d.wav", tmp_path / "one", SETTINGS)
    extract_corpus(recordings / "train", tmp_path / "folder", SETTINGS)
    assert Corpus.open(tmp_path / "one").partition("all").utterances == ("c d",)
    assert Corpus.open(tmp_path / "folder").partition("all").utterances == ("a", "b", "c d")


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
def test_what_was_stopped_goes_on(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    monkeypatch.setattr(packing, "_SHARD_BYTES", 1)
    extract_corpus(recordings, tmp_path / "whole", SETTINGS)
    with pytest.raises(Killed):
        extract_corpus(recordings, tmp_path / "corpus", SETTINGS, progress=stop_at(at))
    assert not (tmp_path / "corpus").exists()
    summary = extract_corpus(recordings, tmp_path / "corpus", SETTINGS)
    assert (summary.kept, summary.computed) == (at, 4 - at)
    assert files(tmp_path / "corpus") == files(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "rec", "whole"]


def test_a_kill_before_the_record_is_written(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, *rest: Any) -> None:
        if path.name == packing.RECORD:
            raise Killed
        write(path, *rest)

    write = packing._write_json
    monkeypatch.setattr(packing, "_write_json", killed)
    with pytest.raises(Killed):
        extract_corpus(recordings, tmp_path / "corpus", SETTINGS)
    monkeypatch.undo()
    assert (tmp_path / "corpus").exists()
    summary = extract_corpus(recordings, tmp_path / "corpus", SETTINGS)
    assert (summary.kept, summary.computed) == (4, 0)
    assert extract_corpus(recordings, tmp_path / "corpus", SETTINGS).nothing_to_do


def test_other_settings_or_a_changed_recording_start_anew(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_SHARD_BYTES", 1)
    for number, (settings, changed, kept) in enumerate(((SETTINGS, True, 2), (FeatureSettings(), False, 0))):
        dest = tmp_path / str(number)
        with pytest.raises(Killed):
            extract_corpus(recordings, dest, SETTINGS, progress=stop_at(3))
        if changed:
            soundfile.write(recordings / "train" / "a.wav", make_signal(5_000), 16_000)
        assert extract_corpus(recordings, dest, settings).kept == kept


def test_a_finished_corpus_is_left_alone(recordings: Path, tmp_path: Path) -> None:
    extract_corpus(recordings, tmp_path / "corpus", SETTINGS)
    before = files(tmp_path / "corpus")
    again = extract_corpus(recordings, tmp_path / "corpus", SETTINGS)
    assert again == Summary(4, nothing_to_do=True)
    with pytest.raises(UsageError, match="corpus: was made by other settings or of other recordings; choose"):
        extract_corpus(recordings, tmp_path / "corpus", FeatureSettings())
    (recordings / "train" / "b.wav").unlink()
    with pytest.raises(UsageError, match="or of other recordings"):
        extract_corpus(recordings, tmp_path / "corpus", SETTINGS)
    assert files(tmp_path / "corpus") == before
    assert extract_corpus(recordings, tmp_path / "corpus", SETTINGS, overwrite=True).computed == 3
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="other: exists; choose another place"):
        extract_corpus(recordings, tmp_path / "other", SETTINGS)
    with pytest.raises(UsageError, match="is inside"):
        extract_corpus(recordings, recordings / "corpus", SETTINGS)


def test_a_full_disk_is_one_line_and_what_is_done_stays(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name == "00002.npy":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    write = write_file
    monkeypatch.setattr(packing, "_SHARD_BYTES", 1)
    monkeypatch.setattr(packing, "write_file", full)
    with pytest.raises(DataError, match=r"corpus: No space left on device while writing; free some space, or choose"):
        extract_corpus(recordings, tmp_path / "corpus", SETTINGS)
    monkeypatch.setattr(packing, "write_file", write)
    assert extract_corpus(recordings, tmp_path / "corpus", SETTINGS).kept == 2


def test_what_cannot_be_used_is_left_out_and_told(
    recordings: Path, tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (recordings / "train" / "b.wav").write_text("no audio")
    (recordings / "train" / "closed").mkdir()
    soundfile.write(recordings / "train" / "a.flac", np.zeros(4_000), 16_000)
    scan = os.scandir

    def guarded(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    command = ("features", recordings, tmp_path / "corpus", "--set", "features.coefficients=13", "--device", "cpu")
    refused = run_cli(*command)
    assert refused.exit_code == 1
    line = "closed: Permission denied; make it readable, or move it away; --keep-going leaves out what cannot be used"
    assert line in refused.output
    for first in (True, False):
        shown = run_cli(*command, "--keep-going")
        assert shown.exit_code == 1
        lines = shown.output.splitlines()
        train = recordings / "train"
        assert (
            f"error: {train}/a.wav: has the same name as {train}/a.flac, and a name stands for one utterance; rename it"
            in lines
        )
        assert any(line.startswith(f"error: {train}/b.wav: is not audio that can be decoded") for line in lines)
        assert "3 failed" in lines
        done = "Computed the features of 3 of 6 recordings" if first else "Nothing to do"
        assert any(line.startswith(done) for line in lines)
        assert (f"warning: {train}/a.flac: is silent, all samples are 0" in lines) == first
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.partition("train").utterances == ("a", "c d")
    assert corpus.normalization.kind == "utterance"


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rec").mkdir()
    with pytest.raises(DataError, match="rec: holds no recordings"):
        extract_corpus(tmp_path / "rec", tmp_path / "corpus", SETTINGS)
    with pytest.raises(DataError, match="no such file or folder"):
        extract_corpus(tmp_path / "absent", tmp_path / "corpus", SETTINGS)
    (tmp_path / "rec" / "a.wav").touch()
    with pytest.raises(DataError, match=r"a\.wav: is empty; record it again, or remove it$"):
        extract_corpus(tmp_path / "rec", tmp_path / "corpus", SETTINGS)
    with pytest.raises(DataError, match=r"no recording could be used; the first: .*a\.wav: is empty"):
        extract_corpus(tmp_path / "rec", tmp_path / "corpus", SETTINGS, keep_going=True)


def test_the_interrupted_command_says_how_to_go_on(
    recordings: Path, tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "extract_corpus", interrupted)
    shown = run_cli("features", recordings, tmp_path / "corpus", "--device", "cpu")
    assert shown.exit_code == 130
    assert "interrupted; what is done is kept; the same command goes on from there" in shown.output


def test_corpora_without_settings_open(tmp_path: Path) -> None:
    with PackedWriter(tmp_path / "p", inventory=Inventory(("a", "b"))) as writer:
        writer.add("train", "u", np.ones((4, 2)))
    corpus = Corpus.open(tmp_path / "p")
    assert corpus.features is None
    assert corpus.timing == FrameTiming()
    with PackedWriter(tmp_path / "q", inventory=Inventory(("a", "b")), features={"timing": {"hop": 0}}) as writer:
        writer.add("train", "u", np.ones((4, 2)))
    with pytest.raises(DataError, match=r"corpus\.json: damaged \(hop: 0; expected a positive integer"):
        Corpus.open(tmp_path / "q")


def test_a_model_keeps_the_settings_of_its_features() -> None:
    parts = (0, 0), 13, (HiddenLayer(5),), "gelu", False, Inventory(("a", "b")), Normalization("none")
    for features in (None, SETTINGS):
        description = ModelDescription(*parts, features)
        assert ModelDescription.from_json(json.loads(json.dumps(description.to_json()))) == description
    old = {key: value for key, value in description.to_json().items() if key != "features"}
    assert ModelDescription.from_json(old).features is None
    assert description.differences(ModelDescription(*parts)) == ["features computed by other settings"]
