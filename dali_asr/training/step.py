"""One optimizer step: forward, loss, backward, clipping, AdamW, averaging of the weights.

Nothing here waits for the device.

Shape letters: `B` windows of a batch, `C` labels, `K` states of a label, `F` frames of the partition.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from dali_asr.corpus import NO_LABEL
from dali_asr.runs.state import check_moments, check_weights
from dali_asr.training.metrics import FrameMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dali_asr.loading import Batch
    from dali_asr.model import MLP
    from dali_asr.runs.state import ScheduleState, StepperState
    from dali_asr.training.distributed import World

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_ALIGNMENT = 64  # bytes


class Stepper:
    """Trains a model: call `forward`, `backward` and `update` for every batch.

    Args:
        model: the model, on the world's device.
        optimizer: the optimizer of its parameters.
        schedule: the learning rate of every step.
        world: the ranks, which train one model together.
        precision: the precision of matrix multiplications: `fp32`, `bf16` or `fp16`.
        label_smoothing: the fraction of a label's probability that is spread over all labels.
        class_weights: weights of the labels in the loss, `[C]`; None for equal weights.
        max_gradient_norm: gradients with a larger norm are scaled down to it; None for no limit.
        ema: decay per step of an exponential moving average of the weights; None for no average.
        compiled: whether torch compiles the model.
        states: the state of each frame of the partition, `[F]`; None if the model has one per label.
        teacher: log probabilities of a teacher for each frame, up to a constant, `[F, C·K]`; None without one.
        teacher_weight: the weight of the teacher in the loss; the labels have the rest.
        losses: the number of losses that `metrics` remembers.

    Attributes:
        model: the model, with the weights of the last step.
        average: the average of its weights, or None.
        metrics: loss and accuracy over the batches so far.
        schedule: the learning rate of every step.
        steps: the number of steps done.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        world: World,
        *,
        precision: str = "fp32",
        label_smoothing: float = 0.0,
        class_weights: torch.Tensor | None = None,
        max_gradient_norm: float | None = None,
        ema: float | None = None,
        compiled: bool = False,
        states: torch.Tensor | None = None,
        teacher: torch.Tensor | None = None,
        teacher_weight: float = 0.5,
        losses: int = 1,
    ) -> None:
        self.model, self.schedule = model, schedule
        self.average = None if ema is None else WeightAverage(model, ema)
        self.metrics = FrameMetrics(world, losses=losses)
        self.steps = 0
        self._optimizer, self._world = optimizer, world
        self._precision, self._label_smoothing = precision, label_smoothing
        self._class_weights, self._max_gradient_norm = class_weights, max_gradient_norm
        self._states, self._teacher, self._teacher_weight = states, teacher, teacher_weight
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=precision == "fp16")
        self._called = _distributed(model, world)
        if compiled:
            self._called = torch.compile(self._called)  # type: ignore[assignment]

    @property
    def trained(self) -> nn.Module:
        """The model to evaluate and save: the average if there is one."""
        return self.average.model if self.average else self.model

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch, a mean over the labelled frames of all ranks."""
        logits = forward(self._called, batch.windows, self._precision, by_state=self._states is not None)
        of_frames = (None if all_ is None else all_[batch.frame_ids] for all_ in (self._states, self._teacher))
        return self.loss(logits, batch.labels, *of_frames)

    def loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        states: torch.Tensor | None = None,
        teacher: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss as `forward` does, and add it to the metrics.

        Args:
            logits: `[B, C]`, or `[B, C·K]` of states.
            labels: `[B]`.
            states: the state of each window's own frame, `[B]`.
            teacher: what the teacher says of it, as the logits.
        """
        targets, weights, of_labels = labels, self._class_weights, logits
        if states is not None:
            sums = cast("MLP", self.model).layers[-1]
            of_labels = sums(logits.detach())
            count = logits.shape[1] // of_labels.shape[1]
            targets = torch.where(labels == NO_LABEL, NO_LABEL, labels * count + states)
            weights = None if weights is None else weights.repeat_interleave(count)
        # Counted over all ranks, so that a frame weighs the same on a rank that has fewer.
        labelled = self._world.sum((labels != NO_LABEL).sum()).clamp(min=1)
        loss = functional.cross_entropy(
            logits,
            targets,
            weight=weights,
            ignore_index=NO_LABEL,
            reduction="sum",
            label_smoothing=self._label_smoothing,
        )
        if teacher is not None:
            soft = functional.cross_entropy(logits, teacher.float().softmax(dim=1), reduction="none")
            loss = torch.lerp(loss, (soft * (labels != NO_LABEL)).sum(), self._teacher_weight)
        self.metrics.update(of_labels.detach(), labels, loss.detach())
        # DistributedDataParallel averages gradients over ranks; the factor makes it a sum.
        return loss * self._world.size / labelled

    def backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients of a loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Clip the gradients, update the weights and their average."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.steps)
        if self._max_gradient_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._max_gradient_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update()
        self.steps += 1

    def rate(self) -> float:
        """Return the learning rate of the last step."""
        return self.schedule.rate(max(self.steps - 1, 0))

    def state_dict(self) -> dict[str, Any]:
        """Return the values of a `StepperState`, the same on every rank."""
        return {
            "steps": self.steps,
            "unaveraged": (dict(self.model.state_dict()), self.average.updates) if self.average else None,
            "optimizer": self._optimizer.state_dict()["state"],
            "schedule": self.schedule.state_dict(),
            "scaler": self._scaler.state_dict() or None,
            "metrics": self.metrics.state_dict(),
        }

    def load_state(self, state: StepperState, weights: dict[str, torch.Tensor]) -> None:
        """Continue from a state and the weights of `trained`. If the saved run had no average, it starts from these.

        Raises:
            ValueError: the state does not fit the model.
        """
        unaveraged, updates = state.unaveraged or (weights, 1)
        check_weights(unaveraged, self.model.state_dict())
        groups = self._optimizer.state_dict()["param_groups"]  # the configured ones apply
        check_moments(state.optimizer, [p for group in self._optimizer.param_groups for p in group["params"]])
        self.steps = state.steps
        self.model.load_state_dict(unaveraged)
        if self.average:
            self.average.model.load_state_dict(weights)
            self.average.updates = updates
        self._optimizer.load_state_dict({"state": state.optimizer, "param_groups": groups})
        self.schedule.load_state(state.schedule)
        if self._scaler.is_enabled() and state.scaler:
            self._scaler.load_state_dict(state.scaler.model_dump(by_alias=True))
        self.metrics.load_state(state.metrics)


