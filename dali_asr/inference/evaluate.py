"""A run's model against the labels of a partition.

Shape letters: `F` frames of a partition, `C` labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassConfusionMatrix

from dali_asr.config import Config
from dali_asr.corpus import NO_LABEL
from dali_asr.corpus.labels import label_counts
from dali_asr.corpus.packing import quiet
from dali_asr.device import resolve_device
from dali_asr.errors import DataError
from dali_asr.inference.predict import classified, prepare
from dali_asr.inference.scores import SILENCE, Scores, accuracy_without, error_rate, symbol_scores
from dali_asr.runs.checkpoint import CONFIG, run_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dali_asr.corpus import Partition
    from dali_asr.corpus.packing import Progress
    from dali_asr.inventory import Inventory
    from dali_asr.runs.checkpoint import Checkpoint, Which

_BINS = 15
_TOP = 3


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What came of an evaluation.

    Attributes:
        partition: its name.
        checkpoint: that was evaluated, by the name of its folder.
        scores: of it.
        inventory: what labels index.
    """

    partition: str
    checkpoint: str
    scores: Scores
    inventory: Inventory

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
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
        run: the folder of a run, or of one of its checkpoints.
        source: a packed corpus, a course folder or `demo`; by default the one that the run was trained on.
        partition: which one of it; by default the run's `data.dev`.
        checkpoint: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        packing: told how far the packing of a course folder is.
        progress: called with the frames done, and all.

    Raises:
        CheckpointError: a run or checkpoint that is damaged or does not fit.
        DataError: a partition without labels; and as the parts.
        UsageError, DeviceError: as the parts.
    """
    trained, opened = prepare_evaluation(run, source, partition=partition, checkpoint=checkpoint, packing=packing)
    return score(trained, opened, device=device, progress=progress)


def prepare_evaluation(
    run: str | Path,
    source: str | Path | None = None,
    *,
    partition: str | None = None,
    checkpoint: Which = "best",
    packing: Progress = quiet,
) -> tuple[Checkpoint, Partition]:
    """Load a checkpoint and open what it is scored on; arguments and errors as in `evaluate`."""
    path = run_of(Path(run).expanduser()) / CONFIG
    data = Config.load(path).data if path.is_file() else None  # without one, `prepare` says what is missing
    trained, opened = prepare(
        run,
        source or (data.root if data else "demo"),
        partition=partition or (data.dev if data else None),
        checkpoint=checkpoint,
        packing=packing,
    )
    label_counts(opened, "--partition")
    return trained, opened


@torch.inference_mode()
def score(
    checkpoint: Checkpoint,
    partition: Partition,
    *,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a checkpoint on an open partition; arguments and errors as in `evaluate`."""
    where = resolve_device(device)
    inventory = checkpoint.description.inventory
    classes: dict[str, Any] = {"num_classes": len(inventory), "ignore_index": NO_LABEL, "validate_args": False}
    confusion = MulticlassConfusionMatrix(**classes).to(where)
    top = MulticlassAccuracy(**classes, top_k=min(_TOP, len(inventory)), average="micro").to(where)
    calibration = MulticlassCalibrationError(**classes, n_bins=_BINS, norm="l1").to(where)
    given = np.empty(partition.frame_count, np.int64)
    done = 0
    for batch, logits in classified(checkpoint, partition, where):
        assert batch.labels is not None
        posteriors, best = logits.softmax(dim=1), logits.argmax(dim=1)
        confusion.update(best, batch.labels)
        top.update(posteriors, batch.labels)
        calibration.update(posteriors, batch.labels)
        given[done : done + len(best)] = best.cpu().numpy()
        done += len(best)
        if progress:
            progress(done, partition.frame_count)
    true = partition.labels()
    if true is None:
        raise DataError(f"{partition.name}: has no transcripts; name a labelled partition")
    return Evaluation(
        partition.name,
        checkpoint.name,
        _scores(given, true, partition, confusion.compute().cpu().numpy(), float(top.compute()), calibration),
        inventory,
    )


def _scores(given: Any, true: Any, partition: Partition, confusion: Any, top: float, calibration: Any) -> Scores:
    inventory = partition.inventory
    symbols = symbol_scores(confusion, inventory)
    occurring = [symbol.f1 for symbol in symbols if symbol.frames and symbol.f1 is not None]
    silence = inventory.symbols.index(SILENCE) if SILENCE in inventory.symbols else None
    offsets = partition.offsets
    return Scores(
        frames=int(confusion.sum()),
        accuracy=float(confusion.trace() / confusion.sum()),
        accuracy_without_silence=accuracy_without(confusion, inventory, SILENCE),
        top3_accuracy=top,
        macro_f1=float(np.mean(occurring)),
        calibration_error=float(calibration.compute()),
        phoneme_error_rate=error_rate(given, true, offsets),
        phoneme_error_rate_without_silence=None if silence is None else error_rate(given, true, offsets, silence),
        symbols=symbols,
        confusion=confusion,
    )
