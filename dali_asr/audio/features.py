"""Mel-frequency cepstral coefficients (MFCC) by DALI's audio operators.

Shape letters: `S` samples of a recording, `T` frames, `D` coefficients per frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW_SECONDS = 0.025
STEP_SECONDS = 0.010
COEFFICIENTS = 28
_PREEMPHASIS = 0.97
_MEL_BANDS = 40
_MIN_FREQUENCY, _MAX_FREQUENCY = 20.0, 8000.0  # Hz
_MIN_DECIBELS = -100.0


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
    window, step = frame_samples(sample_rate)
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None)
    with pipeline:
        audio = fn.external_source(lambda _: [samples], device="cpu", batch=True)
        spectrum = fn.spectrogram(
            fn.preemphasis_filter(audio, preemph_coeff=_PREEMPHASIS),
            nfft=1 << (window - 1).bit_length(),
            window_length=window,
            window_step=step,
            center_windows=False,
        )
        mel = fn.mel_filter_bank(
            spectrum,
            sample_rate=sample_rate,
            nfilter=_MEL_BANDS,
            freq_low=_MIN_FREQUENCY,
            freq_high=min(_MAX_FREQUENCY, sample_rate / 2),
            mel_formula="htk",
            normalize=False,
        )
        decibels = fn.to_decibels(mel, multiplier=10.0, reference=1.0, cutoff_db=_MIN_DECIBELS)
        cepstra = fn.mfcc(decibels, axis=0, dct_type=2, n_mfcc=coefficients, normalize=True)
        pipeline.set_outputs(fn.cast(fn.transpose(cepstra, perm=[1, 0]), dtype=types.FLOAT))
    pipeline.build()
    (output,) = pipeline.run()
    return np.array(output[0])


def frame_samples(sample_rate: int) -> tuple[int, int]:
    """Return the samples per frame and the samples from one frame to the next."""
    return round(WINDOW_SECONDS * sample_rate), round(STEP_SECONDS * sample_rate)
