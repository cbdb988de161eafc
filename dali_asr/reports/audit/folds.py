"""Posteriors of every frame by a model that was not trained on its utterance: K folds, cross-fitted.

Shape letters: `F` frames of a partition, `U` utterances, `C` labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dali_asr.build import complete_loader
from dali_asr.errors import DataError, UsageError
from dali_asr.loading import WindowLoader
from dali_asr.model import MLP, HiddenLayer
from dali_asr.training.distributed import World
from dali_asr.training.step import Schedule, Stepper, build_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dali_asr.corpus import Partition

    Progress = Callable[[str, int, int], None]

LIBRISPEECH = r"(\d+)-\d+-\d+"  # SPEAKER-CHAPTER-NUMBER
_PREDICTED = 4096  # windows per batch


@dataclass(frozen=True)
class FoldSettings:
    """How the models of the folds are made and trained.

    Attributes:
        folds: number of folds, K.
        context: frames on each side of a window's own.
        hidden: units of each hidden layer.
        dropout: of each hidden layer; each has batch norm as well.
        epochs: passes over the other folds.
        batch_size: windows per batch.
        learning_rate: peak of a cosine schedule.
        label_smoothing: fraction of a label's probability that is spread over all labels.
        seed: of weights, order and folds.
    """

    folds: int = 5
    context: int = 12
    hidden: tuple[int, ...] = (512, 512)
    dropout: float = 0.25
    epochs: int = 4
    batch_size: int = 1024
    learning_rate: float = 2e-3
    label_smoothing: float = 0.1
    seed: int = 0


def fold_posteriors(
    partition: Partition, folds: NDArray[np.int64], settings: FoldSettings, device: torch.device, progress: Progress
) -> NDArray[np.float32]:
    """Return log posteriors `[F, C]` of every frame, by the model that was trained on the other folds."""
    found = np.empty((partition.frame_count, len(partition.inventory)), np.float32)
    frames = np.repeat(folds, partition.lengths)
    total = settings.folds * settings.epochs
    for fold in range(settings.folds):
        model = _train(
            partition.pick(np.flatnonzero(folds != fold)),
            settings,
            fold,
            device,
            lambda done, fold=fold: progress("training the folds", fold * settings.epochs + done, total),
        )
        found[frames == fold] = _predict(model, partition.pick(np.flatnonzero(folds == fold)), settings, device)
    return found


def _train(
    partition: Partition, settings: FoldSettings, fold: int, device: torch.device, progress: Callable[[int], None]
) -> MLP:
    torch.manual_seed(settings.seed + fold)
    batches = WindowLoader(
        partition,
        context=settings.context,
        batch_size=min(settings.batch_size, partition.frame_count),
        drop_last=True,
        seed=settings.seed + fold,
        device=device,
    )
    layers = [HiddenLayer(width, settings.dropout, "batch") for width in settings.hidden]
    model = MLP(
        window=2 * settings.context + 1,
        feature_dim=partition.feature_dim,
        classes=len(partition.inventory),
        hidden=layers,
    ).to(device)
    steps = settings.epochs * len(batches)
    stepper = Stepper(
        model,
        build_optimizer(model, learning_rate=settings.learning_rate),
        Schedule(settings.learning_rate, steps, kind="cosine"),
        World(device),
        label_smoothing=settings.label_smoothing,
    )
    for epoch in range(settings.epochs):
        for batch in batches:
            stepper.backward(stepper.forward(batch))
            stepper.update()
        progress(epoch + 1)
    batches.close()
    return model.eval()


@torch.inference_mode()
def _predict(model: MLP, partition: Partition, settings: FoldSettings, device: torch.device) -> NDArray[np.float32]:
    batches = complete_loader(
        partition, context=(settings.context, settings.context), batch_size=_PREDICTED, device=device
    )
    rows = [model(batch.windows).log_softmax(dim=1).cpu().numpy() for batch in batches]
    batches.close()
    return np.concatenate(rows)
