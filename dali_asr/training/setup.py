"""From configuration and corpus to the objects that a training run works with."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dali_asr.audio.settings import FeatureSettings
from dali_asr.build import (
    build_hidden,
    check_batches,
    check_size,
    complete_loader,
    dropped_partitions,
    partition_of,
    training_loader,
    training_partition,
)
from dali_asr.corpus.labels import balanced_weights, label_counts, warn_of_missing
from dali_asr.corpus.segment_counts import count_segments
from dali_asr.corpus.states import frame_states
from dali_asr.inventory import ARPABET
from dali_asr.runs.description import ModelDescription
from dali_asr.runs.folder import RunFolder, make_unused
from dali_asr.training.distributed import synchronized
from dali_asr.training.step import Schedule, Stepper, build_optimizer
from dali_asr.training.teacher import read_soft_targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from dali_asr.config import Config, DataConfig, ScheduleConfig, TrainingConfig
    from dali_asr.corpus import Corpus, Partition
    from dali_asr.corpus.segment_counts import SegmentCounts
    from dali_asr.loading import WindowLoader
    from dali_asr.model import MLP
    from dali_asr.runs import Reporter
    from dali_asr.runs.checkpoint import Checkpoint
    from dali_asr.runs.start import Start
    from dali_asr.training.distributed import World


@dataclass(frozen=True)
class Setup:
    """The loaders and the model of a run, before anything is shared between ranks.

    Attributes:
        batches: the loader of training batches.
        dev: the loader of the dev partition; None if none is configured.
        description: the description of the model.
        model: the model, initialized, on the CPU.
        class_weights: weights of the labels in the loss, `[C]`; None for equal weights.
        states: the state of each frame to train on, `[F]`; None if the model has one per label.
        teacher: log probabilities of a teacher, `[F, C·K]`; None without one.
        segments: counts of the label segments to train on; None for inventories of more than 1,000 symbols.
        notes: what is worth knowing, such as the weights that the run starts from.
        warnings: what the user should know, such as symbols without frames.
    """

    batches: WindowLoader
    dev: WindowLoader | None
    description: ModelDescription
    model: MLP
    class_weights: torch.Tensor | None
    states: torch.Tensor | None
    teacher: torch.Tensor | None
    segments: SegmentCounts | None
    notes: list[str]
    warnings: list[str]


def set_up(
    config: Config, corpus: Corpus, world: World, shared: Setup | None = None, *, resumed: bool = False
) -> Setup:
    """Build the loaders and the model of a configuration.

    Args:
        config: the configuration.
        corpus: the corpus to train on.
        world: the ranks, which train one model together.
        shared: a setup of another run that reads the same batches, whose loaders serve this one too.
        resumed: whether the run goes on, so that what was said of its labels is not said again.

    Raises:
        DataError, UsageError: a partition without labels or with fewer frames than a batch, a model that is too large,
            or a teacher that does not fit.
    """
    train = training_partition(corpus, config.data)
    dev = partition_of(corpus, config.data, "data.dev", config.data.dev) if config.data.dev else None
    counts = label_counts(train, "data.train")
    missing = (
        None
        if resumed
        else warn_of_missing(counts, corpus.inventory, train.name, trained=config.training.init is not None)
    )
    expected = corpus.inventory == ARPABET  # small corpora lack some of its symbols
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
        config.model.states,
        corpus.label_shift,
    )
    check_batches(batches, train, description.hidden)
    torch.manual_seed(config.training.seed)
    model = description.build()
    check_size(model, config.model)
    balanced, teacher = config.training.class_weights == "balanced", config.training.teacher.folder
    outputs = len(corpus.inventory) * description.states
    return Setup(
        batches,
        dev_batches,
        description,
        model,
        torch.from_numpy(balanced_weights(counts)) if balanced else None,
        torch.from_numpy(frame_states(train, description.states)) if description.states > 1 else None,
        read_soft_targets(Path(teacher).expanduser(), train, outputs) if teacher else None,
        shared.segments if shared else count_segments(train),
        [*_notes(config, train.frame_count, int(counts.sum())), *([missing] if missing and expected else [])],
        [*drop_warnings(config.data), *([missing] if missing and not expected else [])],
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


def drop_warnings(data: DataConfig) -> list[str]:
    """Return a warning if `data.drop` names none of the training partitions, as the list of another corpus does."""
    named = dropped_partitions(data)
    if not named or named & set(data.train):
        return []
    return [
        f"data.drop: {data.drop}: drops nothing: it lists labels of {', '.join(sorted(named))}, data.train is "
        f"{', '.join(data.train)}; give the findings.csv of this corpus: {shlex.join(['dali-asr', 'audit', data.root])}"
    ]


def build_stepper(
    model: nn.Module,
    config: TrainingConfig,
    world: World,
    *,
    steps: int,
    class_weights: torch.Tensor | None = None,
    states: torch.Tensor | None = None,
    teacher: torch.Tensor | None = None,
) -> Stepper:
    """Return the stepper of a configuration.

    Args:
        model: the model, on the world's device.
        config: how to train.
        world: the ranks, which train one model together.
        steps: the number of steps of the whole run.
        class_weights: weights of the labels in the loss, `[C]`; None for equal weights.
        states: the state of each frame to train on, `[F]`; None if the model has one per label.
        teacher: log probabilities of a teacher, `[F, C·K]`; None without one.
    """
    optimizer = config.optimizer
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
        build_schedule(config, steps),
        world,
        precision=config.precision,
        label_smoothing=config.label_smoothing,
        class_weights=None if class_weights is None else class_weights.to(world.device),
        max_gradient_norm=optimizer.max_gradient_norm,
        ema=config.ema,
        compiled=config.compile,
        states=None if states is None else states.to(world.device),
        teacher=None if teacher is None else teacher.to(world.device),
        teacher_weight=config.teacher.weight,
        losses=config.log_every,
    )


def build_schedule(config: TrainingConfig, steps: int) -> Schedule:
    """Return the learning rate of every step of a run of so many steps."""
    return Schedule(config.optimizer.learning_rate, steps, **config.schedule.model_dump())


def warmup_warnings(schedule: ScheduleConfig, steps: int, limits: Sequence[str]) -> list[str]:
    """Return a warning if the warm-up takes more than a quarter of a run, as that of a recipe on little data does.

    Args:
        schedule: with the warm-up.
        steps: of the run.
        limits: the keys of the configuration that limit them.
    """
    warmup_steps, fitting = schedule.warmup_steps, schedule.warmup_for(steps)
    if fitting == warmup_steps:
        return []
    result = "never reaches its peak" if warmup_steps >= steps else f"reaches its peak after {warmup_steps / steps:.0%}"
    remedy = f"lower it to {fitting:,}, a tenth of the steps," if fitting else "set it to 0, which is no warm-up,"
    longer = "train for more epochs" if "training.max_steps" not in limits else f"raise {' and '.join(limits)}"
    return [
        f"training.schedule.warmup_steps: {warmup_steps:,}, but the run has {steps:,} steps, so that the learning rate "
        f"{result}; {remedy} or {longer}"
    ]


def open_folder(
    start: Start, config: Config, batches: WindowLoader, checkpoint: Checkpoint | None, reporter: Reporter
) -> RunFolder:
    """Return the run's folder, ready to be written to; on rank 0.

    Args:
        start: where the run begins.
        config: the resolved configuration.
        batches: the loader of training batches.
        checkpoint: the one that training continues from; None for a new run.
        reporter: receives notes and warnings.

    Raises:
        DataError, UsageError: see `RunFolder` and its method `begin`.
    """
    policy = config.training.on_write_error
    path = make_unused(start.run) if start.dated else start.run
    folder = RunFolder(path, resumed=start.resumed, on_write_error=policy, warn=reporter.warned, note=reporter.noted)
    try:
        folder.begin(config, batches, checkpoint, recipe=start.recipe, from_last=start.from_last)
    except BaseException:
        folder.close()
        raise
    return folder
