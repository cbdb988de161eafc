"""What a run begins with: the weights of another run, or the state of a checkpoint of its own."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from dali_asr.config import Config
from dali_asr.errors import CheckpointError, UsageError, brief
from dali_asr.plan.steps import MIN_WINDOWS_PER_RANK
from dali_asr.runs.checkpoint import load_checkpoint, read_checkpoint, read_training, remedy, run_of, shown_name
from dali_asr.runs.run_path import CONFIG
from dali_asr.training.distributed import restore_generators
from dali_asr.training.ending import step_limits
from dali_asr.training.setup import build_schedule

if TYPE_CHECKING:
    from dali_asr.config import TrainingConfig
    from dali_asr.loading import LoaderState, WindowLoader
    from dali_asr.model import MLP
    from dali_asr.runs.checkpoint import Checkpoint
    from dali_asr.runs.description import ModelDescription
    from dali_asr.runs.state import StepperState, TrainingState
    from dali_asr.training.distributed import World
    from dali_asr.training.setup import Setup
    from dali_asr.training.step import Stepper

_ORDER_KEYS = {  # of the loader's state, with their keys in the configuration
    "partition": "data.train",
    "seed": "loader.seed",
    **{name: f"loader.{name}" for name in ("context", "shuffle", "subset", "drop_last", "dtype")},
}


def start_from(setup: Setup, source: str) -> None:
    """Copy the weights of another run's best checkpoint, or of a checkpoint, into the model of a run.

    The last layer keeps its random weights for symbols that the other inventory does not have. The notes and warnings
    of the setup say what was done.

    Args:
        setup: with the model freshly initialized, on the CPU.
        source: folder of a run or of a checkpoint.

    Raises:
        CheckpointError: it cannot be read, or is of a model with other layers or features.
    """
    model, description = setup.model, setup.description
    other = load_checkpoint(Path(source).expanduser())
    if differing := _differences_of_weights(other.description, description):
        raise CheckpointError(
            f"training.init: {source}: of another model: {'; '.join(differing)}; "
            f"{_remedy_of_weights(other.description, differing)}"
        )
    own = model.state_dict()
    # By position: layers of dropout, which may differ, shift the names.
    weights = dict(zip(own, other.build(torch.device("cpu")).state_dict().values(), strict=True))
    theirs, ours = other.description.inventory.symbols, description.inventory.symbols
    name, folder = shown_name(Path(source), other), run_of(Path(source))
    setup.notes.append(f"training.init: starts from the weights of {name} in {folder}")
    if theirs != ours:
        kept = [symbol for symbol in ours if symbol in theirs]
        for name in list(own)[-2:]:  # weight and bias of the last layer
            rows = own[name].clone()
            by_label, of_them = (values.unflatten(0, (-1, description.states)) for values in (rows, weights[name]))
            for symbol in kept:
                by_label[ours.index(symbol)] = of_them[theirs.index(symbol)]
            weights[name] = rows
        setup.notes.append(f"training.init: the last layer is new for {len(ours) - len(kept)} of {len(ours)} symbols")
    if other.description.normalization.kind != description.normalization.kind:
        setup.warnings.append(
            f"training.init: trained on features normalized by {other.description.normalization.kind}, here by "
            f"{description.normalization.kind}; set data.normalization to match, or pack a packed corpus again with it"
        )
    if _is_unknown_alike(other.description, description):
        setup.warnings.append(
            "training.init: it is not known how the features of one of the two corpora were computed; "
            "if otherwise than those of the other, the weights are of little use"
        )
    model.load_state_dict(weights)


def _differences_of_weights(theirs: ModelDescription, ours: ModelDescription) -> list[str]:
    """Return the differences of two models apart from labels, normalization and dropout, and features if unknown."""
    comparable = replace(_with_dropout_of(theirs, ours), inventory=ours.inventory, normalization=ours.normalization)
    if _is_unknown_alike(theirs, ours):
        comparable = replace(comparable, features=ours.features)
    return comparable.differences(ours)


def _remedy_of_weights(theirs: ModelDescription, differing: list[str]) -> str:
    """Return what to do about differences: features are the corpus's, the rest is the configuration's."""
    of_features = [each for each in differing if each.startswith("feature")]
    remedies = ["give the same model and loader.context"] if of_features != differing else []
    if of_features and theirs.features:
        remedies.insert(0, f"prepare the corpus with its features ({theirs.features.options()})")
    elif of_features:
        remedies.insert(0, f"give a corpus of its features, {theirs.feature_dim} per frame")
    return " and ".join(remedies)


def _with_dropout_of(theirs: ModelDescription, ours: ModelDescription) -> ModelDescription:
    """Return their description with our dropout, which weights do not depend on, if there are as many layers."""
    if len(theirs.hidden) != len(ours.hidden):
        return theirs
    hidden = tuple(replace(a, dropout=b.dropout) for a, b in zip(theirs.hidden, ours.hidden, strict=True))
    return replace(theirs, hidden=hidden)


def _is_unknown_alike(theirs: ModelDescription, ours: ModelDescription) -> bool:
    """Return whether it is not known if the features of two models are computed alike."""
    return theirs.features != ours.features and None in (theirs.features, ours.features)


def restore_checkpoint(path: Path, setup: Setup, stepper: Stepper, world: World) -> tuple[Checkpoint, TrainingState]:
    """Load a checkpoint into the loader, the stepper and the random generators.

    Raises:
        CheckpointError: it is damaged, invalid or of another model.
        UsageError: its loader has other settings, or the ranks cannot share its global batch.
    """
    checkpoint, state = read_checkpoint(path), read_training(path)
    _check_order(path, state, setup.batches, world.size)
    differing = _with_dropout_of(checkpoint.description, setup.description).differences(setup.description)
    if differing:
        raise CheckpointError(
            f"{path}: of another model: {'; '.join(differing)}; "
            "resume with the run's own configuration, or begin another run"
        )
    try:
        setup.batches.load_state_dict(cast("LoaderState", state.loader))
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).removeprefix('loader: ')}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path}: invalid (loader: {error!r}); {remedy(path)}") from error
    try:
        stepper.load_state(*_renamed(checkpoint, state.stepper, setup.model))
    except ValueError as error:
        raise CheckpointError(f"{path}: invalid (stepper: {error}); {remedy(path)}") from error
    restore_generators(state.generators, world, remedy(path))
    return checkpoint, state


def _renamed(checkpoint: Checkpoint, state: StepperState, model: MLP) -> tuple[StepperState, dict[str, torch.Tensor]]:
    """Return the state and the weights of a checkpoint with the names of a model, which layers of dropout shift."""
    with torch.device("meta"):
        theirs = checkpoint.description.build().state_dict()
    names = dict(zip(theirs, model.state_dict(), strict=True))

    def rename(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {names.get(name, name): tensor for name, tensor in weights.items()}

    if state.unaveraged:
        unaveraged, updates = state.unaveraged
        state = state.model_copy(update={"unaveraged": (rename(unaveraged), updates)})
    return state, rename(checkpoint.weights)


def schedule_warnings(kind: str, state: TrainingState) -> list[str]:
    """Return a warning if the run was trained with a lowered rate that the configured schedule does not know."""
    scale = state.stepper.schedule.scale
    if kind == "plateau" or scale == 1:
        return []
    return [
        f"training.schedule.kind: the plateau schedule had lowered the learning rate to {scale:g} of its peak; {kind} "
        "starts from the peak. To keep the lowered rate, resume with training.schedule.kind: plateau"
    ]


def length_warnings(run: Path, settings: TrainingConfig, steps_per_epoch: int, step: int) -> list[str]:
    """Return a warning if a resumed run has another length, on which its learning rate depends.

    Args:
        run: the run's folder, whose configuration says how long the run was.
        settings: how it goes on.
        steps_per_epoch: the number of steps per epoch.
        step: the number of steps done.
    """
    try:
        before = Config.load(run / CONFIG).training
    except UsageError:
        return []
    was, now = (step_limits(each, steps_per_epoch)[0] for each in (before, settings))
    if before.schedule.kind != "cosine" or settings.schedule.kind != "cosine" or was == now or not 0 < step < now:
        return []
    last, following = build_schedule(before, was).rate(step - 1), build_schedule(settings, now).rate(step)
    return [
        f"training.schedule.kind: cosine over {now:,} steps (was {was:,}): the learning rate at the next step "
        f"is {following:.3g} (it was {last:.3g})"
    ]


def _check_order(path: Path, state: TrainingState, batches: WindowLoader, ranks: int) -> None:
    """Check that a checkpoint's loader read the same windows in the same order as this one.

    Raises:
        UsageError: it did not; names the keys of the configuration that differ, and how to set them back.
    """
    theirs, ours = state.loader.get("belongs_to"), batches.state_dict()["belongs_to"]
    if not isinstance(theirs, dict):
        return  # which the loader refuses
    keys = {name: key for name, key in _ORDER_KEYS.items() if theirs.get(name) != ours[name]}
    found = [f"{key} {brief(theirs.get(name))} (here {brief(ours[name])})" for name, key in keys.items()]
    values = theirs | {"partition": str(theirs.get("partition")).split("+")}
    back = [shlex.quote(f"{key}={json.dumps(values.get(name))}") for name, key in keys.items()]
    if theirs.get("partition") == ours["partition"] and theirs.get("corpus") != ours["corpus"]:
        found.append("another corpus")
        back.append("the corpus in data.root as it was")
    if theirs.get("global_batch") != ours["global_batch"]:
        found.append(f"a global batch of {brief(theirs.get('global_batch'))} (here {ours['global_batch']})")
        back.append(_batch_size_advice(state.global_batch, ranks))
    if found:
        raise UsageError(
            f"{path}: was trained with {', '.join(found)}; go on with {' and '.join(back)}, or begin another run"
        )


def _batch_size_advice(global_batch: int, ranks: int) -> str:
    """Return how to keep the global batch on a number of ranks."""
    fitting = [
        count
        for count in range(1, max(2 * ranks, 9))
        if global_batch % count == 0 and (count == 1 or global_batch // count >= 2 * MIN_WINDOWS_PER_RANK)
    ]
    if ranks in fitting:
        return f"loader.batch_size={global_batch // ranks}"
    return (
        f"another number of processes: {ranks} cannot share the global batch of {global_batch}, "
        f"use {', '.join(map(str, fitting))}"
    )
