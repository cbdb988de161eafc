"""Masks: bands of features and spans of frames that are set to zero (Park et al. 2019, SpecAugment).

Arrays and arguments of masks always come in one order: time, then frequency.

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame, `M` bands per window.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from dali_asr.errors import UsageError
from dali_asr.plan.order import Stream, in_range, multiply_high, philox

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_SCOPE = 1 << 16  # added to a stream whose counter is a step instead of a position
PAIR_SHIFT = 8  # position of the pair's number within a stream
_PYDANTIC = {"extra": "forbid", "use_attribute_docstrings": True}  # these types are sections of the configuration


class InclusiveRange:
    """Annotation of a pair of integers, (low, high), both inclusive; pydantic applies `check` to it.

    Args:
        minimum: smallest allowed value.
    """

    def __init__(self, minimum: int) -> None:
        self._minimum = minimum

    def check(self, value: object) -> tuple[int, int]:
        """Return a value as a pair of plain integers.

        Raises:
            UsageError: not two integers in ascending order, or below the minimum.
        """
        pair = tuple(value) if isinstance(value, (tuple, list)) else ()
        if len(pair) != 2 or not all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in pair):
            raise UsageError(f"received {value!r}; expected two integers, [low, high], both inclusive")
        low, high = map(int, pair)
        if low < self._minimum:
            raise UsageError(f"received {[low, high]}; expected {self._minimum} or more")
        if low > high:
            raise UsageError(f"received {[low, high]}; the first must not exceed the second")
        return low, high

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> Any:
        from pydantic_core import core_schema  # pydantic asks for it, so it is installed

        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "integer", "minimum": self._minimum}, "minItems": 2, "maxItems": 2}


COUNT, WIDTH = InclusiveRange(0), InclusiveRange(1)


@dataclass(frozen=True)
class Bands:
    """Number and width of the bands that are masked in a window; both are drawn uniformly from inclusive ranges.

    Attributes:
        count: minimum and maximum number of bands per window; (0, 0) turns them off.
        width: minimum and maximum width of a band: in features (frequency) or in frames (time).

    Raises:
        UsageError: a range is not two integers in ascending order.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _PYDANTIC

    count: Annotated[tuple[int, int], COUNT] = (0, 2)
    """Minimum and maximum number of bands per window; [0, 0] turns them off."""
    width: Annotated[tuple[int, int], WIDTH] = (3, 3)
    """Minimum and maximum width of a band: in features (frequency) or in frames (time)."""

    def __post_init__(self) -> None:
        for name, allowed in (("count", COUNT), ("width", WIDTH)):
            try:
                allowed.check(getattr(self, name))
            except UsageError as error:
                raise UsageError(f"masking: {name}: {error}") from None


@dataclass(frozen=True)
class Masking:
    """Masks in frequency and time, drawn anew for every window or batch.

    Attributes:
        frequency: bands of features; by default up to 2, of 3 features.
        time: spans of frames; by default up to 2, of 3 to 7 frames.
        scope: `window`, each window has masks of its own; `batch`, all windows of a batch share one set.

    Raises:
        UsageError: `frequency` or `time` are not `Bands`, or there is no such scope.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _PYDANTIC

    frequency: Bands = field(default=Bands())
    """Bands of features."""
    time: Bands = field(default=Bands(width=(3, 7)))
    """Spans of frames."""
    scope: Literal["window", "batch"] = "window"
    """`window`: each window has masks of its own. `batch`: all windows of a batch share one set."""

    def __post_init__(self) -> None:
        if self.scope not in ("window", "batch"):
            raise UsageError(f"masking: scope {self.scope!r}; expected window or batch")
        for name, bands in (("frequency", self.frequency), ("time", self.time)):
            if not isinstance(bands, Bands):
                raise UsageError(
                    f"masking: {name} {bands!r}; expected Bands(count=(0, 2), width=(3, 3)), or count=(0, 0) for none"
                )

    def check_fits(self, *, window: int, feature_dim: int | None = None) -> None:
        """Check that every band fits a window `[W, D]`; D may be unknown.

        Raises:
            UsageError: a band can be wider than the window.
        """
        for name, bands, size, unit in (
            ("time", self.time, window, "frame"),
            ("frequency", self.frequency, feature_dim, "feature"),
        ):
            width = bands.width[1]
            if size is not None and bands.count[1] and width > size:
                raise UsageError(
                    f"{name} masks up to {width} wide, but a window has {size} {unit}{'' if size == 1 else 's'}; lower "
                    f"{name}.width, or set {name}.count to [0, 0] for none"
                )


def draw_masks(
    masking: Masking, counters: NDArray[np.int64], epoch: int, seed: int, window: int, feature_dim: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Draw the bands of time and frequency, each int32 `[B, M, 2]` of first and end.

    A band beyond the window's count is empty: first and end are 0.

    Args:
        masking: what to draw.
        counters: int64 `[B]`: positions in scope `window`, steps since the first epoch in scope `batch`.
        epoch: epoch of the positions; 0 in scope `batch`.
        seed: below 2^64.
        window: W.
        feature_dim: D.
    """
    scope = 0 if masking.scope == "window" else BATCH_SCOPE
    in_frequency, in_time, *_ = philox(counters, epoch, seed, scope + Stream.MASK_COUNTS)
    drawn = []
    for bands, size, stream, word in (
        (masking.time, window, Stream.TIME, in_time),
        (masking.frequency, feature_dim, Stream.FREQUENCY, in_frequency),
    ):
        count = in_range(word, *bands.count)
        edges = np.zeros((len(counters), bands.count[1], 2), np.int32)
        for band in range(bands.count[1]):
            if band % 2 == 0:  # four words serve two bands of two draws
                words = philox(counters, epoch, seed, scope + (band // 2 << PAIR_SHIFT) + stream)
            draw_width, draw_first = words[2 * (band % 2)], words[2 * (band % 2) + 1]
            width = in_range(draw_width, *bands.width)
            first = multiply_high(draw_first, size - width + 1)
            edges[:, band, 0] = np.where(band < count, first, 0)
            edges[:, band, 1] = np.where(band < count, first + width, 0)
        drawn.append(edges)
    return drawn[0], drawn[1]
