"""Training several small models on every batch at once: one gather, one forward and one backward feed all of them.

The parameters of the K members lie in stacks `[K, ...]`, and those of each member's own model are views of them.
Forward and backward run once over the stacks, by `torch.func.vmap`. Everything else is that of a run alone, on its own
model: loss, clipping, AdamW, schedule, metrics, evaluation, checkpoints.

A member's weights are those of a run alone within the rounding of float32; only biases before batch norm drift apart,
because they have no gradient but rounding errors, and batch norm removes them. Dropout draws from one random generator
for all members, and so draws other values than in a run alone.

Shape letters: `K` members, `B` windows of a batch, `W` frames of a window, `D` features of a frame, `C` labels.
"""

from __future__ import annotations

from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import nn

from dali_asr.errors import DeviceError, TrainingError, TrainingInterrupted
from dali_asr.model import parameter_count
from dali_asr.runs.checkpoint import list_checkpoints
from dali_asr.runs.start import Start
from dali_asr.signals import StopRequest
from dali_asr.training.clock import EpochClock
from dali_asr.training.distributed import joined
from dali_asr.training.loop import Training, TrainingResult
from dali_asr.training.step import forward, matrix_precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from dali_asr.config import Config
    from dali_asr.corpus import Corpus
    from dali_asr.loading import Batch
    from dali_asr.runs.reporter import Reporter
    from dali_asr.training.distributed import World

# What members may differ in; everything else decides the batches, the model, or when something is due.
_OWN = {"seed", "optimizer", "schedule", "label_smoothing", "class_weights"}


def stack_key(config: Config) -> str | None:
    """Return a text that is equal for configurations which can train together; None for one that trains alone.

    They have the same corpus, loader with its order, model of one state per label and number of steps, and train in
    float32 without compilation, teacher, average of the weights, early stopping and trackers.
    """
    training = config.training
    given = (training.ema, training.early_stopping, training.teacher.folder)
    alone = training.compile or config.tracking or any(value is not None for value in given)
    if training.precision != "fp32" or config.model.states > 1 or alone:
        return None
    rest = config.model_dump_json(exclude={"run": True, "wandb": True, "loader": {"seed"}, "training": _OWN})
    return f"{config.order_seed} {rest}"


def common_starts(runs: Sequence[Path], recipe: str) -> list[Start] | None:
    """Return where runs begin together: anew, or after the last checkpoint of the same step; None if there is none."""
    found = [{path.name for path in list_checkpoints(run)} for run in runs]
    shared = set.intersection(*found)
    if any(found) and not shared:
        return None
    last = max(shared, default=None)
    return [
        Start(run, resumed=True, checkpoint=run / "checkpoints" / last if last else None, recipe=recipe) for run in runs
    ]


def train_together(
    configs: Sequence[Config], starts: Sequence[Start], corpus: Corpus, reporters: Sequence[Reporter]
) -> list[TrainingResult | TrainingError]:
    """Train several models on the same batches; each leaves the run folder that `train` leaves.

    The times in a run's folder are those of all members together.

    Args:
        configs: configurations with one `stack_key`.
        starts: where they begin, of `common_starts`.
        corpus: the corpus to train on.
        reporters: receive the progress of each.

    Returns:
        The result of each; the error of one whose loss or weights are not finite.

    Raises:
        DataError, UsageError, DeviceError, CheckpointError, TrainingInterrupted: as `train`.
    """
    first = configs[0]
    with joined(first.loader.device) as world, matrix_precision(world.device, allow_tf32=first.training.allow_tf32):
        try:
            return _Stack(configs, starts, corpus, reporters, world).run()
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{world.device}: out of memory with {len(configs)} models; train fewer together"
            ) from error


