"""The run folder: everything that a run leaves behind, on rank 0.

config.yaml         the resolved configuration
environment.json    recipe, versions, machine, git commit, and how the loader reads
changes.jsonl       what changed in the configuration when the run was resumed, and at which step
console.log         what `dali-asr train` printed
metrics.jsonl       one line every `log_every` steps and one per epoch; identical for the same seed
timings.jsonl       seconds, frames per second and data stall of each epoch
curves.png          plots of loss and accuracy
checkpoints/        the last ones and the best
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from filelock import FileLock, Timeout

from dali_asr.environment import environment
from dali_asr.errors import CheckpointError, DataError, UsageError
from dali_asr.files import disk_errors, sweep, write_file
from dali_asr.runs.changes import CHANGES, record_changes
from dali_asr.runs.checkpoint import list_checkpoints, remedy, remove_later, remove_old, save_checkpoint
from dali_asr.runs.curves import draw_curves
from dali_asr.runs.run_path import CONFIG
from dali_asr.runs.tracking import open_trackers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dali_asr.config import Config
    from dali_asr.loading import WindowLoader
    from dali_asr.runs.checkpoint import Checkpoint
    from dali_asr.runs.tracking import Tracker

METRICS, TIMINGS, ABOUT = "metrics.jsonl", "timings.jsonl", "environment.json"
_LOCK = ".lock"
_REMEDY = "choose another folder (run=FOLDER)"


class _Timing(TypedDict):
    epoch: int
    train_seconds: float
    frames_per_second: float
    data_stall: float


class EpochTiming(_Timing, total=False):
    """How long an epoch took to train, without its evaluation: a line of `timings.jsonl`.

    `data_stall` is the fraction of `train_seconds` that the loop waited for batches; on a GPU, which may still be busy
    then, it is an upper bound of the time that the device idles. `from_step` is there if the run was resumed within the
    epoch: the first step that was timed. Starting up weighs more then.
    """

    from_step: int


def read_stall(run: Path) -> float | None:
    """Return the data stall of a run, over all epochs that it timed from their first step on; None if there are none.

    The few steps that a resumed run has left of an epoch include the time that it takes to start.
    """
    try:
        lines = [json.loads(line) for line in (run / TIMINGS).read_text(encoding="utf-8").splitlines()]
        lines = [line for line in lines if "from_step" not in line]
        seconds = sum(float(line["train_seconds"]) for line in lines)
        return sum(float(line["data_stall"]) * float(line["train_seconds"]) for line in lines) / seconds
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None


def _ignore(_: str) -> None:
    """Drop a message."""


class RunFolder:
    """A run's folder. One process holds it at a time; partial files of killed processes are removed when it opens.

    If a write fails, `on_write_error` decides: `stop` raises the error; `warn` warns once per cause until a checkpoint
    succeeds, and the lines are written with a later one. The final checkpoint of a run always raises.

    Args:
        path: the folder. It may exist if it is empty.
        resumed: whether a run in it continues.
        on_write_error: `stop` or `warn`.
        warn: receives warnings.
        note: receives what changes in the run that continues.

    Raises:
        UsageError: the folder holds something else, or another process trains in it.
        DataError: it cannot be made.
    """

    def __init__(
        self,
        path: Path,
        *,
        resumed: bool = False,
        on_write_error: Literal["warn", "stop"] = "stop",
        warn: Callable[[str], None] = _ignore,
        note: Callable[[str], None] = _ignore,
    ) -> None:
        self.path = path
        self._stops, self._warn, self._note = on_write_error == "stop", warn, note
        self._warned: set[int | None] = set()
        self._unwritten: dict[str, list[str]] = {METRICS: [], TIMINGS: []}
        self._digest = hashlib.sha256()  # of the metrics
        self._trackers: list[Tracker] = []
        self._recipe = ""
        check_folder(path, resumed=resumed)
        with disk_errors(path, _REMEDY):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            sweep(path)
            sweep(self.checkpoints)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def begin(
        self, config: Config, loader: WindowLoader, checkpoint: Checkpoint | None, *, recipe: str, from_last: bool
    ) -> None:
        """Describe the run, cut its metrics back to the checkpoint, remove later checkpoints, open the trackers.

        Args:
            config: the resolved configuration.
            loader: the loader of training batches.
            checkpoint: the one that training continues from; None for a new run.
            recipe: the name of the recipe; a run keeps that which it began with.
            from_last: whether it is the run's last one, or None because the run has none.

        Raises:
            UsageError: another process trained in the run after the checkpoint was chosen.
            CheckpointError: the metrics are not those that the checkpoint was saved with.
            DataError: the disk cannot be written.
        """
        found = list_checkpoints(self.path)
        source = self.checkpoints / checkpoint.name if checkpoint else None
        if from_last and (found[-1] if found else None) != source:
            raise UsageError(f"{self.path}: another process has just trained in this run; start again to continue it")
        size = checkpoint.metrics_bytes if checkpoint else 0
        if checkpoint and source:
            self._check_metrics(size, checkpoint.metrics_sha256, source)
        self._record_changes(config, checkpoint)
        self.describe(config, loader, recipe)  # first of a new run, because it marks the folder as one
        if source:
            with disk_errors(self.path, _REMEDY):
                later = remove_later(source)
                remove_old(self.checkpoints, config.training.keep_checkpoints)  # a kill may have left more
            if later:
                self._warn(f"{self.path}: removed the later checkpoints {', '.join(later)}")
        self.cut(size)
        step = checkpoint.step if checkpoint else 0
        self._trackers = open_trackers(config, self.path, step, self._warn)

    def describe(self, config: Config, loader: WindowLoader, recipe: str) -> None:
        """Write the resolved configuration, recipe, versions and machine, and how the loader reads."""
        self._recipe = self._recorded_recipe() or recipe
        reading = {"graph": loader.graph, "groups": loader.groups, "memory": asdict(loader.memory)}
        about = json.dumps({"recipe": self._recipe} | environment(loader.device) | {"loader": reading}, indent=2) + "\n"
        with disk_errors(self.path, _REMEDY):
            write_file(self.path / CONFIG, config.to_yaml().encode())
            write_file(self.path / ABOUT, about.encode())

    def cut(self, size: int) -> None:
        """Cut the metrics back to a size in bytes.

        Raises:
            DataError: the disk cannot be written.
        """
        with disk_errors(self.path, _REMEDY), (self.path / METRICS).open("ab") as file:
            file.truncate(size)
            if not size:
                (self.path / TIMINGS).unlink(missing_ok=True)

    def log(self, line: dict[str, Any]) -> None:
        """Add a line to the metrics and the trackers."""
        self._append(METRICS, line)
        for tracker in self._trackers:
            tracker.log(line)

    def time(self, timing: EpochTiming) -> None:
        """Add a line to the timings."""
        self._append(TIMINGS, dict(timing))

    def save(self, checkpoint: Checkpoint, state: dict[str, Any], *, keep: int, final: bool) -> bool:
        """Save a checkpoint, with the metrics flushed before it.

        Args:
            checkpoint: the model; its size and checksum of the metrics are filled in.
            state: the values of a `TrainingState`.
            keep: the number of checkpoints to keep, besides the best.
            final: whether a failure raises in any case, because there will be no other try.

        Returns:
            Whether it was saved.
        """
        try:
            with disk_errors(self.path, _REMEDY):
                size = self._flush()
                marked = replace(checkpoint, metrics_bytes=size, metrics_sha256=self._digest.hexdigest())
                save_checkpoint(self.checkpoints, marked, state, keep=keep)
        except DataError as error:
            self._failed(error, final=final)
            return False
        self._warned.clear()
        return True

    def close(self, *, draw: bool = False) -> None:
        """Close the trackers and release the folder; if `draw`, plot the metrics, if any."""
        picture = self.path / "curves.png"
        try:
            if draw and (lines := self._lines()):
                draw_curves(lines, picture, f"{self.path.absolute().name} (recipe {self._recipe})")
        except Exception as error:  # noqa: BLE001 - a picture never ends a run
            reason = getattr(error, "strerror", None) or " ".join(f"{type(error).__name__}: {error}".split())[:200]
            self._warn(f"{picture}: not drawn ({reason})")
        finally:
            for tracker in self._trackers:
                tracker.close()
            self._lock.release()

    def _lines(self) -> list[dict[str, Any]]:
        """Return the metrics, also those that could not be written."""
        written = (self.path / METRICS).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in (*written, *self._unwritten[METRICS])]

    def _recorded_recipe(self) -> str | None:
        """Return the recipe that the run began with; None if that is not known."""
        try:
            recipe = json.loads((self.path / ABOUT).read_text(encoding="utf-8"))["recipe"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return recipe if isinstance(recipe, str) else None

    def _record_changes(self, config: Config, checkpoint: Checkpoint | None) -> None:
        """Record what the configuration changes in the run that it continues."""
        with disk_errors(self.path, _REMEDY):
            if checkpoint is None:
                (self.path / CHANGES).unlink(missing_ok=True)
                return
            changes = record_changes(self.path, config, checkpoint.step)
        if changes:
            self._note(f"{self.path}: from step {checkpoint.step + 1:,} on, {', '.join(map(str, changes))}")

    def _check_metrics(self, size: int, sha256: str, checkpoint: Path) -> None:
        """Compare the metrics with what the checkpoint was saved with, and start the checksum from there."""
        path = self.path / METRICS
        with disk_errors(path, _REMEDY):
            content = path.read_bytes()[:size] if path.exists() else b""
        if len(content) < size:
            raise CheckpointError(
                f"{path}: {len(content)} bytes, the checkpoint was saved after {size}; copy the whole run again"
            )
        self._digest = hashlib.sha256(content)
        if self._digest.hexdigest() != sha256:
            raise CheckpointError(
                f"{path}: damaged, its first {size} bytes are not those that {checkpoint.name} was saved with; "
                f"copy the whole run again, or {remedy(checkpoint)}"
            )

    def _append(self, name: str, line: dict[str, Any]) -> None:
        self._unwritten[name].append(json.dumps(line) + "\n")
        try:
            with disk_errors(self.path, _REMEDY):
                self._write(name)
        except DataError as error:
            self._failed(error, final=False)

    def _flush(self) -> int:
        """Flush the metrics to the disk and return their size."""
        self._write(METRICS)
        with (self.path / METRICS).open("ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def _write(self, name: str) -> None:
        """Append the lines that are not written yet: all of them, or nothing."""
        waiting = "".join(self._unwritten[name]).encode()
        with (self.path / name).open("ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(waiting) < len(waiting):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path / name))
            except OSError:
                file.truncate(end)
                raise
        self._unwritten[name].clear()
        if name == METRICS:
            self._digest.update(waiting)

    def _failed(self, error: DataError, *, final: bool) -> None:
        if final or self._stops:
            raise error
        reason = getattr(error.__cause__, "errno", None)
        if reason not in self._warned:
            self._warned.add(reason)
            self._warn(f"{error}; training continues and tries again")


def make_unused(path: Path) -> Path:
    """Make a folder, or if it exists one named PATH-2, PATH-3, ...; of several processes, each makes its own.

    Raises:
        DataError: it cannot be made.
    """
    name, number = path.name, 1
    with disk_errors(path, _REMEDY):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
                path = path.with_name(f"{name}-{number}")
            else:
                return path


def is_run(path: Path) -> bool:
    """Whether a folder holds a run."""
    return (path / CONFIG).is_file() or bool(list_checkpoints(path))


def check_folder(path: Path, *, resumed: bool) -> None:
    """Refuse a folder in which a run cannot begin.

    Raises:
        UsageError: it is a file, holds something else, or another process trains in it.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; choose a folder (run=FOLDER)")
    if path.exists() and not resumed and any(not entry.name.startswith(".") for entry in path.iterdir()):
        raise UsageError(
            f"{path}: exists and is not empty; choose another folder (run=FOLDER), or continue its run (resume='auto')"
        )
    if (path / _LOCK).exists():
        with disk_errors(path, _REMEDY):
            _locked(path).release()


def _locked(path: Path) -> FileLock:
    lock = FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(
            f"{path}: another process trains in this run; wait for it, or choose another folder (run=FOLDER)"
        ) from error
    return lock
