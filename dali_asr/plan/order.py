"""Order: a keyed bijection of [0, N), computed position by position, so that no permutation is stored.

A Feistel network with cycle walking (Mitchell et al. 2022, "Bandwidth-Optimal Random Shuffling for GPUs", ACM TOPC
9(1)), here the generalized one on rows x columns (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"):
its domain exceeds N by less than a row, where a power of two can be twice N, so that hardly a position walks.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.plan.philox import Stream, philox

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.plan.philox import Words

ROUNDS = 24  # fewer leave the permutations of five or six frames visibly uneven


@lru_cache(maxsize=64)
def round_keys(seed: int, epoch: int, *, stream: int = Stream.ORDER, group: int = 0) -> tuple[int, ...]:
    """Return the keys of a bijection, uint32 each; every seed, epoch, stream and group has its own."""
    counters = np.arange(-(-ROUNDS // 4), dtype=np.int64) + (group << 32)
    blocks = philox(counters, epoch, seed, stream)
    return tuple(np.stack(blocks, axis=1).ravel()[:ROUNDS].tolist())


def rows_and_columns(count: int) -> tuple[int, int]:
    """Return the network's domain: the smallest rows x columns that holds [0, `count`), nearly square."""
    rows = math.isqrt(count - 1) + 1
    return rows, -(-count // rows)


def permute(positions: NDArray[np.int64], count: int, keys: tuple[int, ...]) -> NDArray[np.int64]:
    """Map positions in [0, `count`) by the bijection of [0, `count`) that `keys` choose.

    Args:
        positions: any shape, int64.
        count: size of the domain, under 2^31.
        keys: see `round_keys`.
    """
    rows, columns = (np.uint32(size) for size in rows_and_columns(count))
    values = _feistel(positions.astype(np.uint32), rows, columns, keys)
    # Rows x columns is little more than `count`: the few values beyond it walk on along their cycle.
    outside = np.flatnonzero(values >= count)
    while outside.size:
        walked = _feistel(values[outside], rows, columns, keys)
        values[outside] = walked
        outside = outside[walked >= count]
    return values.astype(np.int64)


def _feistel(values: Words, rows: np.uint32, columns: np.uint32, keys: tuple[int, ...]) -> Words:
    """Permute [0, rows x columns): row and column are shifted, in turn, by a hash of the other."""
    row, column = np.divmod(values, columns)
    for at, key in enumerate(keys):
        if at % 2 == 0:
            row += _hash(column, key, rows)
            np.minimum(row, row - rows, out=row)  # modulo: unsigned, what is below `rows` wraps far above it
        else:
            column += _hash(row, key, columns)
            np.minimum(column, column - columns, out=column)
    joined: Words = row * columns + column
    return joined


def _hash(values: Words, key: int, size: np.uint32) -> Words:
    """Hash uint32 into [0, size): lowbias32 (Wellons 2018), after MurmurHash3's finalizer."""
    mixed = values ^ np.uint32(key)
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x7FEB352D)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x846CA68B)
    mixed ^= mixed >> np.uint32(16)
    hashed: Words = (mixed.astype(np.uint64) * np.uint64(size) >> np.uint64(32)).astype(np.uint32)
    return hashed
