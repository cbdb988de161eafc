"""Soft targets: what another model, the teacher, says of every training frame.

Hinton, Vinyals and Dean (2015), "Distilling the knowledge in a neural network", at a temperature of 1.

Shape letters: `T` frames of an utterance, `F` frames of a partition, `C` labels, `K` states of a label.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from dali_asr.corpus.features import read_features
from dali_asr.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from dali_asr.corpus import Partition

_LOWEST = 60_000.0  # which float16 can hold


def read_soft_targets(folder: Path, partition: Partition, columns: int) -> torch.Tensor:
    """Return the log probabilities of a partition's frames, up to a constant per frame, `[F, C·K]` float16.

    Args:
        folder: with a file `NAME.npy` of each utterance, `[T, C·K]` floats.
        partition: to train on.
        columns: number of states of all labels, C·K.

    Raises:
        DataError: a file is missing or damaged, or does not fit its utterance or the model.
    """
    targets = np.empty((partition.frame_count, columns), np.float16)
    for name, (first, end) in zip(partition.utterances, pairwise(partition.offsets.tolist()), strict=True):
        path = folder / f"{name}.npy"
        if not path.is_file():
            raise DataError(f"{path}: no such file; training.teacher.folder needs one of each training utterance")
        rows = read_features(path, remedy="write finite log probabilities")
        if rows.shape != (end - first, columns):
            raise DataError(
                f"{path}: {list(rows.shape)}; expected [{end - first}, {columns}], the utterance's frames and the "
                "model's outputs (labels times model.states); let the teacher score the same frames"
            )
        if rows.min() >= 0 and np.allclose(rows.sum(axis=1), 1, atol=0.01):
            raise DataError(f"{path}: holds probabilities; write their logarithms")
        targets[first:end] = (rows - rows.max(axis=1, keepdims=True)).clip(-_LOWEST, 0)
    return torch.from_numpy(targets)
