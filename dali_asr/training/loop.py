"""The training loop: batches to checkpoints.

WindowLoader ──▶ Stepper ──▶ metrics, evaluation on dev, checkpoints ──▶ Record
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from dali_asr.build import (
    build_hidden,
    check_batches,
    check_size,
    complete_loader,
    open_corpus,
    resolved,
    training_loader,
)
from dali_asr.corpus import NO_LABEL
from dali_asr.corpus.labels import balanced_weights, label_counts, warn_of_missing
from dali_asr.errors import CheckpointError, DeviceError, TrainingError, TrainingInterrupted, UsageError
from dali_asr.runs.checkpoint import (
    Checkpoint,
    checkpoint_name,
    list_checkpoints,
    read_checkpoint,
    read_training,
)
from dali_asr.runs.description import ModelDescription
from dali_asr.runs.record import Record
from dali_asr.runs.reporter import SILENCE
from dali_asr.runs.start import find_start
from dali_asr.signals import StopRequest
from dali_asr.training.distributed import joined
from dali_asr.training.generators import generator_states, restore_generators
from dali_asr.training.metrics import FrameMetrics
from dali_asr.training.step import Stepper, forward, matrix_precision

if TYPE_CHECKING:
    from pathlib import Path

    from dali_asr.config import Config
    from dali_asr.corpus import Corpus
    from dali_asr.loading import WindowLoader
    from dali_asr.runs.reporter import Reporter
    from dali_asr.runs.start import Start
    from dali_asr.training.distributed import World
    from dali_asr.training.metrics import Measured


@dataclass(frozen=True)
class TrainingResult:
    """What training came to.

    Attributes:
        run: the run's folder.
        epochs: the metrics of each epoch; `dev` is None where it was not evaluated.
        remark: why it ended before its last step, or did nothing; None where it ran to the end.
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
    """Train a model as configured.

    The same configuration on the same machine gives the same weights to the bit, on the CPU; also when the run is
    interrupted, or killed, and resumed. Under torchrun, all processes train one model.

    Args:
        config: the configuration.
        run: the run's folder; by default one of `config.run`'s, named by recipe, date and time.
        recipe: names the folder.
        resume: the folder of a run or of a checkpoint to go on from; `auto` for the run of that folder, or else the
            latest of the recipe, which is begun where there is none.
        corpus: to train on, instead of the configuration's.
        reporter: told how it goes; on rank 0.

    Raises:
        DataError, DeviceError, UsageError: as the parts; also a partition without labels, or of fewer frames
            than a batch, a disk that is full, a GPU that is too small.
        CheckpointError: nothing to resume, or what is damaged or of another model.
        TrainingError: the loss, or a weight, is no finite number any more.
        TrainingInterrupted: by Ctrl-C or SIGTERM; the message says what is kept.
    """
    reporter = reporter or SILENCE
    with joined(config.loader.device) as world, matrix_precision(world.device, allow_tf32=config.training.allow_tf32):
        told = reporter if world.leads else SILENCE
        opened = corpus or open_corpus(config.data, told.packing)
        start = world.share(find_start(config.run, run, recipe, resume))
        try:
            return _Training(config, opened, world, start, told).run()
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{world.device}: out of memory; lower loader.batch_size, or choose a smaller model"
            ) from error


