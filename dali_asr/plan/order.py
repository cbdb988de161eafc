"""Order: a keyed bijection of [0, N), computed position by position, so that no permutation is stored.

The bijection is a Feistel network with cycle walking (Mitchell et al. 2022, "Bandwidth-Optimal Random Shuffling for
GPUs", ACM TOPC 9(1)), generalized to rows x columns (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains").
The domain is less than one row larger than N, where a power of two could be twice as large, so few values need to walk.

The keys come from Philox 4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"), a counter-based,
stateless generator: each draw is a function of what it is for. Integers are taken from 32-bit draws by multiply-high
(Lemire 2019), never by floats or modulo.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint32]

ROUNDS = 24  # with fewer, permutations of five or six positions are visibly non-uniform
HASH_MULTIPLIERS = 0x7FEB352D, 0x846CA68B  # of lowbias32
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


class Stream:
    """The last word of Philox's counter: what a draw is for."""

    ORDER = 0
    MASK_COUNTS = 1
    FREQUENCY = 2
    TIME = 3
    CHUNKS = 4


def philox(positions: NDArray[np.int64], epoch: int, seed: int, stream: int) -> tuple[Words, ...]:
    """Return four uint32 words per position.

    The counter is (position mod 2^32, position div 2^32, epoch, stream); the key is the seed's two words.
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
    """Map 32-bit draws to integers from low to high, both inclusive."""
    return low + multiply_high(words, high - low + 1)


def multiply_high(words: Words, size: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Map 32-bit draws to integers in [0, size)."""
    high: NDArray[np.uint64] = words.astype(np.uint64) * np.asarray(size, np.uint64) >> _32
    return high.astype(np.int64)


@lru_cache(maxsize=64)
def round_keys(seed: int, epoch: int, *, stream: int = Stream.ORDER, group: int = 0) -> tuple[int, ...]:
    """Return the uint32 round keys of one bijection; every seed, epoch, stream and group has its own."""
    counters = np.arange(-(-ROUNDS // 4), dtype=np.int64) + (group << 32)
    blocks = philox(counters, epoch, seed, stream)
    return tuple(np.stack(blocks, axis=1).ravel()[:ROUNDS].tolist())


def rows_and_columns(count: int) -> tuple[int, int]:
    """Return the domain of the network: the smallest nearly square rows x columns that holds [0, `count`)."""
    rows = math.isqrt(count - 1) + 1
    return rows, -(-count // rows)


def permute(positions: NDArray[np.int64], count: int, keys: tuple[int, ...]) -> NDArray[np.int64]:
    """Map positions by the bijection of [0, `count`) that `keys` select.

    Args:
        positions: int64 of any shape, in [0, `count`).
        count: size of the domain, below 2^31.
        keys: see `round_keys`.
    """
    rows, columns = (np.uint32(size) for size in rows_and_columns(count))
    values = _feistel(positions.astype(np.uint32), rows, columns, keys)
    # Values beyond `count` walk along their cycle until they are inside.
    outside = np.flatnonzero(values >= count)
    while outside.size:
        walked = _feistel(values[outside], rows, columns, keys)
        values[outside] = walked
        outside = outside[walked >= count]
    return values.astype(np.int64)


def _feistel(values: Words, rows: np.uint32, columns: np.uint32, keys: tuple[int, ...]) -> Words:
    """Permute [0, rows x columns): each round shifts the row by a hash of the column, or the reverse."""
    row, column = np.divmod(values, columns)
    for number, key in enumerate(keys):
        if number % 2 == 0:
            row += _hash(column, key, rows)
            np.minimum(row, row - rows, out=row)  # modulo: below `rows`, the unsigned difference wraps to a large value
        else:
            column += _hash(row, key, columns)
            np.minimum(column, column - columns, out=column)
    joined: Words = row * columns + column
    return joined


def _hash(values: Words, key: int, size: np.uint32) -> Words:
    """Hash uint32 values into [0, size) by lowbias32 (Wellons 2018), after MurmurHash3's finalizer."""
    mixed = values ^ np.uint32(key)
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(HASH_MULTIPLIERS[0])
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(HASH_MULTIPLIERS[1])
    mixed ^= mixed >> np.uint32(16)
    hashed: Words = (mixed.astype(np.uint64) * np.uint64(size) >> np.uint64(32)).astype(np.uint32)
    return hashed


def _product(words: NDArray[np.uint64], factor: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    product = words * np.uint64(factor)
    return product >> _32, product & _LOW
