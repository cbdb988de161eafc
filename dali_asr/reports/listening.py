"""The page of a predicted utterance, to look at and to listen to: `predict --format html`.

Spectrogram, posteriors and segments stand below one another on one axis of time; the sound is in the page.

Shape letters: `S` samples, `T` frames, `F` frequencies, `C` labels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.audio.recordings import read_blocks, read_header
from dali_asr.errors import DataError, printable
from dali_asr.inference.files import original_sound
from dali_asr.reports.page import render
from dali_asr.reports.png import grey_png
from dali_asr.reports.sounds import data_address, flac_address, without_remedy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.inference.files import Sound
    from dali_asr.inference.format_names import Format
    from dali_asr.inference.predict import LabelledUtterance, Labelling
    from dali_asr.segments import FrameTiming

_TILE = 3000  # frames of a picture; browsers limit its width
_MAX_FREQUENCY = 8_000.0  # Hz
_ROWS = 128  # of the spectrogram
_RANGE = 7.0  # of its decimal logarithms of power, from the loudest down
_LEVEL = 4  # of 256, in which shades are counted, so that pictures are small
_TICKS = (0.1, 0.5, 1.0, 5.0)  # seconds from one mark to the next


class UtterancePages:
    """Makes a page of each utterance, an `UtteranceEncoder`.

    An utterance of a corpus has spectrogram and sound if the recording that it was prepared from is still there and as
    long as it was.
    """

    def __init__(self) -> None:
        self._silent: list[str] = []  # why pages are without sound

    @property
    def remark(self) -> str:
        """A line about the pages that lack spectrogram and sound; empty if there are none."""
        if not self._silent:
            return ""
        pages = "1 page lacks" if len(self._silent) == 1 else f"{len(self._silent):,} pages lack"
        return f"{self._silent[0]}; {pages} spectrogram and sound: name the recordings instead"

    def __call__(self, utterance: LabelledUtterance, labelling: Labelling, form: Format = "html") -> bytes:  # noqa: ARG002
        """Return a page that refers to nothing outside of itself.

        Args:
            utterance: with posteriors.
            labelling: that it belongs to.
            form: always `html`.

        Raises:
            DataError: a recording that was named cannot be read any more.
        """
        if not utterance.sound:
            try:
                return _page(replace(utterance, sound=_original(utterance, labelling)), labelling)
            except DataError as error:
                self._silent.append(without_remedy(error))
        return _page(utterance, labelling)


def _original(utterance: LabelledUtterance, labelling: Labelling) -> Sound:
    """Return the recording that an utterance of a corpus was prepared from.

    Raises:
        DataError: it is unknown, missing, or of another length now.
    """
    if utterance.origin is None:
        raise DataError(f"{utterance.name}: its recording is not known")
    return original_sound(utterance.origin, len(utterance.labels), labelling.timing)


def _page(utterance: LabelledUtterance, labelling: Labelling) -> bytes:
    assert utterance.posteriors is not None
    timing, frames = labelling.timing, len(utterance.labels)
    segments = utterance.segments(labelling.inventory, timing)
    duration = segments[-1].end
    edges = timing.edges(frames)
    shown = np.unique(utterance.labels)
    posteriors = np.round(255 * (1 - utterance.posteriors[:, shown])).astype(np.uint8)
    sound, spectrogram, top = None, None, 0.0
    if utterance.sound:
        samples, rate = _read(utterance.sound.path)
        sound, top = flac_address(samples, rate), min(_MAX_FREQUENCY, rate / 2) / 1000
        spectrogram = _tiles(_shades(_log_power(samples, rate, timing, frames)), edges, duration)
    page = render(
        "listening.html",
        title=printable(utterance.name),
        duration=duration,
        decode=labelling.decode,
        segments=[
            {
                "label": printable(one.label),
                "start": one.start,
                "end": one.end,
                "confidence": one.confidence,
                "left": 100 * one.start / duration,
                "width": 100 * (one.end - one.start) / duration,
            }
            for one in segments
        ],
        symbols=[printable(labelling.inventory.symbols[label]) for label in shown],
        ticks=_ticks(duration),
        spectrogram=spectrogram,
        top=top,
        posteriors=_tiles(posteriors.T, edges, duration),
        sound=sound,
    )
    return page.encode("utf-8", errors="xmlcharrefreplace")


def _read(path: Path) -> tuple[NDArray[np.float32], int]:
    return np.concatenate(list(read_blocks(path, 1 << 20))), read_header(path).sample_rate


def _log_power(samples: NDArray[np.float32], rate: int, timing: FrameTiming, frames: int) -> NDArray[np.float32]:
    """Return decimal logarithms of the power around the center of each frame, `[F, T]`, high frequencies first."""
    window = max(round(timing.window / timing.sample_rate * rate), 2)
    size = 1 << (window - 1).bit_length()
    bins = max(int(min(_MAX_FREQUENCY, rate / 2) / rate * size), 1)
    first = np.round(timing.centers(frames) * rate).astype(np.int64)  # in samples after half a window of zeros
    padded = np.pad(samples, (window // 2, window))
    found = []
    for start in range(0, frames, _TILE):
        rows = np.minimum(first[start : start + _TILE, None] + np.arange(window), len(padded) - 1)
        power = np.abs(np.fft.rfft(padded[rows] * np.hanning(window), size)[:, 1 : bins + 1]) ** 2
        groups = np.linspace(0, bins, min(_ROWS, bins), endpoint=False).astype(int)
        found.append(np.log10(np.maximum.reduceat(power, groups, axis=1) + 1e-12).astype(np.float32))
    logs: NDArray[np.float32] = np.concatenate(found).T[::-1]
    return logs


def _shades(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return shades of grey, the largest values black."""
    fraction = np.clip((values.max() - values) / _RANGE, 0, 1)
    shades: NDArray[np.uint8] = (np.round(fraction * (255 // _LEVEL)) * _LEVEL).astype(np.uint8)
    return shades


def _tiles(picture: NDArray[np.uint8], edges: NDArray[np.float64], duration: float) -> list[dict[str, Any]]:
    """Return a picture `[rows, T]` in parts, with the place of each in per cent of the width of the page's axis."""

    def parts() -> Iterator[dict[str, Any]]:
        for start in range(0, picture.shape[1], _TILE):
            part = picture[:, start : start + _TILE]
            left, right = edges[start], edges[start + part.shape[1]]
            yield {
                "address": data_address("image/png", grey_png(part)),
                "left": 100 * left / duration,
                "width": 100 * (right - left) / duration,
            }

    return list(parts())


def _ticks(duration: float) -> list[dict[str, Any]]:
    """Return the marks of the axis of time: at most 60 of a minute, fewer of what is longer."""
    step = next((step for step in _TICKS if duration / step <= 120), 10.0)
    return [{"left": 100 * at * step / duration, "text": f"{at * step:g}"} for at in range(int(duration / step) + 1)]
