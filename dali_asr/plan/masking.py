"""Masks: bands of features and spans of frames that are zeroed, drawn for a position or a step.

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame, `M` bands of a mask.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from dali_asr.errors import UsageError
from dali_asr.plan.philox import Stream, in_range, multiply_high, philox

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_SCOPE = 1 << 16  # added to a stream whose counter is a step instead of a position
PAIR = 8  # bits by which the number of a pair of bands stands in a stream


@dataclass(frozen=True)
class Bands:
    """How many bands of a window are zeroed, and how wide they are; both ranges inclusive and uniform.

    Attributes:
        count: fewest and most bands; (0, 0) for none.
        width: narrowest and widest, in features (frequency) or frames (time).
    """

    count: tuple[int, int]
    width: tuple[int, int]

    def __post_init__(self) -> None:
        if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in (self.count, self.width)):
            raise UsageError(f"masking: count {self.count}, width {self.width}; expected two pairs (low, high)")
        for name, (low, high), least in (("count", self.count, 0), ("width", self.width, 1)):
            if not least <= low <= high:
                raise UsageError(
                    f"masking: {name} [{low}, {high}]; expected {least} <= first <= second, both inclusive"
                )


@dataclass(frozen=True)
class Masking:
    """Masks in frequency and time, after SpecAugment (Park et al. 2019); the defaults are the notebook's widths.

    Attributes:
        frequency: bands of features.
        time: spans of frames.
        scope: `window` draws masks for every window, `batch` one set for all windows of a batch.
    """

    frequency: Bands = field(default=Bands(count=(0, 2), width=(3, 3)))
    time: Bands = field(default=Bands(count=(0, 2), width=(3, 7)))
    scope: Literal["window", "batch"] = "window"

    def __post_init__(self) -> None:
        if self.scope not in ("window", "batch"):
            raise UsageError(f"masking: scope {self.scope!r}; expected window or batch")

    def check(self, *, window: int, feature_dim: int) -> None:
        """Check that every band fits a window `[W, D]`.

        Raises:
            UsageError: one may be wider.
        """
        for name, bands, size in (("frequency", self.frequency, feature_dim), ("time", self.time, window)):
            if bands.count[1] and bands.width[1] > size:
                raise UsageError(f"masking.{name}: width up to {bands.width[1]}, a window has {size}; make it narrower")


def draw_masks(
    masking: Masking,
    counters: NDArray[np.int64],
    epoch: int,
    seed: int,
    window: int,
    feature_dim: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Draw the bands of frequency and time, each `[B, M, 2]` int32 of first and end.

    A band beyond a window's count is empty: first and end are 0.

    Args:
        masking: what to draw.
        counters: `[B]`, positions in scope `window`, steps since the first epoch in scope `batch`.
        epoch: of the positions; 0 in scope `batch`.
        seed: under 2^64.
        window: W.
        feature_dim: D.
    """
    scope = 0 if masking.scope == "window" else BATCH_SCOPE
    counts = philox(counters, epoch, seed, scope + Stream.MASK_COUNTS)
    drawn = []
    for bands, size, stream, word in (
        (masking.frequency, feature_dim, Stream.FREQUENCY, counts[0]),
        (masking.time, window, Stream.TIME, counts[1]),
    ):
        low, most = bands.count
        count = in_range(word, low, most)
        edges = np.zeros((len(counters), most, 2), np.int32)
        for band in range(most):
            if band % 2 == 0:  # four words are two bands of two draws
                words = philox(counters, epoch, seed, scope + (band // 2 << PAIR) + stream)
            draw_width, draw_first = words[2 * (band % 2)], words[2 * (band % 2) + 1]
            width = in_range(draw_width, *bands.width)
            first = multiply_high(draw_first, size - width + 1)
            drawn_here = band < count
            edges[:, band, 0] = np.where(drawn_here, first, 0)
            edges[:, band, 1] = np.where(drawn_here, first + width, 0)
        drawn.append(edges)
    return drawn[0], drawn[1]
