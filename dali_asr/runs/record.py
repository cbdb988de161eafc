"""What a run writes, and what becomes of it when the disk is full."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dali_asr.errors import DataError, UsageError
from dali_asr.runs.checkpoint import list_checkpoints, remove_later, save_checkpoint
from dali_asr.runs.curves import draw_curves
from dali_asr.runs.folder import METRICS, RunFolder, writing
from dali_asr.runs.tracking import open_trackers

if TYPE_CHECKING:
    from collections.abc import Callable

    from dali_asr.config import Config
    from dali_asr.loading import WindowLoader
    from dali_asr.runs.checkpoint import Checkpoint
    from dali_asr.runs.reporter import Reporter
    from dali_asr.runs.start import Start
    from dali_asr.runs.tracking import Tracker
    from dali_asr.training.distributed import World


class Record:
    """Metrics, timings, checkpoints and trackers of a run. Rank 0 writes them; on other ranks nothing is written.

    A disk that is full is warned of, once of each reason until a checkpoint is saved, or ends the run, as configured.

    Args:
        start: where the run begins.
        world: this process among all.
        reporter: told of warnings.

    Raises:
        UsageError: the folder holds something else, or another process trains in it.
        DataError: it cannot be made.
    """

    def __init__(self, start: Start, world: World, reporter: Reporter) -> None:
        self._start, self._world, self._reporter = start, world, reporter
        self._folder = RunFolder(start.run, resumed=start.resumed) if world.leads else None
        self._trackers: list[Tracker] = []
        self._warned: set[int | None] = set()
        self._stops_when_full = False

    def begin(self, config: Config, loader: WindowLoader, step: int, offset: int) -> None:
        """Describe the run, cut its metrics back, and open the trackers.

        Args:
            config: resolved.
            loader: of training batches.
            step: after which it goes on.
            offset: bytes of the metrics that were written then.

        Raises:
            UsageError: another process trained in the run after it was decided where to begin.
            DataError: metrics that do not reach so far, or a disk that cannot be written.
        """
        self._stops_when_full = config.training.on_write_error == "stop"
        if not self._folder:
            return
        try:
            self._begin(self._folder, config, loader, step, offset)
        except BaseException:
            self._folder.close()
            raise

    def log(self, line: dict[str, Any]) -> None:
        """Add a line to the metrics, here and with the trackers."""
        if not self._folder:
            return
        self._write(self._folder.log, line)
        for tracker in self._trackers:
            tracker.log(line)

    def time(self, line: dict[str, Any]) -> None:
        """Add a line to the timings."""
        if self._folder:
            self._write(self._folder.time, line)

    def save(self, checkpoint: Checkpoint, state: dict[str, Any], *, keep: int, strict: bool) -> bool:
        """Save a checkpoint; return, on every rank, whether that was done.

        Args:
            checkpoint: the model.
            state: what training goes on from.
            keep: how many.
            strict: whether a disk that is full ends the run in any case.

        Raises:
            DataError: it was not, and the run ends.
        """
        failed = None
        if self._folder:
            try:
                with writing(self._start.run):
                    written = replace(checkpoint, metrics_bytes=self._folder.flush())
                    save_checkpoint(self._folder.checkpoints, written, state, keep=keep)
            except DataError as error:
                failed = error
        # All ranks go on as rank 0 does, or end as it does.
        if self._world.smallest(0 if failed else 1) == 1:
            self._warned.clear()
            return True
        if failed or strict or self._stops_when_full:
            self._failed(failed or DataError(f"{self._start.run}: rank 0 could not save; see what it says"), strict)
        return False

    def close(self, *, drawn: bool) -> None:
        """Draw the curves, if there are any, and let other processes train in the folder."""
        if not self._folder:
            return
        run = self._start.run
        try:
            if drawn:
                draw_curves(run / METRICS, run / "curves.png")
        except OSError as error:
            self._reporter.warned(f"{run / 'curves.png'}: {error.strerror}; not drawn")
        finally:
            for tracker in self._trackers:
                tracker.close()
            self._folder.close()

    def _begin(self, folder: RunFolder, config: Config, loader: WindowLoader, step: int, offset: int) -> None:
        run, checkpoint = self._start.run, self._start.checkpoint
        found = list_checkpoints(run)
        if self._start.from_last and (found[-1] if found else None) != checkpoint:
            raise UsageError(f"{run}: another process trained in this run just now; start again, to go on from there")
        folder.check(offset)
        folder.describe(config, loader)  # first, as it makes the folder one of a run
        if checkpoint:
            with writing(run):
                later = remove_later(checkpoint)
            if later:
                self._reporter.warned(f"{run}: removed the later checkpoints {', '.join(later)}")
        folder.cut(offset)
        self._trackers = open_trackers(config, run, step, self._reporter.warned)

    def _write(self, write: Callable[[dict[str, Any]], None], line: dict[str, Any]) -> None:
        try:
            write(line)
        except DataError as error:
            self._failed(error)

    def _failed(self, error: DataError, strict: bool = False) -> None:
        if strict or self._stops_when_full:
            raise error
        reason = getattr(error.__cause__, "errno", None)
        if reason not in self._warned:
            self._warned.add(reason)
            self._reporter.warned(f"{error}; training goes on, and tries again")
