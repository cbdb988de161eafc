"""MFCC by DALI, against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.fft import dct

from dali_asr.audio.features import demo_settings, mfcc


def reference(samples: np.ndarray, rate: int, coefficients: int) -> np.ndarray:
    """Return the MFCC `[T, D]` of samples `[S]`, in float64."""
    timing = demo_settings(rate).timing
    window, step = timing.window, timing.hop
    samples = samples.astype(np.float64)
    emphasized = samples - 0.97 * np.concatenate([samples[:1], samples[:-1]])
    frames = np.lib.stride_tricks.sliding_window_view(emphasized, window)[::step]
    hann = 0.5 * (1 - np.cos(2 * np.pi * (np.arange(window) + 0.5) / window))
    size = 1 << (window - 1).bit_length()
    power = np.abs(np.fft.rfft(frames * hann, size)) ** 2

    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return 2595 * np.log10(1 + np.asarray(hertz) / 700)

    edges = np.linspace(mel(20.0), mel(min(8000.0, rate / 2)), 42)
    at = mel(np.arange(size // 2 + 1) * rate / size)
    rising = (at - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - at) / (edges[2:] - edges[1:-1])[:, None]
    bands = power @ np.clip(np.minimum(rising, falling), 0, None).T
    decibels: np.ndarray = dct(10 * np.log10(np.maximum(bands, 1e-10)), type=2, norm="ortho")
    return decibels[:, :coefficients]


@pytest.mark.parametrize(("rate", "coefficients"), [(16_000, 28), (16_000, 13), (8_000, 28), (44_100, 40)])
def test_mfcc_equal_a_plain_computation(rate: int, coefficients: int) -> None:
    rng = np.random.default_rng(rate)
    samples = (0.1 * rng.standard_normal(rate)).astype(np.float32)
    found = mfcc(samples, rate, coefficients)
    expected = reference(samples, rate, coefficients)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 0.2, "dB"