class _Training:
    """One run: the objects that its epochs share."""

    def __init__(self, config: Config, corpus: Corpus, world: World, start: Start, reporter: Reporter) -> None:
        self.config, self.world, self.reporter = config, world, reporter
        settings = config.training
        train = corpus.partition(*config.data.train)
        dev = corpus.partition(config.data.dev) if config.data.dev else None
        counts = label_counts(train, "data.train")
        if dev:
            label_counts(dev, "data.dev")
        torch.manual_seed(settings.seed)
        ranks: dict[str, Any] = {"device": world.device, "rank": world.rank, "world_size": world.size}
        self.batches = training_loader(config.loader, train, seed=settings.seed, **ranks)
        budget, size = config.loader.memory_budget, config.loader.batch_size
        self.dev: WindowLoader | None = None
        if dev:
            context = config.loader.context
            self.dev = complete_loader(dev, context=context, batch_size=size, memory_budget=budget, **ranks)
        self.description = ModelDescription(
            config.loader.context,
            train.feature_dim,
            build_hidden(config.model),
            config.model.activation,
            config.model.residual,
            corpus.inventory,
            corpus.normalization,
        )
        check_batches(self.batches, train, self.description.hidden)
        model = self.description.build()
        check_size(model, config.model)
        weights = balanced_weights(counts) if settings.class_weights == "balanced" else None
        self.stepper = Stepper(
            model.to(world.device),
            settings,
            world,
            steps=self.total_steps,
            class_weights=None if weights is None else torch.from_numpy(weights).to(world.device),
        )
        torch.manual_seed(settings.seed + world.rank)  # of dropout, which differs from rank to rank
        self.epochs: list[dict[str, Any]] = []
        self.best: tuple[str, float | None] | None = None
        self.waited = 0  # evaluations since the best
        self.epoch_is_over = False  # though it may not have been evaluated
        self.interruption = StopRequest()
        self.saved: str | None = None
        self.unsaved_best: tuple[str, float | None] | None = None
        offset = self._resume(start.checkpoint) if start.checkpoint else 0
        self.path = start.run
        self.record = Record(start, world, reporter)
        self.record.begin(resolved(config, corpus.inventory), self.batches, self.stepper.steps, offset)
        if missing := warn_of_missing(counts, corpus.inventory, train.name):
            reporter.warned(missing)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        total = self.config.training.epochs * len(self.batches)
        return min(total, self.config.training.max_steps or total)

    @property
    def _name(self) -> str:
        """Of a checkpoint that is saved now."""
        return checkpoint_name(len(self.epochs), self.stepper.steps)

    @property
    def is_done(self) -> bool:
        """Whether the run has come to its end."""
        return self.stops_early or (self.stepper.steps >= self.total_steps and not self.epoch_is_over)

    @property
    def stops_early(self) -> bool:
        """Whether the dev accuracy has not risen for as long as is configured."""
        patience = self.config.training.early_stopping
        return patience is not None and self.waited >= patience

    def _remark(self, *, nothing_left: bool) -> str | None:
        step, total = self.stepper.steps, self.total_steps
        if self.stops_early and step < total:
            return (
                f"Stopped early after step {step:,} of {total:,}: no better dev accuracy in {self.waited} evaluations "
                "(training.early_stopping)"
            )
        if nothing_left:
            return f"Nothing was left to train: step {step:,} of {total:,} is done; raise training.epochs"
        return None

    def run(self) -> TrainingResult:
        """Run all epochs that are left."""
        self.reporter.started(self.path, self.batches, self.stepper.steps, self.total_steps)
        nothing_left = self.is_done
        try:
            with self.interruption.recorded():
                while not self.is_done:
                    self._epoch()
                if self.saved is None:  # the disk was full
                    self.best = self.unsaved_best or self.best
                    self._save(strict=True)
        except KeyboardInterrupt as error:  # a second one
            kept = f"keeps the checkpoint {self.saved}" if self.saved else "has no new checkpoint"
            raise TrainingInterrupted(f"interrupted; {self.path} {kept}", 130) from error
        finally:
            self.record.close(drawn=bool(self.epochs))
        return TrainingResult(self.path, self.epochs, self._remark(nothing_left=nothing_left))

    def _resume(self, path: Path) -> int:
        """Go on from a checkpoint; return how many bytes of metrics were written then."""
        checkpoint = read_checkpoint(path)
        differing = checkpoint.description.differences(self.description)
        if differing:
            raise CheckpointError(
                f"{path}: of another model: {'; '.join(differing)}; "
                "resume with the run's own configuration, or begin another run"
            )
        state = read_training(path)
        try:
            self.batches.load_state_dict(state["loader"])
        except UsageError as error:
            batch_size = state["loader"]["belongs_to"]["global_batch"] // self.world.size
            reason = str(error).removeprefix("WindowLoader: ")
            raise UsageError(
                f"{path}: {reason}; resume with the run's own configuration (name no recipe), "
                f"and loader.batch_size={batch_size}"
            ) from error
        self.stepper.load_state_dict(state["stepper"], checkpoint.weights)
        self.epochs, self.waited = state["epochs"], state["waited"]
        self.best, self.saved = checkpoint.best, checkpoint.name
        self.epoch_is_over = state["epoch_is_over"]
        restore_generators(state["generators"], self.world)
        return checkpoint.metrics_bytes

    def _epoch(self) -> None:
        begun, frames = time.perf_counter(), 0
        self.stepper.model.train()
        if not self.epoch_is_over:
            for batch in self.batches:
                self.stepper.step(batch)
                frames += len(batch.frame_ids) * self.world.size
                self._after_step(frames / (time.perf_counter() - begun))
                if self.stepper.steps == self.total_steps:
                    break
        self.epoch_is_over = True
        self._end_epoch(time.perf_counter() - begun, frames)

    def _after_step(self, speed: float) -> None:
        """Read the metrics, save and heed signals, where that is due."""
        step, settings = self.stepper.steps, self.config.training
        last = step == self.total_steps
        self.epoch_is_over = last or self.batches.delivered == len(self.batches)
        self.saved = None
        read = step % settings.log_every == 0 or last
        if read:
            measured = self._read()
            line = {"kind": "step", "step": step, "epoch": len(self.epochs) + 1, "learning_rate": self.stepper.rate()}
            self.record.log(line | measured)
            self.reporter.stepped(step, measured, speed)
        if settings.save_every and step % settings.save_every == 0 and not self.epoch_is_over:
            self._save()
        # Ranks can only stop together, and so agree where they meet anyway.
        if read or self.world.size == 1:
            self._heed_signals()

    def _end_epoch(self, seconds: float, frames: int) -> None:
        number = len(self.epochs) + 1
        line = {
            "kind": "epoch",
            "epoch": number,
            "step": self.stepper.steps,
            "train": self._read(),
            "dev": self._evaluate(number),
        }
        self.stepper.metrics.reset()
        self.epoch_is_over = False
        self.epochs.append(line)
        self.record.log(line)
        self.record.time({"epoch": number, "train_seconds": seconds, "frames_per_second": frames / seconds})
        best = self.best
        self._judge(line)
        self._save()
        self.unsaved_best = None
        if self.saved is None:
            self.best, self.unsaved_best = best, self.best
        self.reporter.evaluated(line)
        self._heed_signals()

    def _judge(self, line: dict[str, Any]) -> None:
        """Compare the dev accuracy with the best so far."""
        if line["dev"] is None:
            if self.dev is None:
                self.best = (self._name, None)
            return
        score = line["dev"]["accuracy"]
        self.stepper.schedule.evaluated(score)
        best = self.best[1] if self.best else None
        if best is None or score > best:
            self.best, self.waited = (self._name, score), 0
        else:
            self.waited += 1

    def _read(self) -> Measured:
        """Return the metrics of the epoch so far.

        Raises:
            TrainingError: a loss was no finite number.
        """
        measured = self.stepper.metrics.compute()
        ago = self.stepper.metrics.first_bad()
        if ago is not None:
            self._diverged("the loss", self.stepper.steps - ago)
        return measured

    @torch.inference_mode()
    def _evaluate(self, epoch: int) -> Measured | None:
        due = epoch % self.config.training.eval_every == 0 or self.stepper.steps == self.total_steps
        if self.dev is None or not due:
            return None
        model = self.stepper.trained.eval()
        self.world.share_buffers(model)
        metrics = FrameMetrics(self.world)
        for batch in self.dev:
            assert batch.labels is not None
            logits = forward(model, batch.windows, self.config.training.precision)
            loss = functional.cross_entropy(logits, batch.labels, ignore_index=NO_LABEL, reduction="sum")
            metrics.update(logits, batch.labels, loss)
            if self.world.size == 1:
                self._heed_signals()
        return metrics.compute()

    def _save(self, *, strict: bool = False) -> None:
        """Save a checkpoint, on rank 0; a full disk is warned of, unless `strict` or configured to end the run."""
        state = {
            "stepper": self.stepper.state_dict(),
            "loader": self.batches.state_dict(),
            "generators": generator_states(self.world),
            "epochs": self.epochs,
            "waited": self.waited,
            "epoch_is_over": self.epoch_is_over,
        }
        weights = self.stepper.trained.state_dict()
        if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
            self._diverged("a weight", self.stepper.steps)
        metrics = self.epochs[-1] if self.epochs else None
        checkpoint = Checkpoint(self.description, len(self.epochs), self.stepper.steps, metrics, self.best, 0, weights)
        keep = self.config.training.keep_checkpoints
        written = self.record.save(checkpoint, state, keep=keep, strict=strict)
        self.saved = checkpoint.name if written else None

    def _heed_signals(self) -> None:
        """Save and leave, where a signal asked for it.

        Raises:
            TrainingInterrupted: it did.
        """
        asked = self.world.smallest(0 if self.interruption.signal else 1) == 0
        if not asked:
            return
        if self.saved is None:
            self._save(strict=True)
        command = shlex.join(["dali-asr", "train", "--resume", str(self.path)])
        if self.world.size > 1:
            command = f"the same torchrun command and --resume {shlex.quote(str(self.path))}"
        raise TrainingInterrupted(
            f"interrupted at step {self.stepper.steps:,} of {self.total_steps:,}, which is saved; "
            f"go on with: {command}",
            self.interruption.exit_code,
        )

    def _diverged(self, what: str, step: int) -> None:
        found = list_checkpoints(self.path)
        kept = f"{self.path} keeps the checkpoint {found[-1].name}" if found else "nothing was saved yet"
        rate = self.stepper.schedule.rate(step - 1)
        raise TrainingError(
            f"{what} is no finite number at step {step:,}, learning rate {rate:g}; {kept}; "
            "lower training.optimizer.learning_rate, or set training.optimizer.max_gradient_norm: 1"
        )
