"""Scoring a run's model on a labelled partition.

Shape letters: `B` frames of a batch, `F` frames of a partition, `C` labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dali_asr.build import corpus_path
from dali_asr.config import Config
from dali_asr.corpus.labels import label_counts
from dali_asr.corpus.packing import quiet
from dali_asr.device import resolve_device
from dali_asr.errors import DataError
from dali_asr.inference.predict import classify, prepare
from dali_asr.inference.scores import TOP, Scores, score_labels
from dali_asr.runs.start import config_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dali_asr.corpus import Partition
    from dali_asr.corpus.packing import Progress
    from dali_asr.inventory import Inventory
    from dali_asr.runs.checkpoint import Checkpoint, Which


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of a checkpoint on a partition.

    Attributes:
        partition: name of the partition.
        checkpoint: name of the checkpoint's folder.
        scores: all scores.
        inventory: the label set.
        silence: the label of silence; None if there is none.
    """

    partition: str
    checkpoint: str
    scores: Scores
    inventory: Inventory
    silence: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON values; see `Confusion.to_json` for the confusion matrix."""
        return {"partition": self.partition, "checkpoint": self.checkpoint, **self.scores.to_json()}


def evaluate(
    run: str | Path,
    source: str | Path | None = None,
    *,
    partition: str | None = None,
    checkpoint: Which = "best",
    device: str = "auto",
    packing: Progress = quiet,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a trained model on a labelled partition.

    Args:
        run: folder of a run, or of one of its checkpoints.
        source: a packed corpus, a course folder or `demo`; by default the corpus that the run was trained on.
        partition: name of the partition; by default the run's `data.dev`.
        checkpoint: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        packing: called with the progress of packing a course folder.
        progress: called with the number of frames done, and of all frames.

    Raises:
        CheckpointError: the run or checkpoint is damaged, or does not fit the corpus.
        DataError: the partition has no labels, or the corpus is missing or damaged.
        UsageError: an unknown partition or device name.
        DeviceError: the device is missing or has too little memory.
    """
    prepared = prepare_evaluation(run, source, partition=partition, checkpoint=checkpoint, packing=packing)
    return score(*prepared, device=device, progress=progress)


def prepare_evaluation(
    run: str | Path,
    source: str | Path | None = None,
    *,
    partition: str | None = None,
    checkpoint: Which = "best",
    packing: Progress = quiet,
) -> tuple[Checkpoint, Partition, int | None]:
    """Load a checkpoint and open the partition to score it on; arguments and errors as in `evaluate`.

    Returns:
        Both, and the label of silence if there is one.
    """
    path = config_of(run)
    data = Config.load(path).data if path else None  # `prepare` reports a missing configuration
    if data and not source and not corpus_path(data.root, packing).exists():
        raise DataError(f"{data.root}: no such folder, which the run was trained on; give the corpus after the run")
    trained, opened = prepare(
        run,
        source or (data.root if data else "demo"),
        partition=partition or (data.dev if data else None),
        checkpoint=checkpoint,
        packing=packing,
    )
    label_counts(opened, "partition=NAME")
    return trained, opened, opened.inventory.silence(data.silence if data else None)


@torch.inference_mode()
def score(
    checkpoint: Checkpoint,
    partition: Partition,
    silence: int | None = None,
    *,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    observe: Callable[[torch.Tensor], None] | None = None,
) -> Evaluation:
    """Score a checkpoint on an open partition; otherwise as `evaluate`.

    Args:
        checkpoint: the model.
        partition: a labelled partition.
        silence: the label of silence; None if there is none.
        device: as in `evaluate`.
        progress: as in `evaluate`.
        observe: called with the logits `[B, C]` of each batch, in order.
    """
    inventory = checkpoint.description.inventory
    true = partition.labels()
    if true is None:
        raise DataError(f"{partition.name}: has no transcripts; name a labelled partition")
    predicted = np.empty(len(true), np.int64)
    confidence = np.empty(len(true), np.float32)
    in_top = np.empty(len(true), np.bool_)
    done = 0
    for batch, logits in classify(checkpoint, partition, resolve_device(device)):
        part = slice(done, done + len(logits))
        best, labels = logits.max(dim=1)
        # The softmax of the best label alone: that of all labels would double the memory.
        confidence[part] = (best - logits.logsumexp(dim=1)).exp().cpu().numpy()
        top = logits.topk(min(TOP, len(inventory)), dim=1).indices
        in_top[part] = (top == batch.labels[:, None]).any(dim=1).cpu().numpy()
        predicted[part] = labels.cpu().numpy()
        if observe:
            observe(logits)
        done = part.stop
        if progress:
            progress(done, partition.frame_count)
    scores = score_labels(predicted, confidence, in_top, true, partition.offsets, inventory, silence)
    return Evaluation(partition.name, checkpoint.name, scores, inventory, silence)
