"""Loss and accuracy over the frames of an epoch, accumulated on the device."""

from __future__ import annotations

import math

import torch
from torchmetrics.classification import MulticlassAccuracy

from dali_asr.corpus import NO_LABEL

Measured = dict[str, float | None]  # `loss` and `accuracy`; None where there was nothing to measure, or NaN


class FrameMetrics:
    """Mean loss and accuracy a labelled frame; nothing is read from the device until `compute`.

    Args:
        classes: C.
        device: where the batches are.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._labelled = torch.zeros((), dtype=torch.int64, device=device)
        self._accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=NO_LABEL, validate_args=False)
        self._accuracy = self._accuracy.to(device)

    def update(self, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """Add a batch: logits `[B, C]`, labels `[B]` and the sum of their losses."""
        self._loss += loss
        self._labelled += (labels != NO_LABEL).sum()
        self._accuracy.update(logits, labels)

    def compute(self) -> Measured:
        """Return `loss` and `accuracy` so far; None where no frame was labelled, or the loss is not finite."""
        labelled = int(self._labelled)
        if not labelled:
            return {"loss": None, "accuracy": None}
        loss = float(self._loss) / labelled
        return {"loss": loss if math.isfinite(loss) else None, "accuracy": float(self._accuracy.compute())}

    def reset(self) -> None:
        """Begin anew."""
        self._loss.zero_()
        self._labelled.zero_()
        self._accuracy.reset()
