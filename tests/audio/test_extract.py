"""Features of many recordings: order, formats, rates, damage, and parts of long recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from dali_asr.audio import extract as extracting
from dali_asr.audio.extract import Extracted, Failed, extract
from dali_asr.audio.pipelines import compute
from dali_asr.audio.recordings import read_blocks
from dali_asr.audio.settings import PRESETS, FeatureSettings
from dali_asr.errors import DataError
from tests.audio.signals import make_signal

COURSE = FeatureSettings()


def frames_of(result: Extracted | Failed) -> np.ndarray:
    assert isinstance(result, Extracted), result
    return result.frames


def test_results_come_in_order_and_equal_those_of_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that DALI decodes, files that it does not, long ones and damaged ones, in any order."""
    monkeypatch.setattr(extracting, "_MAX_BATCH_BYTES", 60_000)
    monkeypatch.setattr(extracting, "_LONG_BYTES", 100_000)
    lengths = [4_000, 30_000, 5_000, 900, 12_000, 3_000, 40_000, 400, 2_000, 6_000]
    suffixes = [".wav", ".flac", ".mp3", ".wav", ".mp3", ".flac", ".mp3", ".wav", ".flac", ".wav"]
    paths = [tmp_path / f"{at}{suffix}" for at, suffix in enumerate(suffixes)]
    for at, (path, length) in enumerate(zip(paths, lengths, strict=True)):
        soundfile.write(path, make_signal(length, seed=at), 16_000)
    paths[5].write_bytes(paths[5].read_bytes()[:1_500])
    found = list(extract(paths, keep_going=True, threads=1))
    assert [result.position for result in found] == list(range(10))
    assert [result.position for result in found if isinstance(result, Failed)] == [5]
    for path, result in zip(paths, found, strict=True):
        if isinstance(result, Extracted):
            samples = np.concatenate(list(read_blocks(path, 1 << 20)))
            assert result.samples == len(samples)
            np.testing.assert_array_equal(result.frames, compute([samples], COURSE)[0])


@pytest.mark.parametrize("preset", PRESETS)
def test_parts_of_a_long_recording_are_as_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    path, rate = tmp_path / "long.wav", PRESETS[preset].sample_rate
    monkeypatch.setattr("dali_asr.audio.long._BLOCK_SECONDS", 1)
    soundfile.write(path, make_signal(int(4.3 * rate), rate), rate)
    (whole,) = extract([path], PRESETS[preset])
    monkeypatch.setattr(extracting, "_LONG_BYTES", 1_000)
    (joined,) = extract([path], PRESETS[preset])
    assert joined.position == whole.position
    assert isinstance(joined, Extracted)
    assert isinstance(whole, Extracted)
    assert joined.samples == whole.samples
    np.testing.assert_array_equal(joined.frames, whole.frames)


def test_parts_are_resampled_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.wav"
    monkeypatch.setattr("dali_asr.audio.long._BLOCK_SECONDS", 1)
    soundfile.write(path, make_signal(140_000, 44_100), 44_100)
    (whole,) = extract([path])
    monkeypatch.setattr(extracting, "_LONG_BYTES", 1_000)
    (joined,) = extract([path])
    assert frames_of(joined).shape == frames_of(whole).shape
    assert np.abs(frames_of(joined) - frames_of(whole)).max() < 0.1, "DALI's positions of samples are in float32"


def test_formats_rates_and_channels(tmp_path: Path) -> None:
    """All of them are near to the features of the samples; 8 bits and lossy formats say little of what is quiet."""
    samples = make_signal(16_000)
    kinds = {
        "a.wav": {"subtype": "PCM_16"},
        "b.wav": {"subtype": "PCM_24"},
        "c.wav": {"subtype": "FLOAT"},
        "d.wav": {"subtype": "PCM_32"},
        "e.flac": {"subtype": "PCM_24"},
        "f.ogg": {"subtype": "VORBIS"},
        "g.mp3": {},
        "h.wav": {"subtype": "PCM_U8"},
    }
    for name, options in kinds.items():
        soundfile.write(tmp_path / name, samples, 16_000, **options)
    soundfile.write(tmp_path / "i ünï 語.wav", np.stack([samples] * 8, axis=1), 16_000)
    soundfile.write(tmp_path / "j.wav", np.repeat(samples, 12), 192_000)
    soundfile.write(tmp_path / "k.wav", samples[::4], 4_000)
    soundfile.write(tmp_path / "l.mp3", np.repeat(samples, 2), 32_000)
    paths = sorted(tmp_path.iterdir())
    (expected,) = compute([samples], COURSE)
    for path, result in zip(paths, extract(paths), strict=True):
        frames, exact = frames_of(result), path.suffix in (".wav", ".flac") and path.name[0] not in "hjk"
        assert frames.shape == expected.shape
        error = np.abs(frames - expected)
        assert (error.max() < 1e-3) if exact else (error[:, 0].mean() < 30), path.name
    low = dict(zip(paths, extract(paths), strict=True))[tmp_path / "k.wav"]
    assert isinstance(low, Extracted)
    assert str(low.remark).endswith("k.wav: recorded at 4,000 Hz, so its features contain nothing above 2,000 Hz")


