"""The training loop: forward, backward, update, log, evaluate, save.

WindowLoader ─batches▶ Stepper ─metrics▶ evaluation on dev ─checkpoints▶ RunFolder
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dali_asr.build import resolved
from dali_asr.errors import TrainingError, TrainingInterrupted
from dali_asr.model import parameter_count
from dali_asr.runs.checkpoint import Checkpoint, run_of
from dali_asr.signals import StopRequest
from dali_asr.training.clock import EpochClock
from dali_asr.training.distributed import generator_states
from dali_asr.training.ending import check_length, diverged, lost_at, nothing_left, saved_at, step_limits, stopped_early
from dali_asr.training.evaluation import evaluate
from dali_asr.training.history import History
from dali_asr.training.restoring import length_warnings, restore_checkpoint, schedule_warnings, start_from
from dali_asr.training.setup import build_stepper, open_folder, set_up, warmup_warnings
from dali_asr.training.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dali_asr.config import Config
    from dali_asr.corpus import Corpus
    from dali_asr.loading import Batch
    from dali_asr.runs.folder import EpochTiming, RunFolder
    from dali_asr.runs.reporter import Reporter
    from dali_asr.runs.start import Start
    from dali_asr.training.distributed import World
    from dali_asr.training.metrics import Measured
    from dali_asr.training.setup import Setup


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a training run.

    Attributes:
        run: the run's folder.
        epochs: the metrics of each epoch; `dev` is None if the epoch was not evaluated.
        remark: why it ended before its last step, or had nothing to do; else None.
    """

    run: Path
    epochs: list[dict[str, Any]]
    remark: str | None = None


