"""The training loop: forward, backward, update, log, evaluate, save.

WindowLoader ─batches▶ Stepper ─metrics▶ evaluation on dev ─checkpoints▶ RunFolder
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from dali_asr.build import open_corpus, resolved
from dali_asr.corpus import NO_LABEL
from dali_asr.errors import DeviceError, TrainingError, TrainingInterrupted
from dali_asr.model import parameter_count
from dali_asr.runs.checkpoint import CONFIG, Checkpoint, checkpoint_name, list_checkpoints
from dali_asr.runs.folder import EpochTiming
from dali_asr.runs.reporter import Reporter
from dali_asr.runs.start import find_start
from dali_asr.signals import StopRequest
from dali_asr.training.distributed import generator_states, joined
from dali_asr.training.metrics import FrameMetrics
from dali_asr.training.setup import (
    build_stepper,
    open_folder,
    restore_checkpoint,
    schedule_warnings,
    set_up,
    start_from,
    warmup_warnings,
)
from dali_asr.training.step import forward, matrix_precision
from dali_asr.training.watch import DataWait, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dali_asr.config import Config
    from dali_asr.corpus import Corpus
    from dali_asr.loading import Batch
    from dali_asr.runs.folder import RunFolder
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


def train(
    config: Config,
    *,
    run: str | Path | None = None,
    recipe: str = "run",
    resume: str | Path | None = None,
    corpus: Corpus | None = None,
    reporter: Reporter | None = None,
) -> TrainingResult:
    """Train a model.

    On the CPU, the same configuration on the same machine gives the same weights to the bit, also if the run is
    interrupted or killed, and resumed. Under torchrun, all processes train one model.

    Args:
        config: the configuration.
        run: the run's folder; by default one in `config.run.folder`, named by recipe, date and time.
        recipe: names the folder.
        resume: the folder of a run or of a checkpoint to continue; or `auto` for the run in `run`, else the recipe's
            latest, else a new one.
        corpus: the corpus to train on, instead of the configured one.
        reporter: receives the progress, on rank 0.

    Raises:
        DataError: a partition without labels, a damaged file, a full disk.
        UsageError: a folder that is in use, a partition with fewer frames than a batch.
        DeviceError: no such device, or too little memory.
        CheckpointError: a run or checkpoint that cannot be resumed.
        TrainingError: the loss or a weight is not finite.
        TrainingInterrupted: Ctrl-C or SIGTERM; the message says what is saved.
    """
    with joined(config.loader.device) as world, matrix_precision(world.device, allow_tf32=config.training.allow_tf32):
        told = reporter if reporter and world.leads else Reporter()
        start = world.on_rank_0(lambda: find_start(config.run, run, recipe, resume))
        with world.together():
            opened = corpus or open_corpus(config.data, told.packing)
        try:
            return Training(config, opened, world, start, told).run()
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{world.device}: out of memory; lower loader.batch_size, or choose a smaller model"
            ) from error


class EpochClock:
    """Measures the speed of an epoch, from its first step on.

    Attributes:
        frames: the number of frames trained on.
        wait: the time that the loop waited for batches.
    """

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._seconds: float | None = None
        self.frames = 0
        self.wait = DataWait()

    @property
    def speed(self) -> float:
        """The frames per second so far."""
        return self.frames / (time.perf_counter() - self._begun)

    def stop(self) -> float:
        """Return the seconds from the first step to the first call."""
        if self._seconds is None:
            self._seconds = time.perf_counter() - self._begun
        return self._seconds


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
            setup = set_up(config, corpus, world, beside.setup if beside else None)
            self.setup: Setup = setup
            if self.settings.init and not start.checkpoint:
                start_from(setup, self.settings.init)
        self.batches, self.dev, self.description = setup.batches, setup.dev, setup.description
        total = self.settings.epochs * len(self.batches)
        self.total_steps = min(total, self.settings.max_steps or total)
        setup.warnings.extend(warmup_warnings(self.settings.schedule.warmup_steps, self.total_steps))
        self.stepper = build_stepper(
            setup.model.to(world.device),
            self.settings,
            world,
            steps=self.total_steps,
            class_weights=setup.class_weights,
        )
        torch.manual_seed(self.settings.seed + world.rank)  # dropout differs between ranks
        self.epochs: list[dict[str, Any]] = []
        self.best: tuple[str, float | None] | None = None  # of the saved checkpoints
        self.saved: str | None = None  # the checkpoint of the present step
        self.epoch_is_over = False  # but perhaps not evaluated yet
        self.watch = Watch(reporter.warned)
        self.stop = StopRequest()
        checkpoint = None
        with world.together():
            if start.checkpoint:
                checkpoint, state = restore_checkpoint(start.checkpoint, setup, self.stepper, world)
                self.epochs = [line.model_dump() for line in state.epochs]
                self.best, self.saved, self.epoch_is_over = checkpoint.best, checkpoint.name, state.epoch_is_over
                setup.warnings.extend(schedule_warnings(self.settings.schedule.kind, state))
        self.folder: RunFolder | None = None
        with world.together():
            if world.leads:
                settings = resolved(config, corpus)
                self.folder = open_folder(start, settings, self.batches, checkpoint, reporter.warned)
        self.path = world.on_rank_0(lambda: self.folder.path if self.folder else start.run)
        for note in setup.notes:
            reporter.noted(note)
        for warning in setup.warnings:
            reporter.warned(warning)

    def run(self) -> TrainingResult:
        """Train what is left of the run."""
        parameters = parameter_count(self.stepper.model)
        self.reporter.started(self.path, self.batches, parameters, self.stepper.steps, self.total_steps)
        nothing_left = self.is_done
        try:
            with self.stop.recorded():
                self._train()
        except KeyboardInterrupt as error:  # a second Ctrl-C
            raise TrainingInterrupted(f"interrupted at step {self.stepper.steps:,}; {self._kept()}", 130) from error
        finally:
            if self.folder:
                self.folder.close(draw=True)
        return TrainingResult(self.path, self.epochs, self._remark(nothing_left=nothing_left))

    def _train(self) -> None:
        while not self.is_done:
            clock = EpochClock()
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

    def finish_step(self, clock: EpochClock) -> bool:
        """Update the weights by the gradients; log and save what is due. Return whether the step was logged."""
        stepper, settings = self.stepper, self.settings
        stepper.update()
        self._count_step()
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
        trained, seconds = self.stepper.metrics.compute(), clock.stop()
        self._log_epoch({"train": trained, "dev": self._evaluate()})
        timing = self._time_epoch(clock.frames, seconds, clock.wait.seconds)
        self.save(final=self.is_done)
        self.reporter.evaluated(self.epochs[-1], timing)
        self.watch.evaluated(self.epochs)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to train or to evaluate."""
        return self.stops_early or (self.stepper.steps >= self.total_steps and not self.epoch_is_over)

    @property
    def stops_early(self) -> bool:
        """Whether the dev accuracy has not risen for `early_stopping` evaluations."""
        return self.settings.early_stopping is not None and self.waited >= self.settings.early_stopping

    @property
    def waited(self) -> int:
        """The number of evaluations since the one with the best dev accuracy."""
        scores = [epoch["dev"]["accuracy"] for epoch in self.epochs if epoch["dev"]]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0

    def batches_left(self) -> Iterator[Batch]:
        """Yield the batches that are left of the epoch: none if it was interrupted before its evaluation."""
        if self.epoch_is_over:
            return
        for batch in self.batches:
            yield batch
            if self.stepper.steps == self.total_steps:
                return

    def _count_step(self) -> None:
        self.saved = None
        self.epoch_is_over = self.stepper.steps == self.total_steps or self.batches.delivered == len(self.batches)

    def _log_step(self, speed: float) -> None:
        step, measured = self.stepper.steps, self.stepper.metrics.read()
        self._check_losses()
        line = {"kind": "step", "step": step, "epoch": len(self.epochs) + 1, "learning_rate": self.stepper.rate()}
        with self.world.together():
            if self.folder:
                self.folder.log(line | measured)
        self.watch.read(step, measured["loss"])
        self.reporter.stepped(step, measured, speed)

    def _log_epoch(self, measured: dict[str, Any]) -> None:
        number = len(self.epochs) + 1
        line: dict[str, Any] = {"kind": "epoch", "epoch": number, "step": self.stepper.steps} | measured
        self.stepper.metrics.end_epoch()
        self.epoch_is_over = False
        self.epochs.append(line)
        if line["dev"]:
            self.stepper.schedule.evaluated(line["dev"]["accuracy"])
        with self.world.together():
            if self.folder:
                self.folder.log(line)

    def _time_epoch(self, frames: int, seconds: float, waited: float) -> EpochTiming:
        """Record how long the epoch that ended took to train."""
        timing = EpochTiming(
            epoch=len(self.epochs),
            train_seconds=seconds,
            frames_per_second=frames / seconds,
            data_stall=waited / seconds,
        )
        with self.world.together():
            if self.folder:
                self.folder.time(timing)
        if self.world.leads:
            self.watch.waited(timing["epoch"], timing["data_stall"], seconds)
        return timing

    def _check_losses(self) -> None:
        """Check the losses since the last reading.

        Raises:
            TrainingError: a loss is not finite.
        """
        ago = self.stepper.metrics.first_bad()
        with self.world.together():
            if ago is not None:
                self._diverged("the loss", self.stepper.steps - ago)

    @torch.inference_mode()
    def _evaluate(self) -> Measured | None:
        """Return loss and accuracy on the dev partition; None if no evaluation is due."""
        due = (len(self.epochs) + 1) % self.settings.eval_every == 0 or self.stepper.steps == self.total_steps
        if self.dev is None or not due:
            return None
        model = self.stepper.trained.eval()
        self.world.share_buffers(model)
        metrics = FrameMetrics(self.world)
        for batch in self.dev:
            logits = forward(model, batch.windows, self.settings.precision)
            loss = functional.cross_entropy(logits, batch.labels, ignore_index=NO_LABEL, reduction="sum")
            metrics.update(logits, batch.labels, loss)
            if self.world.size == 1:
                self._stop_if_asked()
        return metrics.compute()

    def save(self, *, final: bool = False) -> None:
        """Save a checkpoint. If `final`, a failure always raises; else as `training.on_write_error` says."""
        weights = self.stepper.trained.state_dict()
        with self.world.together():  # the statistics of batch norm differ between ranks
            if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
                self._diverged("a weight", self.stepper.steps)
        state = {
            "stepper": self.stepper.state_dict(),
            "loader": self.batches.state_dict(),
            "global_batch": self.config.loader.batch_size * self.world.size,
            "generators": generator_states(self.world),
            "epochs": self.epochs,
            "epoch_is_over": self.epoch_is_over,
        }
        name, best = checkpoint_name(len(self.epochs), self.stepper.steps), self._best_with_this()
        metrics = self.epochs[-1] if self.epochs else None
        checkpoint = Checkpoint(
            self.description,
            len(self.epochs),
            self.stepper.steps,
            metrics,
            best,
            0,
            weights,
            segments=self.setup.segments,
        )
        keep = self.settings.keep_checkpoints
        folder = self.folder
        if self.world.on_rank_0(lambda: bool(folder and folder.save(checkpoint, state, keep=keep, final=final))):
            self.best, self.saved = best, name

    def _best_with_this(self) -> tuple[str, float | None] | None:
        """Return the best checkpoint, counting the one that is saved now."""
        last = self.epochs[-1] if self.epochs else None
        if last is None or last["step"] != self.stepper.steps or (self.dev and not last["dev"]):
            return self.best
        score = last["dev"]["accuracy"] if last["dev"] else None
        known = self.best[1] if self.best else None
        better = score is None or known is None or score > known
        return (checkpoint_name(last["epoch"], last["step"]), score) if better else self.best

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
            raise TrainingInterrupted(
                f"interrupted at step {self.stepper.steps:,} of {self.total_steps:,}; the checkpoint is saved, "
                f"continue with: {self._command('--resume', str(self.path))}",
                self.stop.exit_code,
            )

    def _kept(self) -> str:
        """Return what is saved of the run, and the command that goes on from there."""
        found = list_checkpoints(self.path)
        if found:
            command = self._command("--resume", str(self.path))
            return f"{self.path} keeps the checkpoint {found[-1].name}, continue with: {command}"
        again = [str(self.path / CONFIG), "--run-folder", str(self.path), "--resume", "auto"]
        return f"no checkpoint is saved yet, begin again with: {self._command(*again)}"

    def _command(self, *arguments: str) -> str:
        if self.world.size > 1:
            return f"the same torchrun command and {shlex.join(arguments)}"
        return shlex.join(["dali-asr", "train", *arguments])

    def _diverged(self, what: str, step: int) -> None:
        found = list_checkpoints(self.path)
        kept = f"{self.path} keeps the checkpoint {found[-1].name}" if found else "nothing was saved yet"
        raise TrainingError(
            f"{what} is not finite at step {step:,}, learning rate {self.stepper.schedule.rate(step - 1):g}; "
            f"{kept}; lower training.optimizer.learning_rate, or set training.optimizer.max_gradient_norm: 1"
        )

    def _remark(self, *, nothing_left: bool) -> str | None:
        step, total = self.stepper.steps, self.total_steps
        if self.stops_early and step < total:
            return (
                f"Stopped early after step {step:,} of {total:,}: no better dev accuracy in {self.waited} evaluations "
                "(training.early_stopping)"
            )
        if nothing_left:
            return (
                f"Nothing was left to train: step {step:,} of {total:,} is done; raise {' and '.join(self._limits())}"
            )
        return None

    def _limits(self) -> list[str]:
        """Return the keys of the configuration that limit the number of steps."""
        limits = {
            "training.epochs": self.settings.epochs * len(self.batches),
            "training.max_steps": self.settings.max_steps,
        }
        return [key for key, steps in limits.items() if steps == self.total_steps]
