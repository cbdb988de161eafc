"""Makers of small synthetic data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr import Corpus, Partition
from dali_asr.inventory import ARPABET, ARPABET_SYMBOLS, Inventory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray


def make_features(frames: int, dim: int = 5, seed: int = 0, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Return features `[frames, dim]` that do not have mean 0 and variance 1, none of them 0."""
    rng = np.random.default_rng([seed, frames, dim])
    features = rng.normal(3, 4, (frames, dim))
    return np.where(np.abs(features) < 1e-2, 1.0, features).astype(dtype)


def make_transcript(frames: int, seed: int = 0, width: int = 5) -> NDArray[np.str_]:
    """Return symbols `[frames + 2]` with start and end."""
    labels = np.random.default_rng([seed, frames]).integers(0, 40, frames)
    return np.array(["[SOS]", *(ARPABET_SYMBOLS[i] for i in labels), "[EOS]"], f"<U{width}")


def make_course(
    root: Path,
    partitions: Mapping[str, Sequence[int]],
    *,
    dim: int = 5,
    unlabelled: Sequence[str] = (),
    dtype: DTypeLike = np.float32,
) -> None:
    """Write a course folder; `partitions` gives the frames of each utterance."""
    for number, (name, lengths) in enumerate(partitions.items()):
        (root / name / "mfcc").mkdir(parents=True)
        if name not in unlabelled:
            (root / name / "transcript").mkdir()
        for at, frames in enumerate(lengths):
            seed = 100 * number + at
            np.save(root / name / "mfcc" / f"u{at:02d}.npy", make_features(frames, dim, seed, dtype))
            if name not in unlabelled:
                np.save(root / name / "transcript" / f"u{at:02d}.npy", make_transcript(frames, seed))


def all_frames(partition: Partition) -> NDArray[Any]:
    """Return the frames `[F, D]` of all utterances of a partition."""
    return np.concatenate(list(partition.frames()))


def make_partition(
    lengths: Sequence[int], dim: int = 5, seed: int = 0, dtype: str = "float32", inventory: Inventory = ARPABET
) -> Partition:
    """Return a labelled partition in memory."""
    rng = np.random.default_rng(seed)
    frames = [make_features(n, dim, seed + i) for i, n in enumerate(lengths)]
    labels = [rng.integers(0, min(40, len(inventory)), n) for n in lengths]
    return Corpus.from_arrays(frames, labels, inventory, dtype=dtype).partition("all")
