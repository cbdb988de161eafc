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
from dali_asr.errors import CheckpointError, DataError, UsageError
from dali_asr.inference.convolution import Convolution
from dali_asr.inventory import resolve_inventory
from dali_asr.model import MLP
from dali_asr.runs.checkpoint import CONFIG, load_checkpoint, run_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from dali_asr.audio.settings import FeatureSettings
    from dali_asr.corpus import Normalization
    from dali_asr.inventory import Inventory
    from dali_asr.runs.checkpoint import Checkpoint, Which

_BATCH_SIZE = 4096


class TrainedModel(nn.Module):
    """A trained model, in evaluation mode. It needs neither DALI nor a corpus.

    `load_model` makes one of a run. A network of your own, trained on the batches of a `WindowLoader`, gives labels and
    segments in the same way:

        model = TrainedModel(
            network, corpus.inventory, context=loader.spec.context, feature_dim=corpus.feature_dim,
            normalization=corpus.normalization,
        )
        labels = model.classify(frames)
        segments = segments_of(labels, model.inventory.symbols, FrameTiming())  # of dali_asr.segments

    Args:
        model: the network, on its device, from windows `[B, W, D]` to logits `[B, C]`; left in evaluation mode.
        inventory: the label set, of C symbols.
        context: frames (left, right) around a window's own; W = left + 1 + right.
        feature_dim: features per frame, D.
        normalization: applied to features before they are cut into windows.
        features: how features are computed from recordings; None if unknown.
        frame_dtype: the dtype that normalized features are rounded to, float32 or float16.

    Attributes:
        model, inventory, context, feature_dim, normalization, features: as given.
        frame_dtype: as given, as a NumPy dtype.

    Raises:
        UsageError: the network does not map a window to C logits.
        DataError: the statistics of the normalization have another D.
    """

    def __init__(
        self,
        model: nn.Module,
        inventory: Inventory,
        *,
        context: tuple[int, int],
        feature_dim: int,
        normalization: Normalization,
        features: FeatureSettings | None = None,
        frame_dtype: str = "float32",
    ) -> None:
        super().__init__()
        self.model, self.inventory = model, inventory
        self.context, self.feature_dim = context, feature_dim
        self.normalization, self.features = normalization, features
        self.frame_dtype = np.dtype(frame_dtype)
        normalization.check("TrainedModel", feature_dim)
        self.eval()
        self._check_network()

    @classmethod
    def of(cls, checkpoint: Checkpoint, dtype: str, device: torch.device) -> TrainedModel:
        """Return the model of a checkpoint, whose normalized features are rounded to a dtype."""
        description = checkpoint.description
        return cls(
            checkpoint.build(device),
            description.inventory,
            context=description.context,
            feature_dim=description.feature_dim,
            normalization=description.normalization,
            features=description.features,
            frame_dtype=dtype,
        )

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

    @property
    def _device(self) -> torch.device:
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @torch.inference_mode()
    def _check_network(self) -> None:
        shape = (1, sum(self.context) + 1, self.feature_dim)
        expected = [1, len(self.inventory)]
        try:
            found = list(self(torch.zeros(shape, device=self._device)).shape)
        except RuntimeError as error:
            raise UsageError(
                f"TrainedModel: the network cannot read windows {list(shape)} ({' '.join(str(error).split())[:200]}); "
                "give the context and feature_dim that it was trained with"
            ) from error
        if found != expected:
            raise UsageError(
                f"TrainedModel: the network maps windows {list(shape)} to {found}, expected {expected}; give the "
                "inventory that it was trained with"
            )

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
        rows = torch.from_numpy(padded).to(self._device)
        if self._device.type == "cpu" and isinstance(self.model, MLP):  # elsewhere, convolutions may round to TF32
            network = Convolution(self.model, self.feature_dim)
            for start in range(0, len(features), _BATCH_SIZE):
                yield network(rows[start : start + _BATCH_SIZE + left + right])
            return
        for windows in torch.split(rows.unfold(0, left + 1 + right, 1).transpose(1, 2), _BATCH_SIZE):
            yield self(windows)


def load_model(run: str | Path, *, checkpoint: Which = "best", device: str = "auto") -> TrainedModel:
    """Load a trained model.

    Args:
        run: folder of a run, or of one of its checkpoints; or `english-small`, the model in the package.
        checkpoint: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        CheckpointError: the folder is not a run, or the checkpoint is damaged.
        DeviceError: there is no such device.
    """
    path = Path(run).expanduser()
    trained = load_checkpoint(path, checkpoint)
    data = run_config(run_of(path), trained).data
    return TrainedModel.of(trained, data.dtype or "float32", resolve_device(device))


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
