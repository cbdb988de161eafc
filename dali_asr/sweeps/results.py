"""What the runs of a sweep reached: one row per run and per combination, as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from dali_asr.sweeps.combinations import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dali_asr.sweeps.combinations import SweepRun


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of a run.

    Attributes:
        name: the name of the run's folder.
        values: the varied keys with their values.
        seed: `training.seed`.
        status: `done`, `failed` or `waiting`.
        accuracy: the best dev accuracy; None if it has none.
        epoch: the epoch that reached it.
        steps: the number of steps done.
        error: why it failed.
    """

    name: str
    values: dict[str, Any]
    seed: int
    status: Literal["done", "failed", "waiting"] = "waiting"
    accuracy: float | None = None
    epoch: int | None = None
    steps: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Combination:
    """The outcomes of a combination over its seeds.

    Attributes:
        values: the varied keys with their values.
        accuracies: the best dev accuracy of each run that has one.
        runs: the number of its runs.
        failed: the number of those that failed.
        mean: the mean of the accuracies; None if there are none.
        deviation: their standard deviation (of a sample); None for fewer than two.
    """

    values: dict[str, Any]
    accuracies: list[float]
    runs: int
    failed: int
    mean: float | None
    deviation: float | None


def outcome(run: SweepRun, epochs: Sequence[dict[str, Any]]) -> RunOutcome:
    """Return the outcome of a finished run, given its epochs."""
    scored = [epoch for epoch in epochs if epoch["dev"] and epoch["dev"]["accuracy"] is not None]
    best = max(scored, key=lambda epoch: float(epoch["dev"]["accuracy"]), default=None)
    return RunOutcome(
        run.name,
        run.values,
        run.seed,
        "done",
        best["dev"]["accuracy"] if best else None,
        best["epoch"] if best else None,
        epochs[-1]["step"] if epochs else 0,
    )


def combine(outcomes: Sequence[RunOutcome]) -> list[Combination]:
    """Return the combinations, the best mean first; those without an accuracy last."""
    groups: dict[str, list[RunOutcome]] = {}
    for found in outcomes:
        groups.setdefault(json.dumps(found.values), []).append(found)
    rows = []
    for group in groups.values():
        accuracies = [found.accuracy for found in group if found.accuracy is not None]
        rows.append(
            Combination(
                group[0].values,
                accuracies,
                len(group),
                sum(found.status == "failed" for found in group),
                statistics.mean(accuracies) if accuracies else None,
                statistics.stdev(accuracies) if len(accuracies) > 1 else None,
            )
        )
    return sorted(rows, key=lambda row: -1.0 if row.mean is None else row.mean, reverse=True)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each key, or the whole key where two would be the same."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def to_json(outcomes: Sequence[RunOutcome]) -> bytes:
    """Return the combinations and the runs as JSON."""
    rows = {"combinations": [asdict(row) for row in combine(outcomes)], "runs": [asdict(found) for found in outcomes]}
    return (json.dumps(rows, indent=2) + "\n").encode()


def to_csv(outcomes: Sequence[RunOutcome]) -> bytes:
    """Return the runs as CSV, the best first: one column per varied key."""
    keys = list(outcomes[0].values) if outcomes else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *keys, "seed", "status", "dev_accuracy", "epoch", "steps", "error"])
    for found in sorted(outcomes, key=lambda found: found.accuracy or -1.0, reverse=True):
        cells = [shown(found.values[key]) for key in keys]
        measured = (found.status, found.accuracy, found.epoch, found.steps, found.error)
        writer.writerow([found.name, *cells, found.seed, *measured])
    return text.getvalue().encode()


def read_done(content: bytes) -> dict[str, RunOutcome]:
    """Return the finished runs in the JSON of `to_json` by name; none if it is damaged."""
    try:
        found = [RunOutcome(**row) for row in json.loads(content)["runs"]]
        return {run.name: run for run in found if run.status == "done"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
