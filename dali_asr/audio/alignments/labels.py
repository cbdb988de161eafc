"""Segments of an alignment to labels of frames: checked, folded, and silence in the gaps.

Shape letters: `T` frames of a recording.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.corpus.layouts.ctm import without_position
from dali_asr.errors import DaliAsrWarning, DataError, SymbolError, brief
from dali_asr.segments import covering_segments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.inventory import Inventory
    from dali_asr.segments import FrameTiming, Segment

_MAX_OVERLAP = 0.001  # seconds; writers round times
_MIN_SHARE = 0.8  # of the recording that an alignment in a wrong unit covers, if that unit is named
_MAX_SHORTER = 0.13  # of the recording: an alignment that ends so early is checked for a wrong unit
_UNITS = {1: "seconds", 100: "frames of 10 ms", 1000: "milliseconds", 1_000_000: "microseconds"} | {
    10_000_000: "units of 100 ns"
}
_SAMPLE_RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True)
class LabelRule:
    """How symbols of alignments become labels.

    Attributes:
        inventory: the label set.
        silence: symbol of gaps between segments.
        fold: the symbols of the inventory that others stand for.
    """

    inventory: Inventory
    silence: str
    fold: Mapping[str, str]

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset((*self.inventory.symbols, *self.fold))

    def target(self, symbol: str) -> str | None:
        """Return the symbol of the inventory that a symbol stands for; None if there is none."""
        plain = without_position(symbol, self._known)
        target = self.fold.get(plain, plain)
        return target if target in self.inventory.symbols else None

    def check(self, path: Path, segments: Sequence[Segment]) -> None:
        """Check that all symbols are known.

        Args:
            path: the alignment, for the error.
            segments: its segments.

        Raises:
            SymbolError: a symbol is unknown.
        """
        unknown = {symbol for symbol in {s.label for s in segments} if self.target(symbol) is None}
        for segment in segments:
            if segment.label in unknown:
                has_tiers = path.suffix.lower() == ".textgrid"
                remedy = (
                    "fold it by fold=FILE, give its inventory by inventory=FILE, or, if these are words, name the tier "
                    "of phones (tier=NAME)"
                    if has_tiers
                    else "fold it by fold=FILE, or give its inventory by inventory=FILE"
                )
                raise SymbolError(
                    f"{path}: unknown symbol {brief(segment.label)} at {segment.start:.3f} s"
                    f"{self.inventory.nearest(segment.label)}; {remedy}"
                )

    def labels(self, path: Path, segments: Sequence[Segment], timing: FrameTiming, frames: int) -> NDArray[np.int64]:
        """Return the label of each frame `[T]`: that of the segment in which its center lies; silence in gaps.

        Args:
            path: the alignment, for errors.
            segments: in order, see `check_order`.
            timing: of the frames.
            frames: number of frames, T.

        Raises:
            SymbolError: a symbol is unknown.
        """
        self.check(path, segments)
        targets = [*(self.target(segment.label) for segment in segments), self.silence]
        labels = np.array([self.inventory.symbols.index(target or "") for target in targets], np.int64)
        return labels[covering_segments(segments, timing, frames)]  # −1 is the last one, silence


def check_order(path: Path, segments: Sequence[Segment]) -> None:
    """Check that segments follow one another.

    Args:
        path: the alignment, for errors.
        segments: in the order of the file.

    Raises:
        DataError: there are none, or one of them ends before it starts or overlaps the one before it.
    """
    if not segments:
        raise DataError(f"{path}: holds no segments; remove it, or align its recording")
    for segment in segments:
        if not 0 <= segment.start <= segment.end:
            raise DataError(
                f"{path}: {brief(segment.label)} lasts from {segment.start:.3f} to {segment.end:.3f} s; repair the file"
            )
    for before, after in pairwise(segments):
        if after.start < before.end - _MAX_OVERLAP:
            raise DataError(
                f"{path}: {brief(after.label)} at {after.start:.3f} s overlaps {brief(before.label)}, which ends at "
                f"{before.end:.3f} s; repair the file"
            )


def check_extent(path: Path, segments: Sequence[Segment], duration: float, timing: FrameTiming, rate: float) -> None:
    """Check that segments end with their recording.

    Args:
        path: the alignment, for errors.
        segments: at least one.
        duration: of the recording, in seconds.
        timing: of the frames; an alignment may end up to a window after the recording.
        rate: units per second of the file: 1 for seconds.

    Raises:
        DataError: they end after the recording, or are in another unit.
    """
    end = max(segment.end for segment in segments)
    beyond = end > duration + timing.window / timing.sample_rate
    unit = _other_unit(end, duration, rate) if beyond or end < duration * _MAX_SHORTER else None
    if unit or beyond:
        remedy = (
            f"this looks like {unit}, not {_unit(rate)}; convert it" if unit else "give the alignment of this recording"
        )
        raise DataError(f"{path}: ends at {end:.3f} s, its recording at {duration:.3f} s; {remedy}")
    if end < duration / 2:
        warnings.warn(
            f"{path}: ends at {end:.3f} s, its recording at {duration:.3f} s; the rest is labelled silence",
            DaliAsrWarning,
            stacklevel=2,
        )


def _unit(rate: float) -> str:
    return _UNITS.get(int(rate), f"samples at {rate:g} Hz")


def _other_unit(end: float, duration: float, rate: float) -> str | None:
    """Return the unit in which an alignment would cover a recording; None if there is none."""
    apparent = end * rate / duration  # units per second, if the alignment ends with the recording
    candidates = (*_UNITS, *_SAMPLE_RATES)
    fitting = [r for r in candidates if r != rate and _MIN_SHARE * r <= apparent <= 1.02 * r]
    return _unit(min(fitting, key=lambda r: r / apparent)) if fitting else None
