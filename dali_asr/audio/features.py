"""Mel-frequency cepstral coefficients (MFCC) of samples in memory, as the demo corpus has them.

Shape letters: `S` samples of a recording, `T` frames, `D` coefficients per frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dali_asr.audio.pipelines import compute
from dali_asr.audio.settings import FeatureSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COEFFICIENTS = 28
_MAX_FREQUENCY = 8000.0  # Hz


def mfcc(
    samples: NDArray[np.float32], sample_rate: int = 16_000, coefficients: int = COEFFICIENTS
) -> NDArray[np.float32]:
    """Return the MFCC of a recording, not normalized.

    A frame is 25 ms, every 10 ms; the first begins with the first sample, and there are no partial frames. Each is
    computed by pre-emphasis of 0.97, a Hann window, the power spectrum, 40 mel bands (HTK's scale) from 20 Hz to 8 kHz
    or half the sample rate, decibels, and a DCT-II.

    Args:
        samples: `[S]` in [-1, 1]; at least one frame of them.
        sample_rate: in Hz.
        coefficients: number of coefficients per frame, D.

    Returns:
        `[T, D]`, T = 1 + (S − window) // step.
    """
    (frames,) = compute([samples], demo_settings(sample_rate, coefficients))
    return frames


def demo_settings(sample_rate: int = 16_000, coefficients: int = COEFFICIENTS) -> FeatureSettings:
    """Return the settings of the demo corpus."""
    window = FeatureSettings(sample_rate=sample_rate, n_fft=1 << 30).timing.window
    return FeatureSettings(
        sample_rate=sample_rate,
        window_function="hann-midpoint",
        n_fft=1 << (window - 1).bit_length(),
        sample_scale=1.0,
        power_per_bin=False,
        preemphasis_start="repeat",
        max_frequency=min(_MAX_FREQUENCY, sample_rate / 2),
        log="decibels",
        log_floor=1e-10,
        coefficients=coefficients,
    )
