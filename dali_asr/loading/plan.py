"""The plan: what each step reads, as a pure function of (seed, epoch, position).

Nothing is stored and nothing is drawn from a generator with hidden state, so that any step of any epoch can be
planned alone, anywhere.

*Order* is a keyed bijection of [0, N): a Feistel network with cycle walking (Mitchell et al. 2022, "Bandwidth-Optimal
Random Shuffling for GPUs", ACM TOPC 9(1)), here the generalized one on rows x columns (Black and Rogaway 2002,
"Ciphers with Arbitrary Finite Domains"): its domain exceeds N by less than a row, where a power of two can be
twice N, so that hardly a position walks.
*Masks* are Philox 4x32-10 of the position (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3").
An integer range is taken from a 32-bit draw by multiply-high (Lemire 2019), never by floats or modulo.

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame, `M` bands of a mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from dali_asr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Words = NDArray[np.uint32]

_ROUNDS = 24  # fewer leave the permutations of five or six frames visibly uneven
# Positions that are planned together: a call costs as much for 500 as for 5,000. What is kept of them follows from
# the arguments alone.
_BLOCK = 8192
MOST_ROWS = 1 << 31  # DALI gathers rows by int32

# What a Philox stream is for: the last word of its counter.
_ORDER, _COUNTS, _FREQUENCY, _TIME = range(4)
_BATCH_SCOPE = 1 << 16


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


@dataclass(frozen=True)
class Plan:
    """What one step reads.

    Attributes:
        frames: frame numbers, `[B]` int64.
        frequency: first and end feature of each zeroed band, `[B, M, 2]` int32; M is 0 without masks.
        time: first and end frame, within the window, of each zeroed span, `[B, M, 2]` int32.
    """

    frames: NDArray[np.int64]
    frequency: NDArray[np.int32]
    time: NDArray[np.int32]


@dataclass(frozen=True)
class Planner:
    """Plans the steps of a partition.

    Attributes:
        frame_count: F, of the partition.
        batch_size: B.
        window: W.
        feature_dim: D.
        seed: of order and masks.
        shuffle: whether an epoch's order is a random permutation, else frame order.
        subset: every `subset`-th frame is read.
        drop_last: whether a last batch of fewer than B windows is dropped; where it is kept, one of a single
            window joins the batch before it, because batch norm cannot train on one.
        masking: None for no masks.

    Raises:
        UsageError: an argument out of its range, or a mask wider than the window.
    """

    frame_count: int
    batch_size: int
    window: int
    feature_dim: int
    seed: int = 0
    shuffle: bool = True
    subset: int = 1
    drop_last: bool = False
    masking: Masking | None = None

    def __post_init__(self) -> None:
        ranges = {
            "frame_count": (self.frame_count, 1, MOST_ROWS),
            "batch_size": (self.batch_size, 1, MOST_ROWS),
            "subset": (self.subset, 1, MOST_ROWS),
            "seed": (self.seed, 0, 1 << 64),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value < high:
                raise UsageError(f"loader: {name} {value}; expected {low} to {high - 1}")
        if self.masking:
            self.masking.check(window=self.window, feature_dim=self.feature_dim)

    @property
    def positions(self) -> int:
        """Windows that an epoch can read: every `subset`-th frame."""
        return -(-self.frame_count // self.subset)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        whole, rest = divmod(self.positions, self.batch_size)
        joins = rest == 1 and whole > 0
        return whole if rest == 0 or self.drop_last or joins else whole + 1

    def batch(self, step: int) -> tuple[int, int]:
        """Return the first position of a step and the one after its last."""
        first = step * self.batch_size
        end = first + self.batch_size
        if not self.drop_last and step == self.steps - 1:
            end = self.positions
        return first, end

    def plan(self, epoch: int, step: int) -> Plan:
        """Plan a step: a pure function of the planner's attributes, epoch and step."""
        return Plan(self.frames(epoch, step), *self.masks(epoch, step))

    def frames(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return a step's frame numbers, `[B]`."""
        first, end = self.batch(step)
        if not self.shuffle:
            return np.arange(first, end, dtype=np.int64) * self.subset
        blocks = [
            _order_block(block, self.positions, self.seed, epoch)[part] for block, part in _block_parts(first, end)
        ]
        return np.concatenate(blocks) * self.subset

    def masks(self, epoch: int, step: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Draw a step's bands of frequency and time, as in a `Plan`."""
        first, end = self.batch(step)
        if self.masking is None:
            nothing = np.zeros((end - first, 0, 2), np.int32)
            return nothing, nothing
        if self.masking.scope == "window":
            blocks = [
                (_masks_block(block, self.masking, epoch, self.seed, self.window, self.feature_dim), part)
                for block, part in _block_parts(first, end)
            ]
            frequency, time = (np.concatenate([bands[kind][part] for bands, part in blocks]) for kind in (0, 1))
            return frequency, time
        at = np.array([epoch * self.steps + step], np.int64)
        drawn = draw_masks(self.masking, at, 0, self.seed, self.window, self.feature_dim, stream=_BATCH_SCOPE)
        frequency, time = (np.repeat(bands, end - first, axis=0) for bands in drawn)
        return frequency, time


def _block_parts(first: int, end: int) -> Iterator[tuple[int, slice]]:
    """Yield the blocks that hold the positions from `first` to `end`, and what of each."""
    for block in range(first // _BLOCK, -(-end // _BLOCK)):
        start = block * _BLOCK
        yield block, slice(max(first - start, 0), end - start)


@lru_cache(maxsize=8)
def _order_block(block: int, count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    positions = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, count), dtype=np.int64)
    return permute(positions, count, seed, epoch)


@lru_cache(maxsize=8)
def _masks_block(
    block: int, masking: Masking, epoch: int, seed: int, window: int, feature_dim: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    positions = np.arange(block * _BLOCK, (block + 1) * _BLOCK, dtype=np.int64)
    return draw_masks(masking, positions, epoch, seed, window, feature_dim)


def permute(positions: NDArray[np.int64], count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Map positions in [0, `count`) by the bijection of [0, `count`) that (seed, epoch) keys.

    Args:
        positions: any shape, int64.
        count: size of the domain, under 2^31.
        seed: under 2^64.
        epoch: under 2^32; every epoch has its own bijection.
    """
    rows = math.isqrt(count - 1) + 1
    columns = -(-count // rows)
    keys = _round_keys(seed, epoch)
    values = _feistel(positions.astype(np.uint64), rows, columns, keys)
    # Rows x columns is little more than `count`: the few values beyond it walk on along their cycle.
    outside = np.flatnonzero(values >= count)
    while outside.size:
        walked = _feistel(values[outside], rows, columns, keys)
        values[outside] = walked
        outside = outside[walked >= count]
    return values.astype(np.int64)


def draw_masks(
    masking: Masking,
    positions: NDArray[np.int64],
    epoch: int,
    seed: int,
    window: int,
    feature_dim: int,
    *,
    stream: int = 0,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Draw the bands of frequency and time, each `[B, M, 2]` int32 of first and end, for positions `[B]`.

    A band beyond a window's count is empty: first and end are 0.
    """
    counts = philox(positions, epoch, seed, stream + _COUNTS)
    drawn = []
    for bands, size, tag, word in (
        (masking.frequency, feature_dim, _FREQUENCY, counts[0]),
        (masking.time, window, _TIME, counts[1]),
    ):
        low, most = bands.count
        count = _in_range(word, low, most)
        edges = np.zeros((len(positions), most, 2), np.int32)
        for band in range(most):
            if band % 2 == 0:  # four words are two bands of two draws
                words = philox(positions, epoch, seed, stream + (band // 2 << 8) + tag)
            draw_width, draw_first = words[2 * (band % 2)], words[2 * (band % 2) + 1]
            width = _in_range(draw_width, *bands.width)
            first = _multiply_high(draw_first, size - width + 1)
            drawn_here = band < count
            edges[:, band, 0] = np.where(drawn_here, first, 0)
            edges[:, band, 1] = np.where(drawn_here, first + width, 0)
        drawn.append(edges)
    return drawn[0], drawn[1]


def philox(positions: NDArray[np.int64], epoch: int, seed: int, stream: int) -> tuple[Words, ...]:
    """Return four uint32 words a position: Philox 4x32-10 of the counter (position, epoch, stream), keyed by seed.

    The counter's words are position mod 2^32, position div 2^32, epoch, stream; the key's are the seed's.
    """
    places = positions.astype(np.uint64)
    c0, c1 = places & _LOW, places >> _32
    c2 = np.full(positions.shape, epoch, np.uint64)
    c3 = np.full(positions.shape, stream, np.uint64)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        high_0, low_0 = _product(c0, 0xD2511F53)
        high_2, low_2 = _product(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high_2 ^ c1 ^ np.uint64(k0), low_2, high_0 ^ c3 ^ np.uint64(k1), low_0
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return tuple(c.astype(np.uint32) for c in (c0, c1, c2, c3))


_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def _product(words: NDArray[np.uint64], factor: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    product = words * np.uint64(factor)
    return product >> _32, product & _LOW


def _in_range(words: Words, low: int, high: int) -> NDArray[np.int64]:
    """Turn 32-bit draws into integers from low to high, both inclusive."""
    return low + _multiply_high(words, high - low + 1)


def _multiply_high(words: Words, size: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn 32-bit draws into integers in [0, size)."""
    high: NDArray[np.uint64] = words.astype(np.uint64) * np.asarray(size, np.uint64) >> _32
    return high.astype(np.int64)


@lru_cache(maxsize=16)
def _round_keys(seed: int, epoch: int) -> tuple[np.uint32, ...]:
    blocks = philox(np.arange(-(-_ROUNDS // 4)), epoch, seed, _ORDER)
    return tuple(np.uint32(word) for word in np.stack(blocks, axis=1).ravel()[:_ROUNDS])


def _feistel(values: NDArray[np.uint64], rows: int, columns: int, keys: tuple[np.uint32, ...]) -> NDArray[np.uint64]:
    """Permute [0, rows x columns): row and column are shifted, in turn, by a hash of the other."""
    row, column = np.divmod(values, np.uint64(columns))
    for at, key in enumerate(keys):
        if at % 2 == 0:
            row = (row + _hash(column, key, rows)) % np.uint64(rows)
        else:
            column = (column + _hash(row, key, columns)) % np.uint64(columns)
    joined: NDArray[np.uint64] = row * np.uint64(columns) + column
    return joined


def _hash(values: NDArray[np.uint64], key: np.uint32, size: int) -> NDArray[np.uint64]:
    """Hash values under 2^32 into [0, size): lowbias32 (Wellons 2018), after MurmurHash3's finalizer."""
    mixed = values.astype(np.uint32)
    mixed ^= key
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x7FEB352D)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x846CA68B)
    mixed ^= mixed >> np.uint32(16)
    hashed: NDArray[np.uint64] = mixed.astype(np.uint64) * np.uint64(size) >> _32
    return hashed
