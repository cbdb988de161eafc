"""Reading features: `.npy` files of `[T, D]` floats, and the checks that the features of every layout pass.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.npy import NpyFile, read_array
from dali_asr.corpus.regular import reading
from dali_asr.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

_AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aiff", ".sph")


def read_features_shape(path: Path) -> tuple[int, int]:
    """Read the shape `(T, D)` of a features file from its header.

    Raises:
        DataError: the array is not `[T, D]` floating point, or has no frames.
    """
    header = NpyFile.open(path).header
    check_features(path, header.shape, header.dtype)
    return header.shape[0], header.shape[1]


_REMEDY = "repair the file, or have such values zeroed (zero_nonfinite=True)"
REMEDY_OF_ARRAYS = "repair the frames, or set such values to zero: numpy.nan_to_num(frames, posinf=0, neginf=0)"


def read_features(path: Path, *, zero_nonfinite: bool = False, remedy: str = _REMEDY) -> NDArray[Any]:
    """Read features `[T, D]` in the dtype of the file.

    Args:
        path: the file.
        zero_nonfinite: whether NaN and infinity are replaced by zero; otherwise they are errors.
        remedy: what the error says to do about them.

    Raises:
        DataError: as `read_features_shape`, or a value is not finite.
    """
    features = read_array(path)
    check_features(path, features.shape, features.dtype)
    return finite(path, features, zero_nonfinite=zero_nonfinite, remedy=remedy)


def read_features_blocks(path: Path, frames: int, *, zero_nonfinite: bool) -> Iterator[NDArray[Any]]:
    """Yield features in blocks of `frames` frames, the last one shorter, in memory that does not grow with the file.

    Arguments and errors are otherwise those of `read_features`.
    """
    file = NpyFile.open(path)
    check_features(path, file.header.shape, file.header.dtype)
    total = file.header.shape[0]
    for first in range(0, total, frames):
        block = file.read_rows(first, min(frames, total - first))
        yield finite(path, block, zero_nonfinite=zero_nonfinite, first=first)


def check_features(where: Path | str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Check that an array can be features: `[T, D]` of float16, float32 or float64, with at least one frame.

    Raises:
        DataError: it cannot.
    """
    if len(shape) != 2:
        raise DataError(f"{where}: has shape {shape}; features must be [frames, features per frame]")
    if 0 in shape:
        raise DataError(f"{where}: has shape {shape}, no frames; remove it and its transcript")
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise DataError(f"{where}: has dtype {dtype}; features must be float16, float32 or float64")


def as_array(where: str, what: str, values: ArrayLike) -> NDArray[Any]:
    """Return values as an array; `where` and `what` are named in the error.

    Raises:
        DataError: NumPy cannot read them: rows of several lengths, or a tensor on a GPU, of bfloat16 or with gradient.
    """
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        if hasattr(values, "detach"):
            remedy = f"tensor.detach(){'.float()' if what == 'frames' else ''}.cpu().numpy()"
        else:
            remedy = "an array, whose rows have one length"
        cause = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        raise DataError(f"{where}: {what} cannot be read by NumPy ({cause}); give {remedy}") from error


def finite(
    where: Path | str, features: NDArray[Any], *, zero_nonfinite: bool, first: int = 0, remedy: str = _REMEDY
) -> NDArray[Any]:
    """Return features without NaN and infinity.

    Args:
        where: named in the error.
        features: `[T, D]`, floats.
        zero_nonfinite: whether such values are replaced by zero; otherwise they are errors.
        first: number of the first frame, for the error.
        remedy: what the error says to do.

    Raises:
        DataError: a value is not finite.
    """
    good = np.isfinite(features)
    if good.all():
        return features
    if zero_nonfinite:
        return np.where(good, features, 0).astype(features.dtype)
    row, column = np.argwhere(~good)[0]
    several = f" (one of {count:,})" if (count := int((~good).sum())) > 1 else ""
    raise DataError(f"{where}: {features[row, column]} at frame {first + row}, feature {column}{several}; {remedy}")


def refuse_audio(path: Path) -> None:
    """Say what to do with recordings: features are not computed from them here, but by `audio`.

    Raises:
        DataError: the path is a recording, or a folder of recordings.
    """
    with reading(path):
        inside = path.is_dir() and _holds_audio(path)
    if inside or path.suffix.lower() in _AUDIO:
        what = "a folder of recordings" if inside else "a recording"
        raise DataError(
            f"{path}: is {what}, but features are needed; make a packed corpus of recordings with alignments by "
            "dali-asr prepare, or without by dali-asr features; dali-asr predict labels recordings as they are"
        )


def is_npy_name(name: str) -> bool:
    """Return whether a file name is that of an array; other systems leave hidden files such as `._a.npy`."""
    return name.endswith(".npy") and not name.startswith(".")


def _holds_audio(folder: Path) -> bool:
    """Return whether a folder holds recordings, or a folder in it does whose first file is one."""
    entries = list(folder.iterdir())
    first: list[Path] = []
    for entry in entries:
        with suppress(OSError):  # no folder, or not ours to read
            first += islice(entry.iterdir(), 1)
    return any(entry.suffix.lower() in _AUDIO for entry in (*entries, *first))
