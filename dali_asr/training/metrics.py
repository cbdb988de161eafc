"""Loss and accuracy over the frames of an epoch and of the steps since the last reading, accumulated on the device.

Shape letters: `B` windows of a batch, `C` labels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from dali_asr.corpus import NO_LABEL

if TYPE_CHECKING:
    from dali_asr.runs.state import MetricsState
    from dali_asr.training.distributed import World

_EPOCH, _RECENT = 0, 1  # rows of the sums

Measured = dict[str, float | None]  # `loss` and `accuracy`; None if no frame was labelled or the loss is not finite


class FrameMetrics:
    """Mean loss and accuracy over labelled frames and all ranks, over the epoch and since the last reading.

    Nothing is read from the device until `compute` or `read`.

    Args:
        world: the ranks, with the device of the batches.
        losses: the number of losses that `first_bad` searches.

    Attributes:
        loss: the sums of the losses over the epoch and since the last reading, `[2]` float64.
        counts: the numbers of labelled and of correct frames over the same, `[2, 2]` int64.
    """

    def __init__(self, world: World, losses: int = 1) -> None:
        self._world = world
        self.loss = torch.zeros(2, dtype=torch.float64, device=world.device)
        self.counts = torch.zeros(2, 2, dtype=torch.int64, device=world.device)
        self._losses = torch.zeros(losses, device=world.device)
        self._updates = 0

    def update(self, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """Add a batch: logits `[B, C]`, labels `[B]` and the sum of the losses."""
        right = logits.argmax(dim=1) == labels  # never true of NO_LABEL
        self.loss += loss
        self.counts += torch.stack(((labels != NO_LABEL).sum(), right.sum()))
        self._losses[self._updates % len(self._losses)] = loss
        self._updates += 1

    def compute(self) -> Measured:
        """Return `loss` and `accuracy` over the epoch; None if no frame was labelled or the loss is not finite."""
        return self._means(_EPOCH)

    def read(self) -> Measured:
        """Return `loss` and `accuracy` since the last reading, which may lie in an earlier epoch."""
        measured = self._means(_RECENT)
        self._reset(_RECENT)
        return measured

    def _means(self, row: int) -> Measured:
        sums = self._world.sum(torch.cat((self.loss[row, None], self.counts[row].double())))
        loss, labelled, right = sums.tolist()
        if not labelled:
            return {"loss": None, "accuracy": None}
        return {"loss": loss / labelled if math.isfinite(loss) else None, "accuracy": right / labelled}

    def first_bad(self) -> int | None:
        """Return how many updates ago the first loss that is not finite came, over all ranks; None if there is none."""
        kept = min(self._updates, len(self._losses))
        recent = torch.roll(self._losses, -(self._updates % len(self._losses)))[len(self._losses) - kept :]
        bad = (~torch.isfinite(recent)).nonzero()
        first = self._world.min(int(bad[0]) if len(bad) else kept)
        return None if first == kept else kept - 1 - first

    def end_epoch(self) -> None:
        """Set the sums over the epoch to zero."""
        self._reset(_EPOCH)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the sums over all ranks."""
        return {"loss": self._world.sum(self.loss.clone()), "counts": self._world.sum(self.counts.clone())}

    def load_state(self, state: MetricsState) -> None:
        """Continue from the sums over all ranks; rank 0 takes them all."""
        self.loss.zero_()
        self.counts.zero_()
        if self._world.leads:
            self.loss += state.loss.to(self.loss.device)
            self.counts += state.counts.to(self.counts.device)

    def _reset(self, row: int) -> None:
        self.loss[row].zero_()
        self.counts[row].zero_()
