"""Features by DALI, against NumPy, Kaldi's own code, librosa and the features of real speech."""

from __future__ import annotations

import kaldi_native_fbank
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dali_asr.audio.extract import Extracted, extract
from dali_asr.audio.features import demo_settings, mfcc
from dali_asr.audio.pipelines import compute
from dali_asr.audio.settings import PRESETS, FeatureSettings
from dali_asr.segments import FrameTiming
from tests.audio.signals import RECORDED, make_signal, reference
from tests.conftest import REAL_SPEECH

ARRAYS, RECORDINGS = REAL_SPEECH.with_name("so762"), REAL_SPEECH.with_name("recordings")


@pytest.mark.parametrize(("rate", "coefficients"), [(16_000, 28), (16_000, 13), (8_000, 28), (44_100, 40)])
def test_mfcc_of_the_demo_equal_a_plain_computation(rate: int, coefficients: int) -> None:
    samples = make_signal(rate, rate)
    found = mfcc(samples, rate, coefficients)
    expected = reference(samples, demo_settings(rate, coefficients))
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 0.01, "dB"


@pytest.mark.parametrize(
    "changes",
    [{}, {"kind": "log-mel", "mel_bands": 80}, {"kind": "log-power"}, {"hop": 0.0125, "sample_rate": 8_000}],
)
def test_the_course_preset_equals_a_plain_computation(changes: dict[str, object]) -> None:
    chosen = FeatureSettings.of("course", **changes)
    samples = make_signal(10_000)
    (found,) = compute([samples], chosen)
    assert found.shape[1] == chosen.feature_dim
    expected = reference(samples, chosen)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"{RECORDINGS}: real speech is not here")
def test_the_course_preset_gives_the_arrays_of_real_speech() -> None:
    paths = sorted((RECORDINGS / "dev").glob("*.flac"))[:10]
    for path, result in zip(paths, extract(paths), strict=True):
        assert isinstance(result, Extracted)
        expected = np.load(ARRAYS / "dev-clean" / "mfcc" / f"{path.stem}.npy")  # without silence at both ends
        starts = range(len(result.frames) - len(expected) + 1)
        assert min(np.abs(result.frames[at : at + len(expected)] - expected).max() for at in starts) < 1e-3


def mfcc_of_kaldi(samples: NDArray[np.float32], bands: int = 23) -> NDArray[np.float32]:
    options = kaldi_native_fbank.MfccOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = bands
    computer = kaldi_native_fbank.OnlineMfcc(options)
    computer.accept_waveform(16_000, (samples * 32768).tolist())
    computer.input_finished()
    return np.array([computer.get_frame(at) for at in range(computer.num_frames_ready)])


@pytest.mark.parametrize("bands", [23, 40])
def test_the_kaldi_preset_equals_kaldi(bands: int) -> None:
    samples = make_signal(16_000, seed=1)
    expected = mfcc_of_kaldi(samples, bands)
    (found,) = compute([samples], FeatureSettings.of("kaldi", mel_bands=bands))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 2e-3


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"{RECORDINGS}: real speech is not here")
def test_the_kaldi_preset_equals_kaldi_on_real_speech() -> None:
    """On the recording with the largest difference that the README states, and on others."""
    paths = [RECORDINGS / "test" / "010990267.flac", *sorted((RECORDINGS / "dev").glob("*.flac"))[:5]]
    for path, result in zip(paths, extract(paths, FeatureSettings.of("kaldi")), strict=True):
        assert isinstance(result, Extracted)
        expected = mfcc_of_kaldi(soundfile.read(path, dtype="float32")[0])
        assert np.abs(result.frames - expected).max() < 2.5e-3


def test_the_librosa_preset_equals_what_librosa_computed() -> None:
    recorded = np.load(RECORDED, allow_pickle=False)
    samples = recorded["samples"].astype(np.float32) / np.float32(32768)
    (found,) = compute([samples], PRESETS["librosa"])
    assert found.shape == recorded["mfcc"].shape
    assert np.abs(found - recorded["mfcc"]).max() < 5e-3, str(recorded["versions"])


def test_the_librosa_preset_equals_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    samples = [make_signal(length, 22_050, seed=length) for length in (3_000, 5_000, 20_000)]
    for one, found in zip(samples, compute(samples, PRESETS["librosa"]), strict=True):
        expected = librosa.feature.mfcc(y=one).T
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 5e-3


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_dali_cuts_the_frames_that_the_formula_counts(data: st.DataObject) -> None:
    window = data.draw(st.integers(2, 300), "window")
    hop = data.draw(st.integers(1, 400), "hop")
    by_frame = data.draw(st.booleans(), "by_frame")
    centered = not by_frame and data.draw(st.booleans(), "centered")
    shortest = 1 if centered else window
    lengths = data.draw(st.lists(st.integers(shortest, 2_000), min_size=1, max_size=12), "lengths")
    rate = data.draw(st.sampled_from([4_000, 11_025, 16_000, 44_100]), "rate")
    chosen = FeatureSettings(
        kind="log-power",
        sample_rate=rate,
        window=window / rate,
        hop=hop / rate,
        centered=centered,
        remove_dc=by_frame,
        window_function="povey" if by_frame else "hamming",
        n_fft=512,
    )
    timing = FrameTiming(rate, window, hop, centered)
    assert chosen.timing == timing
    found = compute([np.ones(length, np.float32) for length in lengths], chosen)
    assert [len(frames) for frames in found] == [timing.frame_count(length) for length in lengths]


def test_a_click_is_in_the_frames_around_it() -> None:
    """What is computed frame by frame lies where the spectrogram of the whole has it."""
    samples = np.zeros(4_000, np.float32)
    samples[2_000] = 0.5
    for preset in ("course", "kaldi"):
        chosen = FeatureSettings.of(preset, kind="log-power", window=0.02, hop=0.0075)
        (found,) = compute([samples], chosen)
        timing = chosen.timing
        holds = [t * timing.hop <= 2_000 < t * timing.hop + timing.window for t in range(len(found))]
        loud = found.max(axis=1) > found.min() + 1
        assert np.flatnonzero(loud).tolist() == np.flatnonzero(holds).tolist()
