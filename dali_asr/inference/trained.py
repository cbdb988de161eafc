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
from dali_asr.corpus.normalize import as_normalization
from dali_asr.corpus.storing import store_into
from dali_asr.corpus.writer import check_stored_dtype, check_utterance
from dali_asr.device import resolve_device
from dali_asr.errors import CheckpointError, DataError, UsageError, brief
from dali_asr.inference.convolution import Convolution
from dali_asr.inference.decoding import MEDIAN, VITERBI, FrameScores, decoder_of
from dali_asr.inventory import as_inventory, resolve_inventory
from dali_asr.model import MLP
from dali_asr.plan.spec import both_sides, checked_integer
from dali_asr.runs.checkpoint import load_checkpoint, run_of
from dali_asr.runs.run_path import CONFIG
from dali_asr.segments import FrameTiming, segments_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from dali_asr.audio.settings import FeatureSettings
    from dali_asr.corpus import Normalization
    from dali_asr.corpus.normalize import Kind
    from dali_asr.corpus.segment_counts import SegmentCounts
    from dali_asr.inventory import Inventory
    from dali_asr.runs.checkpoint import Checkpoint, Which
    from dali_asr.segments import Segment

_BATCH_SIZE = 4096


class TrainedModel(nn.Module):
    """A trained model, in evaluation mode. It needs neither DALI nor a corpus.

    `load_model` makes one of a run. A network of your own, trained on the batches of a `WindowLoader`, gives labels and
    segments in the same way:

        from dali_asr.corpus import count_segments

        model = TrainedModel(
            network, corpus.inventory, context=loader.spec.context, feature_dim=corpus.feature_dim,
            normalization=corpus.normalization, segment_counts=count_segments(corpus.partition("train")),
        )
        labels = model.classify(frames)  # [T], the most probable label of each frame
        for segment in model.segments(frames, timing=corpus.timing):
            print(segment.start, segment.end, segment.label, segment.confidence)

    Args:
        model: the network, on its device, from windows `[B, W, D]` to logits `[B, C]`. It is not copied but put in
            evaluation mode itself; call its `train()` before you train it further.
        inventory: the label set, of C symbols, or its symbols in label order.
        context: frames on each side of a window's own, or (left, right); W = left + 1 + right.
        feature_dim: features per frame, D.
        normalization: applied to features before they are cut into windows: `none`, `utterance`, or a `Normalization`
            with statistics.
        features: how features are computed from recordings; None if unknown.
        frame_dtype: the dtype that normalized features are rounded to, float32 or float16.
        segment_counts: counts of the segments that the model was trained on, which `viterbi` needs; None if there are
            none.

    Attributes:
        model, feature_dim, features, segment_counts: as given.
        inventory: the label set.
        context: frames (left, right) around a window's own.
        normalization: applied to features.
        frame_dtype: as given, as a NumPy dtype.

    Raises:
        UsageError: an argument is invalid, or the network does not map a window to C logits.
        DataError: the statistics of the normalization have another D.
    """

    def __init__(
        self,
        model: nn.Module,
        inventory: Inventory | Sequence[str],
        *,
        context: int | tuple[int, int],
        feature_dim: int,
        normalization: Kind | Normalization,
        features: FeatureSettings | None = None,
        frame_dtype: str = "float32",
        segment_counts: SegmentCounts | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise UsageError(f"TrainedModel: received {brief(model)}; give a network, which is a torch.nn.Module")
        check_stored_dtype(frame_dtype)
        self.model, self.inventory = model, as_inventory(inventory)
        self.context = both_sides(context, where="TrainedModel")
        self.feature_dim = checked_integer("feature_dim", feature_dim, 1, where="TrainedModel")
        self.normalization, self.features = as_normalization(normalization), features
        self.frame_dtype, self.segment_counts = np.dtype(frame_dtype), segment_counts
        self.normalization.check("TrainedModel", feature_dim)
        if segment_counts is not None and len(segment_counts.frames) != len(self.inventory):
            raise UsageError(
                f"TrainedModel: segment_counts of {len(segment_counts.frames)} labels, an inventory of "
                f"{len(self.inventory)}; count the segments of a partition with this inventory"
            )
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
            segment_counts=checkpoint.segments,
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

    def state_log_probabilities(self, frames: ArrayLike) -> NDArray[np.float32]:
        """Return those of the K states of each label of a perceptron, `[T, C·K]`; arguments as in `classify`."""
        logits = self._logits(frames, by_state=True)
        return np.concatenate([batch.log_softmax(dim=1).cpu().numpy() for batch in logits])

    def segments(
        self, frames: ArrayLike, *, decode: str | None = None, timing: FrameTiming | None = None
    ) -> list[Segment]:
        """Return the segments of an utterance, with their times in seconds and their confidences.

        Args:
            frames: `[T, D]` floats, not normalized.
            decode: how labels follow from posteriors: `none`, the most probable label of each frame; `median:K`, the
                majority of K frames; `viterbi`, the best path of a bigram with durations. By default `viterbi` where
                the model has `segment_counts`, otherwise `median:5`.
            timing: when frames are; by default that of `features`, or 25 ms every 10 ms if they are unknown.

        Raises:
            UsageError: no such decoding, or the model lacks what it needs.
            DataError: shape, dtype or values do not fit.
        """
        chosen = decode or (MEDIAN if self.segment_counts is None else VITERBI)
        decoder = decoder_of(chosen, len(self.inventory), self.segment_counts)
        log_posteriors = self.log_probabilities(frames)
        scores = FrameScores(log_posteriors.argmax(axis=1), np.exp(log_posteriors.max(axis=1)), log_posteriors)
        labels = decoder(scores)
        when = timing or (self.features.timing if self.features else FrameTiming())
        return segments_of(labels, self.inventory.symbols, when, probabilities=scores.confidences_of(labels))

    @property
    def _device(self) -> torch.device:
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @torch.inference_mode()
    def _check_network(self) -> None:
        shape = (1, sum(self.context) + 1, self.feature_dim)
        expected = [1, len(self.inventory)]
        try:
            found = list(self(torch.zeros(shape, device=self._device)).shape)
        except Exception as error:
            raise UsageError(
                f"TrainedModel: the network cannot process windows {list(shape)} ({' '.join(str(error).split())[:200]}"
                "); give the context and feature_dim that it was trained with"
            ) from error
        if found != expected:
            raise UsageError(
                f"TrainedModel: the network maps windows {list(shape)} to {found}, expected {expected}; give the "
                "inventory that it was trained with"
            )

    @torch.inference_mode()
    def _logits(self, frames: ArrayLike, *, by_state: bool = False) -> Iterator[torch.Tensor]:
        features, _ = check_utterance("classify", frames, None, self.inventory)
        if features.shape[1] != self.feature_dim:
            raise DataError(
                f"classify: {features.shape[1]} features per frame, the model was trained on {self.feature_dim}; "
                "give features of the kind that it was trained on"
            )
        left, right = self.context
        padded = np.zeros((left + len(features) + right, self.feature_dim), np.float32)
        stored = np.empty(features.shape, self.frame_dtype)
        store_into(stored, "classify", features, self.normalization)
        padded[left : left + len(features)] = stored
        rows = torch.from_numpy(padded).to(self._device)
        if self._device.type == "cpu" and isinstance(self.model, MLP):  # elsewhere, convolutions may round to TF32
            network = Convolution(self.model, self.feature_dim, by_state=by_state)
            for start in range(0, len(features), _BATCH_SIZE):
                yield network(rows[start : start + _BATCH_SIZE + left + right])
            return
        for windows in torch.split(rows.unfold(0, left + 1 + right, 1).transpose(1, 2), _BATCH_SIZE):
            yield self.model(windows, by_state=True) if by_state else self(windows)


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
    if not isinstance(run, (str, Path)):
        raise UsageError(f"load_model: run is {brief(run)}; give the folder of a run or checkpoint")
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