def test_what_cannot_be_used_is_one_line_each(tmp_path: Path) -> None:
    noise = make_signal(40_000)
    soundfile.write(tmp_path / "cut.flac", noise, 16_000)
    soundfile.write(tmp_path / "cut.wav", noise, 16_000)
    for name in ("cut.flac", "cut.wav"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "none.wav", noise[:0], 16_000)
    soundfile.write(tmp_path / "short.wav", noise[:399], 16_000)
    (tmp_path / "text.wav").write_text("no audio")
    expected = {
        "absent.wav": "no such file; check the path",
        "cut.flac": "cannot be decoded (flac decoder lost sync), so it is damaged or cut short",
        "cut.wav": "is cut short, 40,022 of 80,044 bytes",
        "empty.wav": "is empty",
        "none.wav": "has no samples",
        "short.wav": "lasts 24.9 ms, less than a window of 25 ms",
        "text.wav": "is not audio that can be decoded (format not recognised)",
    }
    found = list(extract([tmp_path / name for name in expected], keep_going=True))
    for (name, message), result in zip(expected.items(), found, strict=True):
        assert isinstance(result, Failed)
        assert str(result.error).startswith(f"{tmp_path / name}: {message}")
        assert "\n" not in str(result.error)
        with pytest.raises(DataError, match=name):
            list(extract([tmp_path / name]))


@pytest.mark.parametrize("long_bytes", [1 << 25, 10_000])
@pytest.mark.parametrize(("value", "rate", "preset"), [(np.nan, 16_000, "course"), (-np.inf, 8_000, "kaldi")])
def test_a_sample_that_is_not_finite_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, rate: int, preset: str, long_bytes: int
) -> None:
    """In stereo, decoded by DALI or, as a long recording, by libsndfile."""
    monkeypatch.setattr(extracting, "_LONG_BYTES", long_bytes)
    samples = np.stack([make_signal(20_000), make_signal(20_000, seed=1)], axis=1)
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    soundfile.write(good, samples, rate, subtype="FLOAT")
    samples[[4_321, 9_000], 1] = value
    soundfile.write(bad, samples, rate, subtype="FLOAT")
    first, second, third = extract([good, bad, good], FeatureSettings.of(preset), keep_going=True)
    assert np.isfinite(frames_of(first)).all()
    np.testing.assert_array_equal(frames_of(first), frames_of(third))
    assert isinstance(second, Failed)
    assert str(second.error) == (
        f"{bad}: sample 4,321, at {4_321 / rate:.3f} s, is {value}; export or record it again, or remove it"
    )


def test_a_long_recording_that_is_damaged_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extracting, "_LONG_BYTES", 1_000)
    soundfile.write(tmp_path / "cut.flac", make_signal(90_000), 16_000)
    content = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut\.flac: cannot be decoded \(flac decoder lost sync\)"):
        list(extract([tmp_path / "cut.flac"]))


def test_what_is_odd_is_remarked(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(4_000), 16_000)
    soundfile.write(tmp_path / "clipped.wav", np.clip(8 * make_signal(16_000), -1, 1), 16_000)
    soundfile.write(tmp_path / "fine.wav", make_signal(4_000), 16_000)
    silent, clipped, fine = extract([tmp_path / f"{name}.wav" for name in ("silent", "clipped", "fine")])
    assert isinstance(silent, Extracted)
    assert isinstance(clipped, Extracted)
    assert isinstance(fine, Extracted)
    assert str(silent.remark).endswith("silent.wav: is silent, all samples are 0")
    assert "of the samples are at full scale" in str(clipped.remark)
    assert fine.remark is None


@pytest.mark.parametrize(("length", "overlap"), [(7, 0), (7, 3), (5, 5), (40, 10), (3, 9)])
def test_blocks_overlap(tmp_path: Path, length: int, overlap: int) -> None:
    samples = make_signal(33)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    found = list(read_blocks(tmp_path / "a.wav", length, overlap))
    expected = [samples[max(at - overlap, 0) : at + length + overlap] for at in range(0, 33, length)]
    assert len(found) == len(expected)
    for block, part in zip(found, expected, strict=True):
        np.testing.assert_array_equal(block, part)
