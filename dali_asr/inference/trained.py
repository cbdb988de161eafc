"""A trained model as a module, with everything that it takes to apply it to features.

Shape letters: `T` frames of an utterance, `B` windows of a batch, `W` frames of a window, `D` features, `C` labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from dali_asr.config import Config
from dali_asr.corpus.writer import check_utterance, store
from dali_asr.device import resolve_device
from dali_asr.errors import CheckpointError, DataError
from dali_asr.inference.convolution import Convolution
from dali_asr.inventory import resolve_inventory
from dali_asr.runs.checkpoint import CONFIG, load_checkpoint, run_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from dali_asr.runs.checkpoint import Checkpoint, Which

_BATCH_SIZE = 4096


class TrainedModel(nn.Module):
    """A trained model, in evaluation mode. It needs neither DALI nor a corpus.

    Attributes:
        model: the network, from windows `[B, W, D]` to logits `[B, C]`.
        inventory: the label set.
        context: frames (left, right) around a window's own.
        feature_dim: features per frame, D.
        normalization: applied to features before they are cut into windows.
        features: how features are computed from recordings; None if unknown.
        frame_dtype: the dtype that normalized features are rounded to, float32 or float16.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: str, device: torch.device) -> None:
        super().__init__()
        self.frame_dtype = np.dtype(dtype)
        description = checkpoint.description
        self.model = checkpoint.build(device)
        self.inventory, self.context = description.inventory, description.context
        self.feature_dim, self.normalization = description.feature_dim, description.normalization
        self.features = description.features
        self.eval()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows `[B, W, D]` of normalized features to logits `[B, C]`."""
        logits: torch.Tensor = self.model(windows)
        return logits

    def classify(self, frames: ArrayLike) -> NDArray[np.int64]:
        """Return the label of each frame of an utterance, `[T]`; `inventory.symbols` names them.

        Args:
            frames: `[T, D]` floats, not normalized.

        Raises:
            DataError: shape, dtype or values do not fit.
        """
        return np.concatenate([logits.argmax(dim=1).cpu().numpy() for logits in self._logits(frames)])

    def posteriors(self, frames: ArrayLike) -> NDArray[np.float32]:
        """Return the posterior probabilities of each frame of an utterance, `[T, C]`; arguments as in `classify`."""
        return np.concatenate([logits.softmax(dim=1).cpu().numpy() for logits in self._logits(frames)])

    def log_probabilities(self, frames: ArrayLike) -> NDArray[np.float32]:
        """Return the logarithms of `posteriors`, which do not underflow, `[T, C]`; arguments as in `classify`."""
        return np.concatenate([logits.log_softmax(dim=1).cpu().numpy() for logits in self._logits(frames)])

    @torch.inference_mode()
    def _logits(self, frames: ArrayLike) -> Iterator[torch.Tensor]:
        features, _ = check_utterance("classify", frames, None, self.inventory)
        if features.shape[1] != self.feature_dim:
            raise DataError(
                f"classify: {features.shape[1]} features per frame, the model was trained on {self.feature_dim}; "
                "give features of the kind that it was trained on"
            )
        left, right = self.context
        padded = np.zeros((left + len(features) + right, self.feature_dim), np.float32)
        padded[left : left + len(features)] = store("classify", self.normalization.apply(features), self.frame_dtype)
        device = next(self.parameters()).device
        rows = torch.from_numpy(padded).to(device)
        if device.type == "cpu":  # elsewhere, convolutions may round to TF32
            network = Convolution(self.model, self.feature_dim)
            for start in range(0, len(features), _BATCH_SIZE):
                yield network(rows[start : start + _BATCH_SIZE + left + right])
            return
        for windows in torch.split(rows.unfold(0, left + 1 + right, 1).transpose(1, 2), _BATCH_SIZE):
            yield self(windows)


def load_model(run: str | Path, *, checkpoint: Which = "best", device: str = "auto") -> TrainedModel:
    """Load a trained model.

    Args:
        run: folder of a run, or of one of its checkpoints.
        checkpoint: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        CheckpointError: the folder is not a run, or the checkpoint is damaged.
        DeviceError: there is no such device.
    """
    path = Path(run).expanduser()
    trained = load_checkpoint(path, checkpoint)
    data = run_config(run_of(path), trained).data
    return TrainedModel(trained, data.dtype or "float32", resolve_device(device))


def run_config(run: Path, checkpoint: Checkpoint) -> Config:
    """Read a run's configuration and check that it agrees with its checkpoint.

    Raises:
        CheckpointError: it is missing or differs.
        ConfigError: it is invalid.
    """
    path = run / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; copy the whole folder of the run, including its configuration")
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
