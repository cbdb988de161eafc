"""Labelling every frame of a partition, in order, with a run's model.

Shape letters: `B` frames of a batch, `F` frames of a partition, `U` utterances, `C` labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dali_asr.build import complete_loader
from dali_asr.corpus.packing import quiet
from dali_asr.device import resolve_device
from dali_asr.inference.sources import open_source
from dali_asr.inference.trained import run_config
from dali_asr.runs.checkpoint import load_checkpoint, run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from dali_asr.corpus import Partition
    from dali_asr.corpus.packing import Progress
    from dali_asr.inventory import Inventory
    from dali_asr.loading import Batch
    from dali_asr.runs.checkpoint import Checkpoint, Which

BATCH_SIZE = 4096


@dataclass(frozen=True, eq=False)
class Prediction:
    """The predicted labels of a partition.

    Attributes:
        partition: name of the partition.
        inventory: the label set.
        utterances: names of the utterances, `[U]`.
        offsets: boundaries of the utterances, `[U + 1]` int64.
        labels: predicted labels, `[F]` int64.
        posteriors: posterior probabilities, `[F, C]` float32, each row summing to 1; None unless requested.
        accuracy: fraction of the labelled frames predicted right; None if no frame has a label.
    """

    partition: str
    inventory: Inventory
    utterances: tuple[str, ...]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    posteriors: NDArray[np.float32] | None
    accuracy: float | None

    @property
    def symbols(self) -> NDArray[np.str_]:
        """Predicted symbols, `[F]`."""
        return np.array(self.inventory.symbols)[self.labels]


def predict(
    run: str | Path,
    source: str | Path | Sequence[str | Path],
    *,
    partition: str | None = None,
    checkpoint: Which = "best",
    posteriors: bool = False,
    device: str = "auto",
    packing: Progress = quiet,
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Label every frame of a source with a trained model.

    Args:
        run: folder of a run, or of one of its checkpoints.
        source: a packed corpus, a course folder, `demo`, or `.npy` files of features `[T, D]`, not normalized.
        partition: name of the corpus's partition; by default the run's `data.test`, or the only one.
        checkpoint: `best` or `last`.
        posteriors: whether to return posteriors.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        packing: called with the progress of packing a course folder.
        progress: called with the number of frames done, and of all frames.

    Raises:
        CheckpointError: the run or checkpoint is damaged, or does not fit the source.
        DataError: the source is missing, damaged or does not fit the model.
        UsageError: an unclear or unknown partition, or sources that cannot be combined.
        DeviceError: the device is missing or has too little memory.
    """
    trained, opened = prepare(run, source, partition=partition, checkpoint=checkpoint, packing=packing)
    return label(trained, opened, posteriors=posteriors, device=device, progress=progress)


def prepare(
    run: str | Path,
    source: str | Path | Sequence[str | Path],
    *,
    partition: str | None = None,
    checkpoint: Which = "best",
    packing: Progress = quiet,
) -> tuple[Checkpoint, Partition]:
    """Load a checkpoint and open the partition to label; arguments and errors as in `predict`."""
    run = Path(run).expanduser()
    trained = load_checkpoint(run, checkpoint)
    config = run_config(run_of(run), trained)
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    return trained, open_source(sources, partition, trained.description, config.data, packing)


@torch.inference_mode()
def label(
    checkpoint: Checkpoint,
    partition: Partition,
    *,
    posteriors: bool = False,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Label every frame of an open partition; arguments and errors as in `predict`."""
    labels = np.empty(partition.frame_count, np.int64)
    kept: NDArray[Any] | None = None
    if posteriors:
        kept = np.empty((partition.frame_count, len(checkpoint.description.inventory)), np.float32)
    done = 0
    for _, logits in classify(checkpoint, partition, resolve_device(device)):
        end = done + len(logits)
        labels[done:end] = logits.argmax(dim=1).cpu().numpy()
        if kept is not None:
            kept[done:end] = logits.softmax(dim=1).cpu().numpy()
        done = end
        if progress:
            progress(done, partition.frame_count)
    return Prediction(
        partition.name,
        checkpoint.description.inventory,
        partition.utterances,
        partition.offsets,
        labels,
        kept,
        _accuracy(labels, partition),
    )


def classify(
    checkpoint: Checkpoint, partition: Partition, device: torch.device
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Yield each batch of a partition, in order, with the model's logits `[B, C]`."""
    model = checkpoint.build(device)
    loader = complete_loader(partition, context=checkpoint.description.context, batch_size=BATCH_SIZE, device=device)
    for batch in loader:
        yield batch, model(batch.windows.float())


def _accuracy(labels: NDArray[np.int64], partition: Partition) -> float | None:
    truth = partition.labels()
    labelled = truth >= 0 if truth is not None else None
    if truth is None or labelled is None or not labelled.any():
        return None
    return float((labels == truth)[labelled].mean())
