"""When a run ends, and what it says then: what is saved, why it ended, and the command that goes on from there."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from dali_asr.errors import UsageError
from dali_asr.runs.checkpoint import list_checkpoints
from dali_asr.runs.run_path import CONFIG

if TYPE_CHECKING:
    from pathlib import Path

    from dali_asr.config import TrainingConfig


def step_limits(settings: TrainingConfig, steps_per_epoch: int) -> tuple[int, list[str]]:
    """Return the number of steps of a run, and the keys of the configuration that limit it."""
    limits = {"training.epochs": settings.epochs * steps_per_epoch}
    if settings.max_steps:
        limits["training.max_steps"] = settings.max_steps
    total = min(limits.values())
    return total, [key for key, steps in limits.items() if steps == total]


def check_length(run: Path, step: int, settings: TrainingConfig, steps_per_epoch: int) -> None:
    """Check that a run goes on from a step that its configuration reaches: what is trained cannot be taken back.

    Raises:
        UsageError: the step is beyond the last one.
    """
    total, keys = step_limits(settings, steps_per_epoch)
    if step <= total:
        return
    epochs = "1 epoch has" if settings.epochs == 1 else f"{settings.epochs:,} epochs have"
    limits = {"training.epochs": f"{epochs} {total:,} steps", "training.max_steps": f"training.max_steps is {total:,}"}
    raise UsageError(
        f"{run}: step {step:,} is done, and {' and '.join(limits[key] for key in keys)}; raise {' and '.join(keys)}, "
        "or resume from an earlier checkpoint"
    )


def nothing_left(step: int, total: int, keys: list[str]) -> str:
    """Say that a resumed run was done already, and which keys prolong it."""
    return f"Nothing was left to train: step {step:,} of {total:,} is done; raise {' and '.join(keys)}"


def stopped_early(step: int, total: int, waited: int) -> str:
    """Say that a run stopped after a number of evaluations without a better one."""
    return (
        f"Stopped early after step {step:,} of {total:,}: no better dev accuracy in {waited} evaluations "
        "(training.early_stopping)"
    )


def saved_at(run: Path, step: int, total: int, ranks: int) -> str:
    """Say that a run was interrupted, and how it goes on from the checkpoint that was saved then."""
    return (
        f"interrupted at step {step:,} of {total:,}; the checkpoint is saved, "
        f"continue with: {_command(ranks, '--resume', str(run))}"
    )


def lost_at(run: Path, step: int, ranks: int) -> str:
    """Say that a run was interrupted at once, what is saved of it, and how it goes on."""
    found = list_checkpoints(run)
    if found:
        command = _command(ranks, "--resume", str(run))
        kept = f"{run} keeps the checkpoint {found[-1].name}, continue with: {command}"
    else:
        command = _command(ranks, str(run / CONFIG), "--run-folder", str(run), "--resume", "auto")
        kept = f"no checkpoint is saved yet, begin again with: {command}"
    return f"interrupted at step {step:,}; {kept}"


def diverged(run: Path, what: str, step: int, rate: float) -> str:
    """Say that the loss or a weight is not finite after a step at a learning rate."""
    found = list_checkpoints(run)
    kept = f"{run} keeps the checkpoint {found[-1].name}" if found else "nothing was saved yet"
    return (
        f"{what} is not finite at step {step:,}, learning rate {rate:g}; "
        f"{kept}; lower training.optimizer.learning_rate, or set training.optimizer.max_gradient_norm: 1"
    )


def _command(ranks: int, *arguments: str) -> str:
    if ranks > 1:
        return f"the same torchrun command and {shlex.join(arguments)}"
    return shlex.join(["dali-asr", "train", *arguments])
