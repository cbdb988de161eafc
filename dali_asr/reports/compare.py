"""Runs side by side: what they reach, what differs in their configurations, and whether they differ at all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

import torch

from dali_asr.build import corpus_path
from dali_asr.corpus.packing import quiet
from dali_asr.errors import DataError, UsageError
from dali_asr.inference.evaluate import prepare_evaluation
from dali_asr.inference.kept import evaluate_once
from dali_asr.model import parameter_count
from dali_asr.pretrained import is_pretrained
from dali_asr.reports.bootstrap import Difference, paired_bootstrap
from dali_asr.reports.record import Record, config_differences, fold_sections, read_record
from dali_asr.runs.checkpoint import output_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dali_asr.corpus import Partition
    from dali_asr.corpus.packing import Progress
    from dali_asr.inference.evaluate import Evaluation

SEED = "training.seed"
MAX_RUNS = 26  # which have a letter each


@dataclass(frozen=True, eq=False)
class Scored:
    """A run with the scores of its best checkpoint.

    Attributes:
        letter: names it in tables and plots: A, B, C, ...
        record: what its folder records.
        evaluation: its scores.
        parameters: number of parameters of its model.
        content: identity of the utterances and labels that it was scored on.
    """

    letter: str
    record: Record
    evaluation: Evaluation
    parameters: int
    content: str


@dataclass(frozen=True)
class Pair:
    """Two runs on the same utterances.

    Attributes:
        first: letter of the first run.
        second: letter of the second run.
        accuracy: difference of the frame accuracies, the second minus the first.
        error_rate: difference of the phoneme error rates.
        seeds_only: whether their configurations differ in the seed alone, or not at all.
    """

    first: str
    second: str
    accuracy: Difference
    error_rate: Difference
    seeds_only: bool


@dataclass(frozen=True)
class SeedGroup:
    """Runs whose configurations differ in the seed alone.

    Attributes:
        letters: of the runs, two or more.
        mean: mean frame accuracy.
        spread: standard deviation of the frame accuracy, of the sample.
    """

    letters: tuple[str, ...]
    mean: float
    spread: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: in the order given.
        differing: the keys that differ between configurations, with each run's value as JSON, and folded as by
            `fold_sections`.
        groups: runs that differ in seeds alone.
        pairs: the first run with each of the others that were scored on the same utterances.
        obstacles: why the first run cannot be paired with the others.
    """

    runs: tuple[Scored, ...]
    differing: dict[str, tuple[str, ...]]
    groups: tuple[SeedGroup, ...]
    pairs: tuple[Pair, ...]
    obstacles: tuple[str, ...]


def compare(
    runs: Sequence[str | Path],
    *,
    corpus: str | Path | None = None,
    partition: str | None = None,
    device: str = "auto",
    progress: Progress = quiet,
) -> Comparison:
    """Compare the best checkpoints of runs on the same partition with that of the first.

    Evaluations that the runs' folders keep are used; others are made and kept there.

    Args:
        runs: folders of two or more runs.
        corpus: a packed corpus, a course folder or `demo`; by default that which each run was trained on.
        partition: a labelled partition; by default each run's `data.dev`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: called with a stage, the work done, and of all.

    Raises:
        UsageError: fewer than two runs, more than 26, or one of them twice; an unknown partition or device name; a
            model in the package, without a corpus.
        CheckpointError: a run is damaged, of another version, was never evaluated, or does not fit the corpus.
        DataError: the partition has no labels, or the corpus is missing or damaged.
        DeviceError: the device is missing or has too little memory.
    """
    _check_runs(runs)
    records = [read_record(run) for run in runs]
    for record in records:
        root = record.config.data.root
        if corpus is None and is_pretrained(record.path):
            raise UsageError(
                f"{record.name}: a model in the package comes without a corpus; name one for all runs (corpus=FOLDER)"
            )
        if corpus is None and not corpus_path(root).exists():
            raise DataError(f"{record.path}: its corpus {root} is missing; name a corpus for all runs (corpus=FOLDER)")
    scored = []
    for at, record in enumerate(records):
        trained, opened, silence = prepare_evaluation(record.path, corpus, partition=partition, packing=progress)
        stage = f"evaluating {record.name}"

        def report(done: int, total: int, stage: str = stage) -> None:
            progress(stage, done, total)

        evaluation, _ = evaluate_once(
            output_folder(record.path), trained, opened, silence, device=device, progress=report
        )
        with torch.device("meta"):
            parameters = parameter_count(trained.description.build())
        scored.append(Scored(chr(ord("A") + at), record, evaluation, parameters, _content(opened)))
    differing = fold_sections(config_differences(*(record.config for record in records)))
    first, *others = scored
    obstacles = {other.letter: obstacle for other in others if (obstacle := _obstacle(first, other))}
    pairs = tuple(_pair(first, other) for other in others if other.letter not in obstacles)
    return Comparison(tuple(scored), differing, tuple(_seed_groups(scored)), pairs, tuple(obstacles.values()))


