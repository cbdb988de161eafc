"""A step of training: forward, loss, backward, clip, update, average, count.

Nothing in it waits for the device.

Shape letters: `B` windows of a batch, `C` labels.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from dali_asr.corpus import NO_LABEL
from dali_asr.training.averaging import WeightAverage
from dali_asr.training.metrics import FrameMetrics
from dali_asr.training.optimization import Schedule, build_optimizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dali_asr.config import TrainingConfig
    from dali_asr.loading import Batch
    from dali_asr.training.distributed import World

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_ALIGNMENT = 64  # bytes


class Stepper:
    """Trains a model, a step a batch.

    Args:
        model: on the world's device.
        config: how to train.
        world: the ranks, which train one model together.
        steps: of the whole run, for the schedule.
        class_weights: of the loss, `[C]`; None for equal ones.

    Attributes:
        model: as given, with the weights of the last step.
        average: of the weights; None where none is kept.
        metrics: of the batches so far.
        steps: done so far.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        world: World,
        *,
        steps: int,
        class_weights: torch.Tensor | None = None,
    ) -> None:
        self._config, self._world, self._class_weights = config, world, class_weights
        self.model = _synchronized(model, world)
        self.average = None if config.ema is None else WeightAverage(self.model, config.ema)
        self.metrics = FrameMetrics(world, losses=config.log_every)
        self.steps = 0
        self._optimizer = build_optimizer(self.model, config.optimizer)
        self._schedule = Schedule(config.schedule, config.optimizer.learning_rate, steps)
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
        self._forward = _parallel(self.model, config, world)

    @property
    def trained(self) -> nn.Module:
        """The model to be used: the average, where one is kept."""
        return self.average.model if self.average else self.model

    @property
    def schedule(self) -> Schedule:
        """Of the learning rate."""
        return self._schedule

    def step(self, batch: Batch) -> None:
        """Train on a batch, which has labels; what is not labelled does not count."""
        labels = batch.labels
        assert labels is not None
        for group in self._optimizer.param_groups:
            group["lr"] = self._schedule.rate(self.steps)
        # Of all ranks, so that each frame counts the same on a rank that has fewer.
        labelled = self._world.sum((labels != NO_LABEL).sum()).clamp(min=1)
        logits = forward(self._forward, batch.windows, self._config.precision)
        loss = functional.cross_entropy(
            logits,
            labels,
            weight=self._class_weights,
            ignore_index=NO_LABEL,
            reduction="sum",
            label_smoothing=self._config.label_smoothing,
        )
        # Gradients are averaged over ranks; their sum is what is wanted.
        scaled: torch.Tensor = self._scaler.scale(loss * self._world.size / labelled)
        scaled.backward()  # type: ignore[no-untyped-call]
        self._update()
        self.metrics.update(logits.detach(), labels, loss.detach())
        self.steps += 1

    def rate(self) -> float:
        """Return the learning rate of the last step."""
        return self._schedule.rate(max(self.steps - 1, 0))

    def state_dict(self) -> dict[str, Any]:
        """Return all that training goes on from beside the weights of `trained`; the same on every rank."""
        return {
            "steps": self.steps,
            "unaveraged": (self.model.state_dict(), self.average.updates) if self.average else None,
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "metrics": self.metrics.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        """Go on from a state and the weights of `trained`; a run that begins to average does so from these."""
        self.steps = state["steps"]
        unaveraged, updates = state["unaveraged"] or (weights, 1)
        self.model.load_state_dict(unaveraged)
        if self.average:
            self.average.model.load_state_dict(weights)
            self.average.updates = updates
        rates = [dict(group) for group in self._optimizer.param_groups]
        self._optimizer.load_state_dict(state["optimizer"])
        for group, configured in zip(self._optimizer.param_groups, rates, strict=True):
            group.update({name: configured[name] for name in ("weight_decay", "betas", "eps")})
        self._schedule.load_state_dict(state["schedule"])
        if self._scaler.is_enabled() and state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        self.metrics.load_state_dict(state["metrics"])

    def _update(self) -> None:
        clip = self._config.optimizer.max_gradient_norm
        if clip is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update()


def forward(model: nn.Module, windows: torch.Tensor, precision: str) -> torch.Tensor:
    """Return the logits `[B, C]` in float32, computed in a precision: `fp32`, `bf16` or `fp16`."""
    lower = _AUTOCAST.get(precision)
    with torch.autocast(windows.device.type, dtype=lower, enabled=lower is not None):
        logits: torch.Tensor = model(_aligned(windows if lower else windows.float()))
    return logits.float()


@contextmanager
def matrix_precision(device: torch.device, *, allow_tf32: bool) -> Iterator[None]:
    """Let float32 matrices be multiplied in TF32, where the device is a GPU that can."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allow_tf32 and device.type == "cuda" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _aligned(windows: torch.Tensor) -> torch.Tensor:
    """Return the same windows, on the CPU at an address at which matrices multiply alike.

    The last bits of a product depend on where its operands lie, and a batch lies elsewhere in a resumed run.
    """
    if windows.device.type == "cpu" and windows.data_ptr() % _ALIGNMENT:
        return windows.clone()
    return windows


def _synchronized(model: nn.Module, world: World) -> nn.Module:
    """Return the model with batch norm over all ranks, which torch has for CUDA alone."""
    if world.size > 1 and world.device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    return model


def _parallel(model: nn.Module, config: TrainingConfig, world: World) -> nn.Module:
    """Return what is called with windows: the model, beside other ranks, and compiled where that is wanted."""
    called = model
    if world.size > 1:
        ids = [world.device.index] if world.device.type == "cuda" else None
        called = DistributedDataParallel(model, device_ids=ids)
    if config.compile:
        compiled: Any = torch.compile(called)
        called = compiled
    return called