class Training:
    """One run, from its start to its end or an interruption.

    Args:
        config: the configuration.
        corpus: the corpus to train on.
        world: the ranks, which train one model together.
        start: where the run begins.
        reporter: receives the progress.
        beside: another run that is trained on the same batches, whose loaders serve this one too.
    """

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        world: World,
        start: Start,
        reporter: Reporter,
        beside: Training | None = None,
    ) -> None:
        self.config, self.world, self.reporter = config, world, reporter
        self.settings = config.training
        with world.together():
            setup = set_up(
                config, corpus, world, beside.setup if beside else None, resumed=start.checkpoint is not None
            )
            self.setup: Setup = setup
            if self.settings.init and not start.checkpoint:
                start_from(setup, self.settings.init)
        self.batches, self.dev = setup.batches, setup.dev
        self.total_steps, self._limits = step_limits(self.settings, len(self.batches))
        setup.warnings.extend(warmup_warnings(self.settings.schedule, self.total_steps, self._limits))
        self.stepper = build_stepper(
            setup.model.to(world.device),
            self.settings,
            world,
            steps=self.total_steps,
            class_weights=setup.class_weights,
            states=setup.states,
            teacher=setup.teacher,
        )
        torch.manual_seed(self.settings.seed + world.rank)  # dropout differs between ranks
        self.history = History()
        self.saved: str | None = None  # the checkpoint of the present step
        self.epoch_is_over = False  # but perhaps not evaluated yet
        self.watch = Watch(reporter.warned)
        self.stop = StopRequest()
        with world.together():
            checkpoint = self._restore(start.checkpoint) if start.checkpoint else None
        self.folder: RunFolder | None = None
        with world.together():
            if world.leads:
                settings = resolved(config, corpus)
                self.folder = open_folder(start, settings, self.batches, checkpoint, reporter)
        self.path = world.on_rank_0(lambda: self.folder.path if self.folder else start.run)
        for note in setup.notes:
            reporter.noted(note)
        for warning in setup.warnings:
            reporter.warned(warning)

    def run(self) -> TrainingResult:
        """Train what is left of the run."""
        parameters = parameter_count(self.stepper.model)
        self.reporter.started(self.path, self.batches, parameters, self.stepper.steps, self.total_steps)
        was_done = self.is_done
        try:
            with self.stop.recorded():
                self._train()
        except KeyboardInterrupt as error:  # a second Ctrl-C
            raise TrainingInterrupted(lost_at(self.path, self.stepper.steps, self.world.size), 130) from error
        finally:
            if self.folder:
                self.folder.close(draw=True)
        return TrainingResult(self.path, self.history.epochs, self._remark(was_done=was_done))

    def _train(self) -> None:
        while not self.is_done:
            clock = EpochClock(self.within_epoch)
            self.stepper.model.train()
            for batch in clock.wait.over(self.batches_left()):
                loss = self.stepper.forward(batch)
                self.stepper.backward(loss)
                clock.frames += len(batch.frame_ids) * self.world.size
                log_due = self.finish_step(clock)
                if log_due or self.world.size == 1:  # ranks can only stop together, and agree when they log
                    self._stop_if_asked()
            self.finish_epoch(clock)
            self._stop_if_asked()

    def batches_left(self) -> Iterator[Batch]:
        """Yield the batches that are left of the epoch: none if it was interrupted before its evaluation."""
        if self.epoch_is_over:
            return
        for batch in self.batches:
            yield batch
            if self.stepper.steps == self.total_steps:
                return

    def finish_step(self, clock: EpochClock) -> bool:
        """Update the weights by the gradients; log and save what is due. Return whether the step was logged."""
        stepper, settings = self.stepper, self.settings
        stepper.update()
        self.saved = None
        self.epoch_is_over = stepper.steps == self.total_steps or self.batches.delivered == len(self.batches)
        self.reporter.advanced(stepper.steps)
        log_due = stepper.steps % settings.log_every == 0 or stepper.steps == self.total_steps
        if log_due:
            self._log_step(clock.speed)
        if settings.save_every and stepper.steps % settings.save_every == 0 and not self.epoch_is_over:
            self.save()
        return log_due

    def finish_epoch(self, clock: EpochClock) -> None:
        """Evaluate, log and save at the end of an epoch."""
        self._check_losses()
        trained = self.stepper.metrics.compute()
        clock.stop()
        self._log_epoch({"train": trained, "dev": self._evaluate()})
        timing = self._time_epoch(clock)
        self.save(final=self.is_done)
        self.reporter.evaluated(self.history.epochs[-1], timing)
        self.watch.evaluated(self.history.epochs)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to train or to evaluate."""
        return self._stops_early or (self.stepper.steps >= self.total_steps and not self.epoch_is_over)

    @property
    def within_epoch(self) -> int | None:
        """The next step, if it is not the first of its epoch."""
        return self.stepper.steps + 1 if self.stepper.steps % len(self.batches) else None

    @property
    def _stops_early(self) -> bool:
        """Whether the dev accuracy has not risen for `early_stopping` evaluations."""
        return self.settings.early_stopping is not None and self.history.waited >= self.settings.early_stopping

    def _evaluate(self) -> Measured | None:
        """Return loss and accuracy on the dev partition; None if no evaluation is due."""
        due = self.history.number % self.settings.eval_every == 0 or self.stepper.steps == self.total_steps
        if self.dev is None or not due:
            return None
        between = self._stop_if_asked if self.world.size == 1 else lambda: None
        return evaluate(self.stepper.trained, self.dev, self.world, self.settings.precision, between)

    def _log_step(self, speed: float) -> None:
        step, measured = self.stepper.steps, self.stepper.metrics.read()
        self._check_losses()
        line = {"kind": "step", "step": step, "epoch": self.history.number, "learning_rate": self.stepper.rate()}
        with self.world.together():
            if self.folder:
                self.folder.log(line | measured)
        self.watch.read(step, measured["loss"])
        self.reporter.stepped(step, measured, speed)

    def _log_epoch(self, measured: dict[str, Any]) -> None:
        complete = self.batches.delivered == len(self.batches)
        at = {"epoch": self.history.number, "step": self.stepper.steps, "complete": complete}
        line: dict[str, Any] = {"kind": "epoch"} | at | measured
        if complete:  # one cut short goes on if the run is resumed with more steps
            self.stepper.metrics.end_epoch()
        self.epoch_is_over = False
        self.history.epochs.append(line)
        if line["dev"]:
            self.stepper.schedule.evaluated(line["dev"]["accuracy"])
        with self.world.together():
            if self.folder:
                self.folder.log(line)

    def _time_epoch(self, clock: EpochClock) -> EpochTiming:
        """Record how long the epoch that ended took to train, unless only its evaluation was left."""
        timing = clock.timing(self.history.epochs[-1]["epoch"])
        if not clock.frames:
            return timing
        with self.world.together():
            if self.folder:
                self.folder.time(timing)
        if self.world.leads and "from_step" not in timing:
            self.watch.waited(timing["epoch"], timing["data_stall"], timing["train_seconds"])
        return timing

    def _check_losses(self) -> None:
        """Check the losses since the last reading.

        Raises:
            TrainingError: a loss is not finite.
        """
        ago = self.stepper.metrics.first_bad()
        with self.world.together():
            if ago is not None:
                raise self._diverged("the loss", self.stepper.steps - ago)

    def save(self, *, final: bool = False) -> None:
        """Save a checkpoint. If `final`, a failure always raises; else as `training.on_write_error` says."""
        step, history = self.stepper.steps, self.history
        weights = self.stepper.trained.state_dict()
        with self.world.together():  # the statistics of batch norm differ between ranks
            if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
                raise self._diverged("a weight", step)
        state = {
            "stepper": self.stepper.state_dict(),
            "loader": self.batches.state_dict(),
            "global_batch": self.config.loader.batch_size * self.world.size,
            "generators": generator_states(self.world),
            "epochs": history.epochs,
            "epoch_is_over": self.epoch_is_over,
        }
        best = history.best_at(step, evaluates=self.dev is not None)
        setup = self.setup
        checkpoint = Checkpoint(
            setup.description, history.completed, step, history.last, best, 0, weights, segments=setup.segments
        )
        keep = self.settings.keep_checkpoints
        folder = self.folder
        if self.world.on_rank_0(lambda: bool(folder and folder.save(checkpoint, state, keep=keep, final=final))):
            history.best, self.saved = best, checkpoint.name

    def _restore(self, path: Path) -> Checkpoint:
        """Continue from a checkpoint."""
        checkpoint, state = restore_checkpoint(path, self.setup, self.stepper, self.world)
        check_length(run_of(path), checkpoint.step, self.settings, len(self.batches))
        self.history = History((line.model_dump() for line in state.epochs), checkpoint.best)
        self.saved, self.epoch_is_over = checkpoint.name, state.epoch_is_over
        self.setup.warnings.extend(schedule_warnings(self.settings.schedule.kind, state))
        self.setup.warnings.extend(length_warnings(run_of(path), self.settings, len(self.batches), self.stepper.steps))
        return checkpoint

    def _stop_if_asked(self) -> None:
        """Save and stop, if a signal asked for it.

        Raises:
            TrainingInterrupted: a signal arrived.
        """
        if self.world.min(0 if self.stop.signal else 1) == 1:
            return
        if self.saved is None:
            self.save(final=True)
        with self.world.together():
            message = saved_at(self.path, self.stepper.steps, self.total_steps, self.world.size)
            raise TrainingInterrupted(message, self.stop.exit_code)

    def _diverged(self, what: str, step: int) -> TrainingError:
        return TrainingError(diverged(self.path, what, step, self.stepper.schedule.rate(step - 1)))

    def _remark(self, *, was_done: bool) -> str | None:
        step, total = self.stepper.steps, self.total_steps
        if self._stops_early and step < total:
            return stopped_early(step, total, self.history.waited)
        return nothing_left(step, total, self._limits) if was_done else None
