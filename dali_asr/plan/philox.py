"""Counter-based random numbers: every draw is a function of what it is for, and none has a state.

Philox 4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"). An integer range is taken from
a 32-bit draw by multiply-high (Lemire 2019), never by floats or modulo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint32]

_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


class Stream:
    """What draws are for: the last word of the counter."""

    ORDER = 0
    MASK_COUNTS = 1
    FREQUENCY = 2
    TIME = 3
    CHUNKS = 4


def philox(positions: NDArray[np.int64], epoch: int, seed: int, stream: int) -> tuple[Words, ...]:
    """Return four uint32 words a position, of the counter (position, epoch, stream) keyed by seed.

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


def in_range(words: Words, low: int, high: int) -> NDArray[np.int64]:
    """Turn 32-bit draws into integers from low to high, both inclusive."""
    return low + multiply_high(words, high - low + 1)


def multiply_high(words: Words, size: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn 32-bit draws into integers in [0, size)."""
    high: NDArray[np.uint64] = words.astype(np.uint64) * np.asarray(size, np.uint64) >> _32
    return high.astype(np.int64)


def _product(words: NDArray[np.uint64], factor: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    product = words * np.uint64(factor)
    return product >> _32, product & _LOW