class StackedModel(nn.Module):
    """Models of one shape as one, which maps windows `[B, W, D]` to logits `[K, B, C]`.

    The parameters and buffers of the models become views of the stacks.

    Args:
        models: the models, on one device.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self._models = tuple(models)  # no submodules
        self._shape = [deepcopy(models[0]).to("meta").train()]  # in a list for the same reason
        self._weights, buffers = torch.func.stack_module_state(list(models))
        self._state = self._weights | buffers
        for at, model in enumerate(models):
            for name, tensor in (*model.named_parameters(), *model.named_buffers()):
                tensor.data = self._state[name].detach()[at]

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows `[B, W, D]` to the logits `[K, B, C]` of a training step."""

        def call(state: dict[str, torch.Tensor]) -> torch.Tensor:
            logits: torch.Tensor = torch.func.functional_call(self._shape[0], state, (windows,))
            return logits

        # Dropout differs between members.
        return torch.func.vmap(call, randomness="different")(self._state)

    def hand_out(self) -> None:
        """Give every model its part of the gradients, and forget the stacked ones."""
        for at, model in enumerate(self._models):
            for name, parameter in model.named_parameters():
                gradient = self._weights[name].grad
                parameter.grad = None if gradient is None else gradient[at]
        for weight in self._weights.values():
            weight.grad = None


class _Stack:
    """Runs that train together, from their start to their end or an interruption."""

    def __init__(
        self,
        configs: Sequence[Config],
        starts: Sequence[Start],
        corpus: Corpus,
        reporters: Sequence[Reporter],
        world: World,
    ) -> None:
        self._members: list[Training] = []
        self._failed: dict[int, TrainingError] = {}
        self._stop = StopRequest()
        try:
            for config, start, reporter in zip(configs, starts, reporters, strict=True):
                beside = self._members[0] if self._members else None
                self._members.append(Training(config, corpus, world, start, reporter, beside))
            self._model = StackedModel([member.stepper.model for member in self._members])
        except BaseException:
            self._close()
            raise

    def run(self) -> list[TrainingResult | TrainingError]:
        """Train what is left of all runs."""
        try:
            for member in self._members:
                parameters = parameter_count(member.stepper.model)
                member.reporter.started(
                    member.path, member.batches, parameters, member.stepper.steps, member.total_steps
                )
            with self._stop.recorded():
                while self._active and not self._lead.is_done:
                    self._train_epoch()
        except KeyboardInterrupt as error:  # a second Ctrl-C
            raise TrainingInterrupted("interrupted; the last checkpoints are kept", 130) from error
        finally:
            self._close()
        return [
            self._failed.get(at) or TrainingResult(member.path, member.history.epochs)
            for at, member in enumerate(self._members)
        ]

    @property
    def _active(self) -> dict[int, Training]:
        return {at: member for at, member in enumerate(self._members) if at not in self._failed}

    @property
    def _lead(self) -> Training:
        """The first member that has not failed; all of them are at the same step."""
        return next(iter(self._active.values()))

    def _train_epoch(self) -> None:
        clock = EpochClock(self._lead.within_epoch)
        for member in self._members:
            member.stepper.model.train()
        for batch in clock.wait.over(self._batches_left()):
            clock.frames += len(batch.frame_ids)
            self._step(batch, clock)
            self._stop_if_asked()
        for at, member in self._active.items():
            with self._may_fail(at):
                member.finish_epoch(clock)
        self._stop_if_asked()

    def _batches_left(self) -> Iterator[Batch]:
        if self._lead.epoch_is_over:
            return
        for batch in self._lead.batches:
            yield batch
            if not self._active or self._lead.stepper.steps == self._lead.total_steps:
                return

    def _step(self, batch: Batch, clock: EpochClock) -> None:
        logits = forward(self._model, batch.windows, "fp32")
        losses = [member.stepper.loss(logits[at], batch.labels) for at, member in self._active.items()]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        self._model.hand_out()
        for at, member in self._active.items():
            with self._may_fail(at):
                member.finish_step(clock)

    @contextmanager
    def _may_fail(self, at: int) -> Iterator[None]:
        """Go on without a member whose loss or weights are not finite."""
        try:
            yield
        except TrainingError as error:
            self._failed[at] = error

    def _stop_if_asked(self) -> None:
        """Save all members and stop, if a signal asked for it.

        Raises:
            TrainingInterrupted: a signal arrived.
        """
        if self._stop.signal is None:
            return
        for at, member in self._active.items():
            if member.saved is None:
                with self._may_fail(at):
                    member.save(final=True)
        raise TrainingInterrupted("interrupted; the checkpoints are saved", self._stop.exit_code)

    def _close(self) -> None:
        for member in self._members:
            if member.folder:
                member.folder.close(draw=True)
