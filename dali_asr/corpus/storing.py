"""Frames as they are stored: normalized in float64 and rounded once, long utterances in blocks of bounded memory.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.normalize import Moments
from dali_asr.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from dali_asr.corpus.normalize import Normalization

LONG = 100_000  # frames; longer utterances are normalized in blocks of this size


def store_into(array: NDArray[Any], where: str, features: NDArray[Any], normalization: Normalization) -> None:
    """Fill an array `[T, D]` with normalized features, in its dtype.

    Raises:
        DataError: as `store`.
    """
    at = 0
    for block in stored_frames(where, partial(long_blocks, features), len(features), normalization, array.dtype):
        array[at : at + len(block)] = block
        at += len(block)


def stored_frames(
    where: str,
    blocks: Callable[[], Iterator[NDArray[Any]]],
    length: int,
    normalization: Normalization,
    dtype: np.dtype[Any],
) -> Iterator[NDArray[Any]]:
    """Yield the frames of an utterance as they are stored, in blocks `[T_i, D]`.

    Args:
        where: the utterance, as errors name it.
        blocks: returns its frames `[T_i, D]`, at once or a long utterance in blocks; called twice for a long one.
        length: number of frames, T.
        normalization: applied to the frames.
        dtype: of the stored frames.

    Raises:
        DataError: as `store`.
    """
    if length > LONG and normalization.kind == "utterance":
        normalization = reduce(Moments.merge, map(Moments.of, blocks())).normalization()
    for block in blocks():
        yield store(where, normalization.apply(block), dtype)


def long_blocks(frames: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the frames of an utterance: at once, or a long one in blocks."""
    for first in range(0, len(frames), LONG):
        yield frames[first : first + LONG]


def store(where: str, frames: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return normalized frames `[T, D]` in the dtype that they are stored in, rounded once.

    Raises:
        DataError: a value exceeds the range of the dtype.
    """
    with np.errstate(over="ignore"):
        stored = frames.astype(dtype)
    if not np.isfinite(stored).all():
        if np.isnan(frames).any():
            raise DataError(f"{where}: values too large to normalize; repair the file")
        remedy = "store float32, or normalize" if dtype == np.float16 else "repair the file, or normalize"
        raise DataError(f"{where}: {np.abs(frames).max():g} does not fit {dtype}; {remedy}")
    return stored