class WeightAverage:
    """An exponential moving average of a model's weights and batch norm statistics (Polyak and Juditsky 1992).

    `torch.optim.swa_utils.AveragedModel` reads its step counter from the device at every update, and so waits for it.

    Args:
        model: the model whose weights are averaged.
        decay: the decay per step. The first update copies the weights.

    Attributes:
        model: a copy of the model, with the averaged weights.
        updates: the number of updates.
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


def build_optimizer(
    model: nn.Module,
    *,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.Optimizer:
    """Return fused AdamW (Loshchilov and Hutter 2019), without weight decay on normalization layers and biases."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, fused=True)


class Schedule:
    """The learning rate of every step: a linear warm-up, then constant, cosine or plateau.

    Args:
        peak: the highest rate.
        steps: the number of steps of the whole run.
        kind: `constant`; `cosine`, half a cosine (Loshchilov and Hutter 2017) that reaches the floor at the last step;
            or `plateau`, lowered whenever the dev accuracy stops rising.
        warmup_steps: the number of steps of the warm-up.
        floor: the lowest rate, as a fraction of the peak.
        factor: for `plateau`, the factor that lowers the rate.
        patience: for `plateau`, the number of evaluations without a rise before the rate is lowered.
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        *,
        kind: Literal["constant", "cosine", "plateau"] = "constant",
        warmup_steps: int = 0,
        floor: float = 0.0,
        factor: float = 0.5,
        patience: int = 1,
    ) -> None:
        self._peak, self._steps, self._kind = peak, steps, kind
        self._warmup_steps, self._floor, self._factor, self._patience = warmup_steps, floor, factor, patience
        self._scale, self._waited = 1.0, 0
        self._best: float | None = None

    def rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0."""
        if step < self._warmup_steps:
            return self._peak * (step + 1) / (self._warmup_steps + 1)
        if self._kind == "cosine":
            done = (step - self._warmup_steps) / max(self._steps - self._warmup_steps, 1)
            share = (1 + math.cos(math.pi * min(done, 1.0))) / 2
            return self._peak * (self._floor + (1 - self._floor) * share)
        return self._peak * max(self._scale, self._floor)

    def evaluated(self, score: float) -> None:
        """Take the dev accuracy of an epoch into account."""
        if self._kind != "plateau":
            return
        rose = self._best is None or score > self._best
        self._waited = 0 if rose else self._waited + 1
        self._best = score if rose else self._best
        if self._waited > self._patience:
            self._scale, self._waited = self._scale * self._factor, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the values of a `ScheduleState`."""
        return {"scale": self._scale, "best": self._best, "waited": self._waited}

    def load_state(self, state: ScheduleState) -> None:
        """Continue from a state. Only `plateau` keeps a lowered rate; the other kinds follow from the step alone."""
        if self._kind == "plateau":
            self._scale, self._best, self._waited = state.scale, state.best, state.waited


def forward(model: nn.Module, windows: torch.Tensor, precision: str, *, by_state: bool = False) -> torch.Tensor:
    """Return the logits `[B, C]`, or `[B, C·K]` by state, in float32, computed in `fp32`, `bf16` or `fp16`."""
    lower = _AUTOCAST.get(precision)
    with torch.autocast(windows.device.type, dtype=lower, enabled=lower is not None):
        given = _aligned(windows if lower else windows.float())
        logits: torch.Tensor = model(given, by_state=True) if by_state else model(given)
    return logits.float()


@contextmanager
def matrix_precision(device: torch.device, *, allow_tf32: bool) -> Iterator[None]:
    """Allow or forbid TF32 in float32 matrix multiplications on a GPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allow_tf32 and device.type == "cuda" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _aligned(windows: torch.Tensor) -> torch.Tensor:
    """Return the same windows, on the CPU at an aligned address.

    The last bits of a product depend on the address of its operands, which differs in a resumed run.
    """
    if windows.device.type == "cpu" and windows.data_ptr() % _ALIGNMENT:
        return windows.clone()
    return windows


def _distributed(model: nn.Module, world: World) -> nn.Module:
    if world.size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[world.device.index] if world.device.type == "cuda" else None)
