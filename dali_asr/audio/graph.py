"""The DALI graph from samples to features: one for all settings, on the CPU and on a GPU.

    samples [S] ─▶ pre-emphasis ─▶ spectrogram ─▶ mel bands ─▶ logarithm ─▶ DCT ─▶ frames [T, D]

Shape letters: `S` samples, `T` frames, `N` samples per frame, `F` bins of a spectrum, `M` mel bands, `D` features.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dali_math

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from dali_asr.audio.settings import FeatureSettings


def frames_of(samples: Any, settings: FeatureSettings, device: str, loudest: Any = None) -> tuple[Any, Any]:
    """Add the operators to a pipeline that is being defined.

    Args:
        samples: node of float32 `[S]` in [-1, 1], at least one frame of them.
        settings: what to compute.
        device: `cpu` or `gpu`, where the samples are.
        loudest: node of a number: logarithms of a part of a recording are compared with that of the whole; None if the
            samples are whole recordings.

    Returns:
        Nodes of the frames, float32 `[T, D]`, and of the largest logarithm of the samples.
    """
    timing, energy = settings.timing, None
    if settings.remove_dc:
        cut = _cut_frames(samples, timing.window, timing.hop)
        cut = cut - fn.reductions.mean(cut, axes=1, keep_dims=True)
        energy = fn.reductions.mean_square(cut, axes=1, keep_dims=True) * timing.window
        samples = fn.reshape(cut, shape=[-1])
    if settings.preemphasis:  # of frames too: only their first samples see others, and the window is 0 there
        border = "zero" if settings.preemphasis_start == "zero" else "clamp"
        samples = fn.preemphasis_filter(samples, preemph_coeff=settings.preemphasis, border=border)
    spectrum = fn.spectrogram(
        samples,
        nfft=settings.n_fft,
        window_length=timing.window,
        window_step=timing.window if settings.remove_dc else timing.hop,
        center_windows=settings.centered,
        reflect_padding=False,
        **_window(settings),
    )
    bands = spectrum if settings.kind == "log-power" else _mel_bands(spectrum, settings, device)
    logs = _logarithm(bands, settings)
    largest = fn.reductions.max(logs)
    if settings.top_decibels is not None:
        reference = largest if loudest is None else loudest
        logs = dali_math.max(logs, reference - settings.top_decibels)
    if settings.kind == "mfcc":
        logs = _cepstra(logs, settings, device)
    frames = fn.cast(fn.transpose(logs, perm=[1, 0]), dtype=types.FLOAT)
    if energy is not None and settings.kind == "mfcc":
        floored = dali_math.max(energy * settings.sample_scale**2, settings.log_floor)
        frames = fn.cat(_ln(floored, settings), frames[:, 1:], axis=1)
    return frames, largest


def window_samples(settings: FeatureSettings) -> NDArray[np.float64] | None:
    """Return the window function, `[N]`; None for DALI's own."""
    length = settings.timing.window
    angle = 2 * np.pi * np.arange(length)
    symmetric = angle / max(length - 1, 1)
    if settings.window_function == "hamming":
        return np.asarray(0.54 - 0.46 * np.cos(symmetric))
    if settings.window_function == "povey":
        return np.asarray((0.5 - 0.5 * np.cos(symmetric)) ** 0.85)
    if settings.window_function == "hann":
        return np.asarray(0.5 - 0.5 * np.cos(angle / length))
    return None


def _window(settings: FeatureSettings) -> dict[str, Any]:
    """Return the window as an argument; the scales of samples and spectrum are factors of it, which cost nothing."""
    window = window_samples(settings)
    scale = settings.sample_scale / (math.sqrt(settings.n_fft) if settings.power_per_bin else 1.0)
    if window is None:
        if scale == 1:
            return {}
        window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(settings.timing.window) + 0.5) / settings.timing.window)
    return {"window_fn": (window * scale).tolist()}


