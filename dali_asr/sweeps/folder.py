"""The folder of a sweep.

sweep.json      what is varied, and the configuration that it is varied from
runs/NAME/      the runs
results.json    the outcome of every combination and of every run, written anew after each run
results.csv     the outcome of every run
results.png     a plot, drawn when the sweep ends
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from dali_asr.corpus.regular import reading
from dali_asr.errors import UsageError
from dali_asr.files import disk_errors, sweep, write_file
from dali_asr.runs.checkpoint import list_checkpoints
from dali_asr.sweeps.plot import draw_sweep
from dali_asr.sweeps.results import RunOutcome, read_done, to_csv, to_json

if TYPE_CHECKING:
    from pathlib import Path

    from dali_asr.sweeps.combinations import SweepPlan

_ABOUT, _LOCK = "sweep.json", ".lock"
RESULTS, TABLE, PLOT = "results.json", "results.csv", "results.png"
_OTHER = "choose another folder (output=FOLDER)"


class SweepFolder:
    """The folder of a sweep. One process holds it at a time; a sweep that is started again continues in it.

    Args:
        path: the folder. It may exist if it is empty, or if it holds the same sweep.
        plan: the sweep.

    Attributes:
        path: the folder.
        outcomes: the outcomes of the runs by name, in the order of the plan.

    Raises:
        UsageError: it holds something else or another sweep, or another process sweeps in it.
        DataError: it cannot be made.
    """

    def __init__(self, path: Path, plan: SweepPlan) -> None:
        self.path, self._title = path, f"{path.absolute().name} (recipe {plan.recipe})"
        _check(path, plan)
        with disk_errors(path, _OTHER):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            try:
                sweep(path)
                write_file(path / _ABOUT, (json.dumps(plan.identity(), indent=2) + "\n").encode())
                results = path / RESULTS
                done = read_done(results.read_bytes()) if results.is_file() else {}
            except BaseException:
                self._lock.release()
                raise
        kept = {name: found for name, found in done.items() if list_checkpoints(self.run(name))}
        self.outcomes = {run.name: kept.get(run.name, RunOutcome(run.name, run.values, run.seed)) for run in plan.runs}

    def run(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.path / "runs" / name

    def record(self, outcome: RunOutcome) -> None:
        """Write the outcome of a run.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        self.outcomes[outcome.name] = outcome
        found = list(self.outcomes.values())
        with disk_errors(self.path, _OTHER):
            write_file(self.path / TABLE, to_csv(found))
            write_file(self.path / RESULTS, to_json(found))  # last: what it calls done is done

    def draw(self) -> None:
        """Draw the plot, if a run has an accuracy.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        found = list(self.outcomes.values())
        if any(run.accuracy is not None for run in found):
            with disk_errors(self.path, _OTHER):
                draw_sweep(found, self.path / PLOT, self._title)

    def close(self) -> None:
        """Release the folder."""
        self._lock.release()


def _check(path: Path, plan: SweepPlan) -> None:
    """Refuse a folder in which the sweep can neither begin nor continue."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; {_OTHER}")
    if not path.exists():
        return
    about = path / _ABOUT
    with reading(path):
        if not about.is_file():
            if any(not entry.name.startswith(".") for entry in path.iterdir()):
                raise UsageError(f"{path}: exists and is not a sweep; {_OTHER}")
            return
        content = about.read_bytes()
    try:
        theirs = dict(json.loads(content))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{about}: damaged ({error}); {_OTHER}") from error
    ours = json.loads(json.dumps(plan.identity()))
    differing = list(_differences(theirs, ours))
    if differing:
        raise UsageError(f"{path}: is of another sweep, with another {', '.join(differing[:4])}; {_OTHER}")


def _differences(theirs: Any, ours: Any, key: str = "") -> list[str]:
    """Return the keys of two nested mappings whose values differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict) and not key.startswith("vary"):
        names = dict.fromkeys((*theirs, *ours))
        return [
            found
            for name in names
            for found in _differences(theirs.get(name), ours.get(name), f"{key}.{name}"[not key :])
        ]
    return [] if theirs == ours else [key.removeprefix("config.")]


def _locked(path: Path) -> FileLock:
    lock = FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(f"{path}: another process sweeps here; wait for it, or {_OTHER}") from error
    return lock
