"""Recordings as a source: labelled as their features are, in order, with their own times, whatever else is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from praatio import textgrid as praat

from dali_asr import Normalization, load_model, predict
from dali_asr.audio.extract import Extracted, extract
from dali_asr.config import DataConfig
from dali_asr.demo import DEMO_RECORDING
from dali_asr.errors import CheckpointError, DaliAsrWarning, DataError, UsageError
from dali_asr.inference.evaluate import evaluate
from dali_asr.inference.sources import open_source
from dali_asr.inventory import ARPABET
from dali_asr.runs.description import ModelDescription
from dali_asr.segments import FrameTiming
from tests.makers import make_course

MODEL = "english-small"


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of noises in `train` and `dev`, of several formats and rates; no test changes it."""
    root = tmp_path_factory.mktemp("sounds")
    for name, seconds, rate, channels in (
        ("train/ä b.wav", 0.5, 16_000, 1),
        ("train/two.flac", 0.31, 8_000, 2),
        ("dev/three.ogg", 0.4, 44_100, 1),
        ("dev/four.mp3", 0.4, 16_000, 1),
    ):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(len(name)).normal(0, 0.1, (round(seconds * rate), channels))
        soundfile.write(path, noise.astype(np.float32), rate)
    return root


def recordings(folder: Path) -> list[Path]:
    """Return the recordings in the order in which a folder of them is read."""
    return [path for part in ("train", "dev") for path in sorted((folder / part).iterdir(), key=lambda p: p.stem)]


def test_labels_are_those_of_the_models_own_features(sounds: Path, tmp_path: Path) -> None:
    """Of each recording by itself, alone and among others, and of its features as an array."""
    model = load_model(MODEL, device="cpu")
    paths = recordings(sounds)
    extracted = [found for found in extract(paths, model.features) if isinstance(found, Extracted)]
    np.save(tmp_path / "array.npy", extracted[0].frames)
    with pytest.warns(DaliAsrWarning, match="recorded at 8,000 Hz"):
        found = predict(MODEL, [*paths[:2], tmp_path / "array.npy", *paths[2:]], device="cpu")
    assert found.utterances == ("two", "ä b", "array", "four", "three")
    expected = [model.classify(one.frames) for one in extracted]
    expected.insert(2, expected[0])
    assert np.array_equal(found.labels, np.concatenate(expected))
    ends = [found.segments(number)[-1].end for number in range(5)]
    durations = [one.samples / 16_000 for one in extracted]
    assert ends[:2] == pytest.approx(durations[:2])
    assert ends[3:] == pytest.approx(durations[2:])
    assert ends[2] == pytest.approx(FrameTiming().edges(len(expected[2]))[-1]), "an array has no duration of its own"
    in_folder = predict(MODEL, sounds, device="cpu")
    assert np.array_equal(in_folder.labels, np.concatenate([one for at, one in enumerate(expected) if at != 2]))
    dev = predict(MODEL, sounds, partition="dev", device="cpu")
    assert dev.utterances == tuple(path.stem for path in paths[2:])


