"""A sweep: trains the runs of a plan, one after another or together, and records what they reach."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from dali_asr.build import open_corpus
from dali_asr.device import resolve_device
from dali_asr.errors import (
    CheckpointError,
    DaliAsrError,
    DeviceError,
    LoadingError,
    TrainingError,
    TrainingInterrupted,
    UsageError,
)
from dali_asr.runs.reporter import Reporter
from dali_asr.sweeps.folder import SweepFolder
from dali_asr.sweeps.reporter import SweepReporter
from dali_asr.sweeps.results import RunOutcome, outcome
from dali_asr.training import train
from dali_asr.training.stack import common_starts, stack_key, train_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dali_asr.config import DataConfig
    from dali_asr.corpus import Corpus
    from dali_asr.loading import WindowLoader
    from dali_asr.sweeps.combinations import SweepPlan, SweepRun

Together = Literal["auto", "on", "off"]
_MAX_TOGETHER = 16  # models


def sweep(
    plan: SweepPlan, folder: Path, *, together: Together = "auto", reporter: SweepReporter | None = None
) -> list[RunOutcome]:
    """Train the runs of a sweep that are not done yet.

    A run that fails, because its loss is not finite or its model does not fit the device, is recorded, and the sweep
    goes on; it is tried again when the sweep is started again. A full disk ends the sweep.

    Args:
        plan: the runs.
        folder: the folder of the sweep, new or of the same sweep.
        together: whether runs that read the same batches train together: `on`, `off`, or `auto` for only on a GPU.
        reporter: receives the progress.

    Returns:
        The outcomes of all runs, in the order of the plan.

    Raises:
        UsageError: the folder holds something else, or several processes sweep.
        DataError: the corpus is damaged, a full disk.
        TrainingInterrupted: Ctrl-C or SIGTERM; the same sweep started again continues.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("sweep: runs in one process; start it without torchrun")
    on = together == "on" or (together == "auto" and resolve_device(plan.base.loader.device).type == "cuda")
    return _Sweep(plan, folder, together=on, reporter=reporter or SweepReporter()).run()


class _Sweep:
    def __init__(self, plan: SweepPlan, folder: Path, *, together: bool, reporter: SweepReporter) -> None:
        self._plan, self._together, self._reporter = plan, together, reporter
        self._corpus: tuple[DataConfig, Corpus] | None = None
        self._open_corpora()
        self._folder = SweepFolder(folder, plan)

    def run(self) -> list[RunOutcome]:
        """Train what is left."""
        try:
            for group in self._groups():
                self._reporter.began([run.name for run in group], self._done, len(self._plan.runs))
                self._train(group)
            self._folder.draw()
        except (TrainingInterrupted, KeyboardInterrupt) as error:
            self._folder.draw()
            code = error.exit_code if isinstance(error, TrainingInterrupted) else 130
            raise TrainingInterrupted(
                f"interrupted with {self._done} of {len(self._plan.runs)} runs finished; the same sweep started again "
                "continues",
                code,
            ) from error
        finally:
            self._folder.close()
        return list(self._folder.outcomes.values())

    @property
    def _done(self) -> int:
        return sum(found.status != "waiting" for found in self._folder.outcomes.values())

    def _open_corpora(self) -> None:
        """Open every corpus once, so that a missing one is found before anything trains."""
        for data in dict.fromkeys(run.config.data for run in self._plan.runs):
            self._open(data)

    def _open(self, data: DataConfig) -> Corpus:
        if self._corpus is None or self._corpus[0] != data:
            self._corpus = (data, open_corpus(data, self._reporter.packing))
        return self._corpus[1]

    def _groups(self) -> Iterator[list[SweepRun]]:
        """Yield the runs that are left, in groups that train together."""
        left = [run for run in self._plan.runs if self._folder.outcomes[run.name].status != "done"]
        groups: dict[str, list[SweepRun]] = {}
        for run in left:
            groups.setdefault((stack_key(run.config) if self._together else None) or run.name, []).append(run)
        for group in groups.values():
            for at in range(0, len(group), _MAX_TOGETHER):
                yield group[at : at + _MAX_TOGETHER]

    def _train(self, group: list[SweepRun]) -> None:
        starts = common_starts([self._folder.run(run.name) for run in group], self._plan.recipe)
        if len(group) == 1 or starts is None:
            for run in group:
                self._record(run, lambda run=run: self._train_alone(run))  # type: ignore[misc]
            return
        reporters = [_RunReporter(self._reporter, run.name, leads=run is group[0]) for run in group]
        try:
            results = train_together([run.config for run in group], starts, self._open(group[0].config.data), reporters)
        except (DeviceError, CheckpointError, LoadingError, UsageError) as error:
            self._reporter.warned(f"{len(group)} runs cannot train together ({error}); they train one after another")
            for run in group:
                self._record(run, lambda run=run: self._train_alone(run))  # type: ignore[misc]
            return
        for run, result in zip(group, results, strict=True):
            self._record(run, lambda result=result: _epochs(result))  # type: ignore[misc]

    def _train_alone(self, run: SweepRun) -> list[dict[str, Any]]:
        return train(
            run.config,
            run=self._folder.run(run.name),
            recipe=self._plan.recipe,
            resume="auto",
            corpus=self._open(run.config.data),
            reporter=_RunReporter(self._reporter, run.name, leads=True),
        ).epochs

    def _record(self, run: SweepRun, epochs: Callable[[], list[dict[str, Any]]]) -> None:
        """Record the outcome of a run, or why it failed."""
        try:
            found = outcome(run, epochs())
        except (TrainingError, DeviceError, CheckpointError, LoadingError, UsageError) as error:
            found = RunOutcome(run.name, run.values, run.seed, "failed", error=str(error))
        self._folder.record(found)
        self._reporter.finished(found, self._done, len(self._plan.runs))


class _RunReporter(Reporter):
    """Passes the progress of a run on to that of the sweep."""

    def __init__(self, reporter: SweepReporter, name: str, *, leads: bool) -> None:
        self._reporter, self._name, self._leads = reporter, name, leads
        self._steps = 1

    def started(self, run: Path, loader: WindowLoader, parameters: int, step: int, steps: int) -> None:
        del run, loader, parameters
        self._steps = steps
        self.advanced(step)

    def advanced(self, step: int) -> None:
        if self._leads:
            self._reporter.advanced(step, self._steps)

    def warned(self, message: str) -> None:
        self._reporter.warned(f"{self._name}: {message}")


def _epochs(result: Any) -> list[dict[str, Any]]:
    """Return the epochs of a result of `train_together`, or raise what it is instead."""
    if isinstance(result, DaliAsrError):
        raise result
    epochs: list[dict[str, Any]] = result.epochs
    return epochs
