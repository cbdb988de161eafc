"""Signals to compute features of, and a plain computation of features in float64.

`python -m tests.audio.signals` writes anew what librosa computes of one of them, and with which version.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.fft import dct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.audio.settings import FeatureSettings

RECORDED = Path(__file__).with_name("librosa_mfcc.npz")


def make_signal(samples: int, rate: int = 16_000, seed: int = 0) -> NDArray[np.float32]:
    """Return a glide with overtones in noise, which fade in and out, `[S]`, in steps of 16-bit integers."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / rate
    phase = 2 * np.pi * (120 + 40 * np.sin(3 * time)) * time
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    loudness = 10 ** (-1.5 + 1.3 * np.sin(2 * np.pi * 2.3 * time + seed))
    mixed = 0.02 + loudness * (0.2 * voice + 0.1 * rng.standard_normal(samples)) * 0.5
    return (np.round(np.clip(mixed, -1, 1) * 32767) / 32768).astype(np.float32)


def reference(samples: NDArray[np.float32], settings: FeatureSettings) -> NDArray[np.float64]:
    """Return the features `[T, D]` of samples, for bands that are straight in Hz on HTK's scale."""
    window, hop = settings.timing.window, settings.timing.hop
    x = samples.astype(np.float64) * settings.sample_scale
    before = 0.0 if settings.preemphasis_start == "zero" else x[0]
    x = x - settings.preemphasis * np.concatenate([[before], x[:-1]])
    n = np.arange(window)
    shape = {
        "hamming": 0.54 - 0.46 * np.cos(2 * np.pi * n / (window - 1)),
        "hann-midpoint": 0.5 - 0.5 * np.cos(2 * np.pi * (n + 0.5) / window),
    }[settings.window_function]
    frames = np.lib.stride_tricks.sliding_window_view(x, window)[::hop] * shape
    power = np.abs(np.fft.rfft(frames, settings.n_fft)) ** 2
    if settings.power_per_bin:
        power /= settings.n_fft
    if settings.kind != "log-power":
        power = power @ _bands(settings).T
    logs: Any = np.log(np.maximum(power, settings.log_floor))
    if settings.log == "decibels":
        logs = logs * 10 / np.log(10)
    if settings.kind == "mfcc":
        logs = dct(logs, type=2, norm="ortho")[:, : settings.coefficients]
    return np.asarray(logs)


def _bands(settings: FeatureSettings) -> NDArray[np.float64]:
    """Return the weights of bins in bands, `[M, F]`."""
    high = settings.max_frequency or settings.sample_rate / 2
    low_mel, high_mel = 2595 * np.log10(1 + np.array([settings.min_frequency, high]) / 700)
    edges = 700 * (10 ** (np.linspace(low_mel, high_mel, settings.mel_bands + 2) / 2595) - 1)
    bins = np.arange(settings.n_fft // 2 + 1) * settings.sample_rate / settings.n_fft
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None))


def main() -> None:
    """Record what librosa computes."""
    import librosa

    samples = make_signal(9_000, 22_050)
    np.savez_compressed(
        RECORDED,
        samples=np.round(samples * 32768).astype(np.int16),
        mfcc=librosa.feature.mfcc(y=samples).T.astype(np.float32),
        versions=f"librosa {version('librosa')}, numpy {version('numpy')}",
    )


if __name__ == "__main__":
    main()
