"""From configuration and corpus to the objects that a training run works with."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from dali_asr.audio.settings import FeatureSettings
from dali_asr.build import (
    build_hidden,
    check_batches,
    check_size,
    complete_loader,
    partition_of,
    training_loader,
    training_partition,
)
from dali_asr.corpus.labels import balanced_weights, label_counts, warn_of_missing
from dali_asr.corpus.segment_counts import count_segments
from dali_asr.errors import CheckpointError, UsageError, brief
from dali_asr.plan.steps import MIN_WINDOWS_PER_RANK
from dali_asr.runs.checkpoint import load_checkpoint, read_checkpoint, read_training, remedy, run_of
from dali_asr.runs.description import ModelDescription
from dali_asr.runs.folder import RunFolder, make_unused
from dali_asr.training.distributed import restore_generators, synchronized
from dali_asr.training.step import Schedule, Stepper, build_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from dali_asr.config import Config, TrainingConfig
    from dali_asr.corpus import Corpus, Partition
    from dali_asr.corpus.segment_counts import SegmentCounts
    from dali_asr.loading import LoaderState, WindowLoader
    from dali_asr.model import MLP
    from dali_asr.runs.checkpoint import Checkpoint
    from dali_asr.runs.start import Start
    from dali_asr.runs.state import TrainingState
    from dali_asr.training.distributed import World

_ORDER_KEYS = {  # of the loader's state, with their keys in the configuration
    "partition": "data.train",
    "seed": "loader.seed",
    **{name: f"loader.{name}" for name in ("context", "shuffle", "subset", "drop_last", "dtype")},
}


@dataclass(frozen=True)
class Setup:
    """The loaders and the model of a run, before anything is shared between ranks.

    Attributes:
        batches: the loader of training batches.
        dev: the loader of the dev partition; None if none is configured.
        description: the description of the model.
        model: the model, initialized, on the CPU.
        class_weights: weights of the labels in the loss, `[C]`; None for equal weights.
        segments: counts of the label segments to train on; None for inventories of more than 1,000 symbols.
        notes: what is worth knowing, such as the weights that the run starts from.
        warnings: what the user should know, such as symbols without frames.
    """

    batches: WindowLoader
    dev: WindowLoader | None
    description: ModelDescription
    model: MLP
    class_weights: torch.Tensor | None
    segments: SegmentCounts | None
    notes: list[str]
    warnings: list[str]


def set_up(config: Config, corpus: Corpus, world: World, shared: Setup | None = None) -> Setup:
    """Build the loaders and the model of a configuration.

    Args:
        config: the configuration.
        corpus: the corpus to train on.
        world: the ranks, which train one model together.
        shared: a setup of another run that reads the same batches, whose loaders serve this one too.

    Raises:
        DataError, UsageError: a partition without labels or with fewer frames than a batch, a model that is too large.
    """
    train = training_partition(corpus, config.data)
    dev = partition_of(corpus, "data.dev", config.data.dev) if config.data.dev else None
    counts = label_counts(train, "data.train")
    if dev:
        label_counts(dev, "data.dev")
    batches, dev_batches = (shared.batches, shared.dev) if shared else _loaders(config, train, dev, world)
    description = ModelDescription(
        config.loader.context,
        train.feature_dim,
        build_hidden(config.model),
        config.model.activation,
        config.model.residual,
        corpus.inventory,
        corpus.normalization,
        FeatureSettings.from_json(corpus.features) if corpus.features else None,
    )
    check_batches(batches, train, description.hidden)
    torch.manual_seed(config.training.seed)
    model = description.build()
    check_size(model, config.model)
    balanced = config.training.class_weights == "balanced"
    return Setup(
        batches,
        dev_batches,
        description,
        model,
        torch.from_numpy(balanced_weights(counts)) if balanced else None,
        shared.segments if shared else count_segments(train),
        _notes(config, train.frame_count, int(counts.sum())),
        [warning] if (warning := warn_of_missing(counts, corpus.inventory, train.name)) else [],
    )


def _loaders(
    config: Config, train: Partition, dev: Partition | None, world: World
) -> tuple[WindowLoader, WindowLoader | None]:
    """Return the loader of training batches, and that of the dev partition if there is one."""
    loader = config.loader
    batches = training_loader(
        loader, train, seed=config.order_seed, device=world.device, rank=world.rank, world_size=world.size
    )
    if dev is None:
        return batches, None
    return batches, complete_loader(
        dev,
        context=loader.context,
        batch_size=loader.batch_size,
        memory_budget=loader.memory_budget,
        device=world.device,
        rank=world.rank,
        world_size=world.size,
    )


def _notes(config: Config, frames: int, labelled: int) -> list[str]:
    if config.data.drop is None:
        return []
    return [f"data.drop: {config.data.drop}: labels of {labelled:,} of {frames:,} frames are left to train on"]


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
            f"training.init: {source}: of another model: {'; '.join(differing)}; give the same model and loader.context"
        )
    own = model.state_dict()
    # By position: layers of dropout, which may differ, shift the names.
    weights = dict(zip(own, other.build(torch.device("cpu")).state_dict().values(), strict=True))
    theirs, ours = other.description.inventory.symbols, description.inventory.symbols
    setup.notes.append(f"training.init: starts from the weights of {other.name} in {run_of(Path(source))}")
    if theirs != ours:
        kept = [symbol for symbol in ours if symbol in theirs]
        for name in list(own)[-2:]:  # weight and bias of the last layer
            rows = own[name].clone()
            for symbol in kept:
                rows[ours.index(symbol)] = weights[name][theirs.index(symbol)]
            weights[name] = rows
        setup.notes.append(f"training.init: the last layer is new for {len(ours) - len(kept)} of {len(ours)} symbols")
    if other.description.normalization.kind != description.normalization.kind:
        setup.warnings.append(
            f"training.init: trained on features normalized by {other.description.normalization.kind}, here by "
            f"{description.normalization.kind}; set data.normalization to match, or pack a packed corpus again with it"
        )
    model.load_state_dict(weights)


def _differences_of_weights(theirs: ModelDescription, ours: ModelDescription) -> list[str]:
    """Return the differences of two models apart from labels, normalization and dropout."""
    hidden = theirs.hidden
    if len(hidden) == len(ours.hidden):
        hidden = tuple(replace(a, dropout=b.dropout) for a, b in zip(hidden, ours.hidden, strict=True))
    comparable = replace(theirs, hidden=hidden, inventory=ours.inventory, normalization=ours.normalization)
    return comparable.differences(ours)


def build_stepper(
    model: nn.Module, config: TrainingConfig, world: World, *, steps: int, class_weights: torch.Tensor | None = None
) -> Stepper:
    """Return the stepper of a configuration.

    Args:
        model: the model, on the world's device.
        config: how to train.
        world: the ranks, which train one model together.
        steps: the number of steps of the whole run.
        class_weights: weights of the labels in the loss, `[C]`; None for equal weights.
    """
    optimizer, schedule = config.optimizer, config.schedule
    model = synchronized(model, world)
    return Stepper(
        model,
        build_optimizer(
            model,
            learning_rate=optimizer.learning_rate,
            weight_decay=optimizer.weight_decay,
            betas=optimizer.betas,
            eps=optimizer.eps,
        ),
        Schedule(optimizer.learning_rate, steps, **schedule.model_dump()),
        world,
        precision=config.precision,
        label_smoothing=config.label_smoothing,
        class_weights=None if class_weights is None else class_weights.to(world.device),
        max_gradient_norm=optimizer.max_gradient_norm,
        ema=config.ema,
        compiled=config.compile,
        losses=config.log_every,
    )


def restore_checkpoint(path: Path, setup: Setup, stepper: Stepper, world: World) -> tuple[Checkpoint, TrainingState]:
    """Load a checkpoint into the loader, the stepper and the random generators.

    Raises:
        CheckpointError: it is damaged, invalid or of another model.
        UsageError: its loader has other settings, or the ranks cannot share its global batch.
    """
    checkpoint, state = read_checkpoint(path), read_training(path)
    _check_order(path, state, setup.batches, world.size)
    differing = checkpoint.description.differences(setup.description)
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
        stepper.load_state(state.stepper, checkpoint.weights)
    except ValueError as error:
        raise CheckpointError(f"{path}: invalid (stepper: {error}); {remedy(path)}") from error
    restore_generators(state.generators, world, remedy(path))
    return checkpoint, state


def warmup_warnings(warmup_steps: int, steps: int) -> list[str]:
    """Return a warning if a run ends before its warm-up."""
    if warmup_steps <= steps:
        return []
    return [
        f"training.schedule.warmup_steps: {warmup_steps:,}, but the run has {steps:,} steps, so that the learning rate "
        "never reaches its peak; lower it, or train for more epochs"
    ]


def schedule_warnings(kind: str, state: TrainingState) -> list[str]:
    """Return a warning if the run was trained with a lowered rate that the configured schedule does not know."""
    scale = state.stepper.schedule.scale
    if kind == "plateau" or scale == 1:
        return []
    return [
        f"training.schedule.kind: the plateau schedule had lowered the learning rate to {scale:g} of its peak; {kind} "
        "starts from the peak. To keep the lowered rate, resume with training.schedule.kind: plateau"
    ]


def open_folder(
    start: Start, config: Config, batches: WindowLoader, checkpoint: Checkpoint | None, warn: Callable[[str], None]
) -> RunFolder:
    """Return the run's folder, ready to be written to; on rank 0.

    Args:
        start: where the run begins.
        config: the resolved configuration.
        batches: the loader of training batches.
        checkpoint: the one that training continues from; None for a new run.
        warn: receives warnings.

    Raises:
        DataError, UsageError: see `RunFolder` and its method `begin`.
    """
    policy = config.training.on_write_error
    path = make_unused(start.run) if start.dated else start.run
    folder = RunFolder(path, resumed=start.resumed, on_write_error=policy, warn=warn)
    try:
        folder.begin(config, batches, checkpoint, recipe=start.recipe, from_last=start.from_last)
    except BaseException:
        folder.close()
        raise
    return folder


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
