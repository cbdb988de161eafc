"""Loss and accuracy over the frames of an epoch, accumulated on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from dali_asr.corpus import NO_LABEL

if TYPE_CHECKING:
    import torch


class FrameMetrics:
    """Mean loss and accuracy a labelled frame; nothing is read from the device until `compute`.

    Args:
        classes: C.
        device: where the batches are.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self._loss = MeanMetric().to(device)
        self._accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=NO_LABEL, validate_args=False).to(
            device
        )

    def update(self, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """Add a batch: logits `[B, C]`, labels `[B]` and their mean loss."""
        self._loss.update(loss, weight=(labels != NO_LABEL).sum())
        self._accuracy.update(logits, labels)

    def compute(self) -> dict[str, float]:
        """Return `loss` and `accuracy` so far."""
        return {"loss": self._loss.compute().item(), "accuracy": self._accuracy.compute().item()}

    def reset(self) -> None:
        """Begin anew."""
        self._loss.reset()
        self._accuracy.reset()