def _cut_frames(samples: Any, window: int, hop: int) -> Any:
    """Cut samples into overlapping frames `[T, N]`: rows of one hop, the rows after them, and so on."""
    frames = 1 + (samples.shape()[0] - window) // hop
    whole, rest = divmod(window, hop)
    rows = frames + (whole if rest else whole - 1)
    padded = fn.slice(
        samples, start=0, shape=fn.cast(rows * hop, dtype=types.INT32), axes=[0], out_of_bounds_policy="pad"
    )
    table = fn.reshape(padded, shape=[-1, hop])
    parts = [table[at : frames + at] for at in range(whole)]
    if rest:
        parts.append(table[whole : frames + whole, :rest])
    return fn.cat(*parts, axis=1) if len(parts) > 1 else parts[0]


def _mel_bands(spectrum: Any, settings: FeatureSettings, device: str) -> Any:
    """Return the energies of mel bands `[M, T]` of a spectrum `[F, T]`."""
    common: dict[str, Any] = {
        "sample_rate": settings.sample_rate,
        "mel_formula": settings.mel_scale,
        "freq_high": settings.highest_frequency,
    }
    low, bands = settings.min_frequency, settings.mel_bands
    if settings.mel_triangles == "hertz":
        return fn.mel_filter_bank(spectrum, nfilter=bands, freq_low=low, normalize=settings.mel_area, **common)
    # The triangles of DALI's bands are straight on the scale of frequencies. Weights of the spectrum's bins bend them:
    # one set those of every second band, which do not overlap, another those between.
    found = []
    for weights, chosen in zip(_bent(settings), (1, 0), strict=True):
        weighted = spectrum * types.Constant(weights.reshape(-1, 1), device=device)
        every_second = (np.arange(bands) % 2 != chosen).astype(np.float32).reshape(-1, 1)
        energies = fn.mel_filter_bank(weighted, nfilter=bands, freq_low=low, normalize=settings.mel_area, **common)
        found.append(energies * types.Constant(every_second, device=device))
    return found[0] + found[1]


def _bent(settings: FeatureSettings) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weights of bins, `[F]`, with which triangles straight in Hz become straight in mel.

    Between two edges, one band rises and the one before it falls. The first weights are for rising bands between edges
    0 and 1, 2 and 3, and so on, and falling ones between the others, which makes whole bands 0, 2, 4, ...; the second
    weights are for bands 1, 3, 5, ...
    """
    bins = np.arange(settings.n_fft // 2 + 1) * settings.sample_rate / settings.n_fft
    mels = np.linspace(_mel(settings.min_frequency), _mel(settings.highest_frequency), settings.mel_bands + 2)
    edges = _hertz(mels)
    at = np.clip(np.searchsorted(edges, bins, side="right") - 1, 0, settings.mel_bands)
    straight = np.clip((bins - edges[at]) / (edges[at + 1] - edges[at]), 0, 1)
    wanted = np.clip((_mel(bins) - mels[at]) / (mels[at + 1] - mels[at]), 0, 1)
    rising = np.divide(wanted, straight, out=np.zeros_like(bins), where=straight > 0)
    falling = np.divide(1 - wanted, 1 - straight, out=np.zeros_like(bins), where=straight < 1)
    even = at % 2 == 0
    first, second = np.where(even, rising, falling), np.where(even, falling, rising)
    return first.astype(np.float32), second.astype(np.float32)


def _mel(hertz: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(2595 * np.log10(1 + np.asarray(hertz) / 700))


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


def _logarithm(bands: Any, settings: FeatureSettings) -> Any:
    factor = 10.0 if settings.log == "decibels" else math.log(10)
    floor = factor * math.log10(settings.log_floor)
    return fn.to_decibels(bands, multiplier=factor, reference=1.0, cutoff_db=floor)


def _ln(energy: Any, settings: FeatureSettings) -> Any:
    return dali_math.log10(energy) * 10.0 if settings.log == "decibels" else dali_math.log(energy)


def _cepstra(logs: Any, settings: FeatureSettings, device: str) -> Any:
    cepstra = fn.mfcc(logs, axis=0, dct_type=2, n_mfcc=settings.coefficients, normalize=True)
    if not settings.lifter:
        return cepstra
    at = np.arange(settings.coefficients)
    lifter = 1 + settings.lifter / 2 * np.sin(np.pi * at / settings.lifter)
    return cepstra * types.Constant(lifter.astype(np.float32).reshape(-1, 1), device=device)