def _check_runs(runs: Sequence[str | Path]) -> None:
    if not 2 <= len(runs) <= MAX_RUNS:
        count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        raise UsageError(f"compare: {count}; give 2 to {MAX_RUNS}")
    folders = [Path(run).expanduser().resolve() for run in runs]
    twice = next((run for at, run in enumerate(runs) if folders[at] in folders[:at]), None)
    if twice is not None:
        raise UsageError(f"{twice}: given twice; name each run once")


def _content(partition: Partition) -> str:
    """Return the identity of a partition's utterances and labels; features may differ."""
    digest = hashlib.sha256(repr((partition.utterances, partition.inventory.symbols)).encode("utf-8", "surrogatepass"))
    digest.update(partition.lengths.tobytes())
    labels = partition.labels()
    assert labels is not None
    digest.update(labels.tobytes())
    return digest.hexdigest()


def _obstacle(first: Scored, other: Scored) -> str | None:
    """Return why two runs cannot be paired by utterance; None if they can."""
    if other.evaluation.inventory != first.evaluation.inventory:
        counts = [len(run.evaluation.inventory) for run in (first, other)]
        return (
            f"{first.letter} and {other.letter} have different inventories ({counts[0]} and {counts[1]} symbols), "
            "so their scores are not of the same task"
        )
    if other.content != first.content:
        return (
            f"{first.letter} and {other.letter} were scored on different utterances or labels, "
            f"{_place(first)} and {_place(other)}"
        )
    if int((first.evaluation.scores.utterances.frames > 0).sum()) < 2:
        return f"{first.evaluation.partition} has fewer than two labelled utterances"
    return None


def _place(run: Scored) -> str:
    return f"{run.evaluation.partition} of {run.record.config.data.root}"


def _pair(first: Scored, second: Scored) -> Pair:
    a, b = (run.evaluation.scores.utterances for run in (first, second))
    return Pair(
        first.letter,
        second.letter,
        paired_bootstrap(a.right, b.right, a.frames),
        paired_bootstrap(a.edits, b.edits, a.symbols),
        _differ_in_seeds(first.record, second.record),
    )


def _differ_in_seeds(first: Record, second: Record) -> bool:
    """Return whether two runs differ in the seed alone, or not at all; settings changed on the way count as well."""
    changes = [[(c.step, c.key, c.old) for c in record.decisive_changes] for record in (first, second)]
    return changes[0] == changes[1] and set(config_differences(first.config, second.config)) <= {SEED}


def _seed_groups(runs: Sequence[Scored]) -> list[SeedGroup]:
    """Return the groups of two or more runs that differ in seeds alone and were scored on the same utterances."""
    groups: list[list[Scored]] = []
    for run in runs:
        for group in groups:
            if _differ_in_seeds(group[0].record, run.record) and run.content == group[0].content:
                group.append(run)
                break
        else:
            groups.append([run])
    found = []
    for group in groups:
        accuracies = [run.evaluation.scores.accuracy for run in group]
        if len(group) > 1:
            found.append(SeedGroup(tuple(run.letter for run in group), mean(accuracies), stdev(accuracies)))
    return found
