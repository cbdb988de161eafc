"""Checkpoint to labels: every frame of a partition, in order, none left out.

Shape letters: `F` frames of a partition, `U` utterances, `C` labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dali_asr.build import complete_loader
from dali_asr.config import Config
from dali_asr.corpus.packing import quiet
from dali_asr.device import resolve_device
from dali_asr.errors import CheckpointError
from dali_asr.inference.sources import open_source
from dali_asr.inventory import resolve_inventory
from dali_asr.runs.checkpoint import Checkpoint, load_checkpoint, run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from dali_asr.corpus import Partition
    from dali_asr.corpus.packing import Progress
    from dali_asr.inventory import Inventory
    from dali_asr.loading import Batch
    from dali_asr.runs.checkpoint import Which

BATCH_SIZE = 4096


@dataclass(frozen=True, eq=False)
class Prediction:
    """The labels of a partition.

    Attributes:
        partition: its name.
        inventory: what labels index.
        utterances: names `[U]`.
        offsets: where utterances begin and end, `[U + 1]` int64.
        labels: `[F]` int64.
        posteriors: `[F, C]` float32, each row sums to 1; None unless asked for.
        accuracy: share of labelled frames that are right; None where there are no labels.
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
        """The labels as symbols, `[F]`."""
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
    """Label every frame of a source by a trained model.

    Args:
        run: the folder of a run, or of one of its checkpoints.
        source: a packed corpus, a course folder, `demo`, or `.npy` files of features `[T, D]`, not normalized.
        partition: which one of a corpus; by default the configuration's `data.test`, or the only one.
        checkpoint: `best` or `last`.
        posteriors: whether to keep them.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        packing: told how far the packing of a course folder is.
        progress: called with the frames done, and all.

    Raises:
        CheckpointError: a run or checkpoint that is damaged or does not fit.
        DataError, UsageError, DeviceError: as the parts.
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
    """Load a checkpoint and open what it is to label; arguments and errors as in `predict`."""
    run = Path(run).expanduser()
    trained = load_checkpoint(run, checkpoint)
    config = _config(run_of(run), trained)
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
    for _, logits in classified(checkpoint, partition, resolve_device(device)):
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


def classified(
    checkpoint: Checkpoint, partition: Partition, device: torch.device
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Yield the batches of a partition, every frame in order, with a model's logits `[B, C]`."""
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


def _config(run: Path, checkpoint: Checkpoint) -> Config:
    """Read the run's configuration and check that the checkpoint is of it."""
    path = run / "config.yaml"
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; a run keeps its configuration there, copy the whole folder")
    config = Config.load(path)
    description = checkpoint.description
    differing = []
    if config.loader.context != description.context:
        differing.append(f"context {list(config.loader.context)}, its checkpoint {list(description.context)}")
    inventory = resolve_inventory(config.data.inventory)
    if inventory != description.inventory:
        differing.append(
            f"an inventory of {len(inventory)} symbols, its checkpoint another one of {len(description.inventory)}"
        )
    if differing:
        raise CheckpointError(f"{path}: says {'; '.join(differing)}; restore the file, or train again")
    return config
