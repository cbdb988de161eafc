"""What moves the weights: AdamW, and the learning rate over the steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

    from dali_asr.config import OptimizerConfig, ScheduleConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter 2019), in one fused operation; norms and biases do not decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)


class Schedule:
    """The learning rate of each step.

    It rises in a line over the warm-up. Then it is constant; falls along half a cosine (Loshchilov and Hutter 2017) to
    its floor at the last step; or is lowered by a factor whenever the dev accuracy has not risen for a while.

    Args:
        config: the schedule.
        peak: the highest rate.
        steps: of the whole run.
    """

    def __init__(self, config: ScheduleConfig, peak: float, steps: int) -> None:
        self._config, self._peak, self._steps = config, peak, steps
        self._scale, self._best, self._waited = 1.0, -math.inf, 0

    def rate(self, step: int) -> float:
        """Return the rate of a step, from 0."""
        config = self._config
        if step < config.warmup_steps:
            return self._peak * (step + 1) / (config.warmup_steps + 1)
        if config.kind == "cosine":
            done = (step - config.warmup_steps) / max(self._steps - config.warmup_steps, 1)
            share = (1 + math.cos(math.pi * min(done, 1.0))) / 2
            return self._peak * (config.floor + (1 - config.floor) * share)
        return self._peak * max(self._scale, config.floor)

    def evaluated(self, score: float) -> None:
        """Hear the dev accuracy of an epoch; a plateau of it lowers the rate."""
        if self._config.kind != "plateau":
            return
        self._waited = 0 if score > self._best else self._waited + 1
        self._best = max(self._best, score)
        if self._waited > self._config.patience:
            self._scale, self._waited = self._scale * self._config.factor, 0

    def state_dict(self) -> dict[str, Any]:
        """Return what it does not know from the step."""
        return {"scale": self._scale, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self._scale, self._best, self._waited = state["scale"], state["best"], state["waited"]
