"""Alignments of Kaldi: CTM lines with times, or a phone for each frame.

A frame of 10 ms belongs to the phone whose time, rounded to frames, covers it. Frames without a phone have no label.

Shape letters: `T` frames of an utterance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.corpus.layouts.ctm import ctm_segment, without_position
from dali_asr.corpus.layouts.symbols import text_labels
from dali_asr.corpus.partition import FRAME_PERIOD
from dali_asr.errors import DataError
from dali_asr.segments import NO_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dali_asr.corpus.layouts.lines import Lines
    from dali_asr.inventory import Inventory

_MAX_BEYOND = 3  # frames; features end up to three frames before the recording, whose last window is cut off


@dataclass(frozen=True)
class Alignment:
    """The alignment of an utterance.

    Attributes:
        lines: where it is; None if the utterance has none, so that no frame has a label.
        timed: whether these are CTM lines.
        phones: phones by their numbers, as texts.
    """

    lines: Lines | None = None
    timed: bool = False
    phones: Mapping[str, str] = field(default_factory=dict)

    def labels(self, length: int, inventory: Inventory, fold: Mapping[str, str] | None) -> NDArray[np.int64]:
        """Read the labels `[T]`, −100 where a frame has none; arguments and errors as in `SourceUtterance.labels`."""
        if self.lines is None:
            return np.full(length, NO_LABEL, np.int64)
        rows = self.lines.read()
        if self.timed:
            return self._timed(rows, length, inventory, fold)
        tokens = [token for row in rows for token in row]
        if len(tokens) != length:
            raise DataError(f"{self.lines.where}: {len(tokens)} phones for {length} frames; write one for each frame")
        return self._encode(tokens, inventory, fold)

    def _timed(
        self, rows: Sequence[Sequence[str]], length: int, inventory: Inventory, fold: Mapping[str, str] | None
    ) -> NDArray[np.int64]:
        assert self.lines is not None
        spans = [
            _frames(f"{self.lines.path}, line {number}", row) for number, row in enumerate(rows, self.lines.number)
        ]
        encoded = self._encode([row[3] for row in rows], inventory, fold)
        labels = np.full(length, NO_LABEL, np.int64)
        for number, ((first, end), label) in enumerate(zip(spans, encoded, strict=True), self.lines.number):
            where = f"{self.lines.path}, line {number}"
            if end > length + _MAX_BEYOND:
                raise DataError(
                    f"{where}: ends at frame {end} of {length}; give the alignment of these features, 10 ms per frame"
                )
            if (labels[first:end] != NO_LABEL).any():
                raise DataError(f"{where}: overlaps a phone before it; repair the alignment")
            labels[first:end] = label
        return labels

    def _encode(self, tokens: Sequence[str], inventory: Inventory, fold: Mapping[str, str] | None) -> NDArray[np.int64]:
        assert self.lines is not None
        known = set(inventory.symbols) | set(fold or ())
        symbol_of = {token: without_position(self.phones.get(token, token), known) for token in set(tokens)}
        symbols = [symbol_of[token] for token in tokens]
        labels = np.full(len(symbols), NO_LABEL, np.int64)
        present = np.array([symbol != "<eps>" for symbol in symbols], bool)
        if present.any():
            named = [symbol for symbol in symbols if symbol != "<eps>"]
            labels[present] = text_labels(self.lines.where, named, inventory, fold)
        return labels


def _frames(where: str, row: Sequence[str]) -> tuple[int, int]:
    """Return the frames from and up to which a CTM line lasts."""
    segment = ctm_segment(where, row)
    return round(segment.start / FRAME_PERIOD), round(segment.end / FRAME_PERIOD)
