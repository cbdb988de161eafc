"""An exponential moving average of a model's weights (Polyak and Juditsky 1992), kept on its device."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


class WeightAverage:
    """Averages the weights of a model, and the statistics of its batch norm; nothing in it waits for the device.

    Args:
        model: whose weights.
        decay: of the average, a step; the first step's weights are taken as they are.

    Attributes:
        model: a copy of the model, with the averaged weights.
        updates: steps that are in it.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = deepcopy(model).requires_grad_(requires_grad=False)
        self.updates = 0
        self._decay = decay
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self) -> None:
        """Add the model's present weights."""
        share = 1 - self._decay if self.updates else 1.0
        with torch.no_grad():
            torch._foreach_lerp_([a for a, _ in self._averaged], [b for _, b in self._averaged], share)
            for counted, now in self._copied:
                counted.copy_(now, non_blocking=True)
        self.updates += 1