def test_a_recording_is_labelled_at_once(
    run_cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that the package's recording becomes is read by another library; it lasts as long as the sound."""
    monkeypatch.chdir(tmp_path)
    done = run_cli("predict", MODEL, "demo.wav", "--format", "textgrid", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "350 frames of 1 utterance, written to demo.TextGrid" in done.stdout
    grid = praat.openTextgrid("demo.TextGrid", includeEmptyIntervals=True)
    phones = grid.getTier("phones").entries
    info = soundfile.info(str(DEMO_RECORDING))
    assert grid.maxTimestamp == pytest.approx(info.frames / info.samplerate, abs=1e-6)
    assert phones[0].label == phones[-1].label == "[SIL]"
    assert 15 < len(phones) < 50, "a sentence of 34 phones"
    again = run_cli("predict", MODEL, "demo.wav", "-o", "-", "--device", "cpu")
    assert again.stdout == Path("demo.TextGrid").read_text(), "TextGrids are the default for recordings"
    assert "exists" in run_cli("predict", MODEL, "demo.wav").stderr
    assert "written to demo.json" in run_cli("predict", MODEL, "demo.wav", "--format", "json", "--device", "cpu").stdout
    assert "written to demo.JSON" in run_cli("predict", MODEL, "demo.wav", "-o", "demo.JSON", "--device", "cpu").stdout
    assert Path("demo.JSON").read_bytes() == Path("demo.json").read_bytes(), "the suffix names the format"
    Path("demo.wav").write_bytes(b"not a sound")
    assert "demo.wav: is not audio" in run_cli("predict", MODEL, "demo.wav", "--force").stderr


def test_files_that_cannot_be_used_are_left_out_only_if_asked(
    sounds: Path, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    good = sounds / "train/ä b.wav"
    (tmp_path / "empty.flac").touch()
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "short.wav", np.zeros(80, np.float32), 16_000)
    flac = (sounds / "train/two.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(flac[: len(flac) // 2])
    np.save(tmp_path / "wide.npy", np.zeros((3, 7), np.float32))
    bad = sorted(path for path in tmp_path.iterdir() if path.is_file())
    listed = "\n".join(map(str, [*bad, good])) + "\n"
    command = ("predict", MODEL, "-", "--format", "ctm", "--device", "cpu", "-o", tmp_path / "all.ctm")
    done = run_cli(*command, stdin=listed)
    assert done.exit_code == 1
    later = ("cut.flac", "short.wav")  # whose faults their headers do not show
    *faults, line = done.stderr.splitlines()
    assert sorted(fault.split(": ")[1] for fault in faults) == [str(path) for path in bad if path.name not in later]
    assert line == (
        "error: 3 files cannot be used, nothing is written; repair them; --keep-going leaves out what cannot be used"
    )
    (line,) = run_cli(*command, stdin=f"{good}\n{bad[0]}\n").stderr.splitlines()
    assert line.endswith("; --keep-going leaves out what cannot be used")
    with pytest.raises(DataError, match=r"empty.flac: is empty; .* \(1 more cannot be used\)$"):
        predict(MODEL, [tmp_path / "empty.flac", tmp_path / "text.wav"], device="cpu")
    assert not (tmp_path / "all.ctm").exists()
    done = run_cli(*command, "--keep-going", stdin=listed)
    assert done.exit_code == 1
    *errors, summary = done.stderr.splitlines()
    assert sorted(error.split(": ")[1] for error in errors) == [str(path) for path in bad]
    assert summary == "warning: 5 files were left out, for the reasons above"
    assert "48 frames of 1 utterance, written to" in done.stdout
    assert {line.split()[0] for line in (tmp_path / "all.ctm").read_text().splitlines()} == {"ä_b"}
    strays = [tmp_path / "one.phn", tmp_path / "two.txt", tmp_path / "gone"]
    for path in strays[:2]:
        path.write_text("0 100 h#")
    kept = (tmp_path / "all.ctm").read_bytes()
    done = run_cli(*command, "--keep-going", "--force", stdin="\n".join(map(str, [*strays, good])))
    reasons = [f"{path}: is neither a recording (.wav, .flac, " for path in strays[:2]]
    reasons.append(f"{strays[2]}: no such file or directory; check the path and its permissions")
    *errors, summary = done.stderr.splitlines()
    assert [error.startswith(f"error: {reason}") for error, reason in zip(errors, reasons, strict=True)] == [True] * 3
    assert summary == "warning: 3 files were left out, for the reasons above"
    assert (tmp_path / "all.ctm").read_bytes() == kept
    (line,) = run_cli(*command, "--force", stdin=f"{strays[0]}\n{good}\n").stderr.splitlines()
    assert line.startswith(f"error: {reasons[0]}")
    assert line.endswith("; --keep-going leaves out what cannot be used")
    lines = run_cli(*command, "--force", stdin=f"{strays[0]}\n{bad[1]}\n{good}\n").stderr.splitlines()
    assert [line.split(": ")[1] for line in lines[:-1]] == [str(strays[0]), str(bad[1])]
    assert lines[-1].startswith("error: 2 files cannot be used, nothing is written; ")
    assert run_cli("predict", MODEL, strays[0]).stderr.startswith(f"error: {reasons[0]}")
    done = run_cli(*command, "--keep-going", "--force", stdin=f"{bad[1]}\n{bad[3]}\n")
    assert "none of the files can be used; see the errors above" in done.stderr


def test_a_model_that_does_not_know_its_features_says_what_to_do(sounds: Path) -> None:
    description = ModelDescription((1, 1), 28, (), "gelu", False, ARPABET, Normalization("none"))
    with pytest.raises(CheckpointError, match=r"two\.flac: is a recording, and the model does not know how .* prepare"):
        open_source([sounds / "train/two.flac"], None, description, DataConfig())


def test_unclear_recordings_are_refused(sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no partition 'test'; it has 'dev', 'train'"):
        predict(MODEL, sounds, partition="test")
    with pytest.raises(DataError, match=r"have no labels to compare with; make a corpus .* \(dali-asr prepare\)"):
        evaluate(MODEL, sounds / "train")
    with pytest.raises(UsageError, match="single files have no partitions"):
        predict(MODEL, sounds / "train/two.flac", partition="train")
    with pytest.raises(UsageError, match="several sources must all be recordings"):
        predict(MODEL, [sounds, "demo"])
    with pytest.raises(UsageError, match="several sources must all be recordings"):
        predict(MODEL, [Path(__file__), "demo"])
    with pytest.raises(DataError, match=r"nowhere\.wav: no such file; check the path"):
        predict(MODEL, tmp_path / "nowhere.wav")


def test_odd_recordings_and_folders_without_any_are_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(8_000, np.float32), 16_000)
    with pytest.warns(DaliAsrWarning, match=r"silent\.wav: is silent"):
        predict(MODEL, tmp_path / "silent.wav", device="cpu")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"none: holds neither recordings \(.*\.wav.*\) nor \.npy files of features"):
        predict(MODEL, tmp_path / "none", device="cpu")


def test_a_partition_of_a_course_is_not_taken_for_a_folder_of_files(
    tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    make_course(tmp_path / "course", {"train": [20], "test": [30]}, unlabelled=("test",))
    for partition in ("train", "test"):
        says = (
            f"{tmp_path}/course/{partition}: is a partition, not the folder of the partitions; give {tmp_path}/course, "
            f"and {partition} as the name of its partition"
        )
        for command in ("predict", "evaluate"):
            for named in ([], ["--partition", partition]):
                done = run_cli(command, MODEL, tmp_path / "course" / partition, *named)
                assert (done.exit_code, done.output) == (1, f"error: {says} (--partition)\n")
        info = run_cli("data", "info", tmp_path / "course" / partition)
        assert info.output == f"error: {says}\n"
