"""The picture of a confusion matrix."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.errors import printable
from dali_asr.inventory import ALIASES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from dali_asr.inference.evaluate import Evaluation

# The symbols of ARPAbet by manner of articulation; vowels from front to back, diphthongs last.
PHONETIC_CLASSES = {
    "silence": ("[SIL]",),
    "stops": ("P", "B", "T", "D", "K", "G"),
    "affricates": ("CH", "JH"),
    "fricatives": ("F", "V", "TH", "DH", "S", "Z", "SH", "ZH", "HH"),
    "nasals": ("M", "N", "NG"),
    "approximants": ("L", "R", "W", "Y"),
    "vowels": ("IY", "IH", "EH", "AE", "AH", "ER", "AA", "AO", "UH", "UW", "EY", "AY", "OY", "AW", "OW"),
    "markers": ("[SOS]", "[EOS]"),
}
_PLACES = {s: (name, at) for at, (name, s) in enumerate((n, s) for n, of in PHONETIC_CLASSES.items() for s in of)}
_MAX_NAMED = 80  # symbols whose names are legible beside the picture
_MAX_DRAWN = 200  # symbols whose cells are
_LEFT, _BELOW = 1.4, 0.8  # inches beside the matrix
_LINE = "#8a8a8a"


def draw_confusion(evaluation: Evaluation) -> bytes:
    """Draw the confusion matrix as PNG: of each true symbol, the fraction of its frames per predicted symbol.

    Symbols of ARPAbet are ordered by phonetic class, others as in the inventory. Up to 80 symbols are all drawn and
    named, with their numbers of frames; rows of symbols without frames are hatched. Of more, only those that occur are
    drawn, and of those the 200 most frequent.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    confusion, symbols = evaluation.scores.confusion, evaluation.inventory.symbols
    frequency = confusion.true_counts + confusion.predicted_counts
    occurring = np.flatnonzero(frequency)
    chosen = np.arange(len(symbols))
    if len(symbols) > _MAX_NAMED:
        chosen = np.sort(occurring[np.argsort(-frequency[occurring], kind="stable")][:_MAX_DRAWN])
    order = np.array(phonetic_order([symbols[label] for label in chosen]), dtype=np.int64)
    shown = chosen[order]
    frames = confusion.true_counts[shown]
    fractions = confusion.dense(chosen)[np.ix_(order, order)] / np.maximum(frames[:, None], 1)

    size = min(max(3.0, 0.2 * len(shown)), 14)  # inches
    figure = Figure(figsize=(size + 2 * _LEFT, size + 2 * _BELOW))
    FigureCanvasAgg(figure)
    width, height = figure.get_size_inches()
    axes = figure.add_axes((_LEFT / width, _BELOW / height, size / width, size / height))
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    image = axes.imshow(np.where(frames[:, None] > 0, fractions, np.nan), cmap="magma_r", vmin=0, vmax=1)
    named = len(shown) <= _MAX_NAMED
    if named:
        _name_symbols(axes, [symbols[label] for label in shown], frames)
    else:
        axes.set(xticks=[], yticks=[])
    beside = 0.75 if named else 0.15
    scale = figure.add_axes(((_LEFT + size + beside) / width, _BELOW / height, 0.16 / width, size / height))
    figure.colorbar(image, cax=scale, label="fraction of the true symbol's frames")
    part = f", the {len(shown)} most frequent of {len(occurring):,} symbols" if len(shown) < len(occurring) else ""
    axes.set_title(
        f"{evaluation.partition}: frame accuracy {evaluation.scores.accuracy:.2%}{part}",
        fontsize=10,
        pad=20 if named else 6,
        parse_math=False,
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120, bbox_inches="tight", pad_inches=0.12)
    return picture.getvalue()


def phonetic_order(symbols: Sequence[str]) -> list[int]:
    """Return the positions of symbols by phonetic class, or as they are if one of them is not of ARPAbet."""
    if not _are_phones(symbols):
        return list(range(len(symbols)))
    return sorted(range(len(symbols)), key=lambda at: _PLACES[_plain(symbols[at])][1])


def _plain(symbol: str) -> str:
    return ALIASES.get(symbol, symbol)


def _are_phones(symbols: Sequence[str]) -> bool:
    return all(_plain(symbol) in _PLACES for symbol in symbols)


def _name_symbols(axes: Axes, names: Sequence[str], frames: NDArray[np.int64]) -> None:
    """Name rows and columns, count the frames of each row, hatch the rows without any, mark the classes."""
    places = range(len(names))
    texts = [printable(name).replace("$", r"\$") for name in names]
    axes.set_xticks(places, texts, rotation=90, fontsize=7)
    axes.set_yticks(places, texts, fontsize=7)
    side = axes.get_yaxis_transform()  # x as a fraction of the matrix, y in rows
    offset: dict[str, Any] = {"xycoords": side, "textcoords": "offset points", "fontsize": 7, "annotation_clip": False}
    for row, count in enumerate(frames.tolist()):
        axes.annotate(f"{count:,}", (1, row), (44, 0), ha="right", va="center", **offset)
    axes.annotate("frames", (1, -0.5), (44, 5), ha="right", va="bottom", **offset)
    absent = np.flatnonzero(frames == 0)
    axes.barh(absent, len(names), height=1, left=-0.5, facecolor="none", edgecolor="#b5b5b5", hatch="////", linewidth=0)
    if len(absent):
        axes.annotate("hatched: no frames", (0, -0.5), (0, 5), ha="left", va="bottom", color="#777777", **offset)
    if _are_phones(names):
        _mark_classes(axes, [_PLACES[_plain(name)][0] for name in names], offset)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _mark_classes(axes: Axes, classes: Sequence[str], offset: dict[str, Any]) -> None:
    """Draw lines between classes, and name each beside its rows."""
    starts = [at for at, name in enumerate(classes) if at == 0 or name != classes[at - 1]]
    for first, after in pairwise([*starts, len(classes)]):
        if first:
            axes.axhline(first - 0.5, color=_LINE, linewidth=0.7)
            axes.axvline(first - 0.5, color=_LINE, linewidth=0.7)
        middle = (first + after - 1) / 2
        axes.annotate(classes[first], (0, middle), (-38, 0), ha="right", va="center", color="#555555", **offset)
    axes.set_ylabel("true", labelpad=62)  # beyond the classes
