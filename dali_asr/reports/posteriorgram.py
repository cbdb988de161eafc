"""The picture of an utterance: its posteriors, with strips of its true and of the given labels above.

Shape letters: `T` frames shown, `R` rows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from dali_asr.corpus.partition import FRAME_PERIOD
from dali_asr.errors import printable
from dali_asr.inference.pictures import phonetic_order
from dali_asr.reports.page import render
from dali_asr.reports.png import palette_png
from dali_asr.reports.sounds import data_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dali_asr.reports.examples import Example

_MIN_POSTERIOR = 0.25  # that a symbol reaches somewhere to have a row
_MAX_ROWS = 60
_LEVELS = 32  # of shades, so that pictures stay small
_COLOR = (76, 135, 205)  # reads on light and dark
_FRAME, _LETTER = 2, 9  # pixels of a frame, and of a letter of a label
_TICK = 0.5  # seconds


def draw_posteriorgram(example: Example, symbols: Sequence[str]) -> Markup:
    """Draw the posteriors of an utterance as SVG, with strips of its true and of the given labels above.

    Rows are the symbols that occur or that reach a posterior of 0.25. The true label is outlined in each frame, and
    wrong labels are marked in the second strip.
    """
    rows = _rows(example, symbols)
    at = {label: row for row, label in enumerate(rows.tolist())}
    wrong = (example.predicted != example.true) & (example.true >= 0)
    shades = np.round(example.posteriors.T[rows] * _LEVELS).astype(np.uint8)
    frames = len(example.true)
    picture = render(
        "posteriorgram.svg",
        label=f"Posteriorgram of {printable(example.name)}, frame accuracy {example.accuracy:.1%}",
        frame=_FRAME,
        frames=frames,
        rows=[printable(symbols[label]) for label in rows],
        image=data_address("image/png", palette_png(shades, _COLOR, _LEVELS)),
        strips=[("true", _named(example.true, symbols)), ("given", _named(example.predicted, symbols))],
        wrong=[(first, end) for first, end, is_wrong in _segments(wrong.astype(np.int64)) if is_wrong],
        outlines=[(first, end, at[label]) for first, end, label in _segments(example.true) if label in at],
        ticks=[(second / FRAME_PERIOD, f"{second:g}") for second in np.arange(0, frames * FRAME_PERIOD, _TICK)],
    )
    return Markup(picture)  # noqa: S704 - the template escapes the texts


def _rows(example: Example, symbols: Sequence[str]) -> NDArray[np.int64]:
    """Return the labels that have rows, in phonetic order, `[R]`."""
    peaks = example.posteriors.max(axis=0)
    peaks[np.unique(example.true[example.true >= 0])] = 2
    shown = np.sort(np.argsort(-peaks, kind="stable")[:_MAX_ROWS])
    shown = shown[peaks[shown] >= _MIN_POSTERIOR]
    return np.asarray(shown[phonetic_order([symbols[label] for label in shown])], np.int64)


def _named(labels: NDArray[np.int64], symbols: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return first frame, end and symbol of each segment, the symbol where there is room for it."""
    named = []
    for first, end, label in _segments(labels):
        text = printable(symbols[label]) if label >= 0 else ""
        named.append((first, end, text if len(text) * _LETTER <= (end - first) * _FRAME else ""))
    return named


def _segments(labels: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Return first frame, end and label of each run of equal labels."""
    starts = np.flatnonzero(np.diff(labels, prepend=labels[0] - 1))
    return [(a, b, int(labels[a])) for a, b in pairwise([*starts.tolist(), len(labels)])]
