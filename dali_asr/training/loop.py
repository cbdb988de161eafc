"""The training loop: batches to checkpoints.

WindowLoader ──▶ Stepper ──▶ metrics ──▶ run folder, trackers
                    └──────▶ evaluation on dev, checkpoints
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from dali_asr.corpus import NO_LABEL
from dali_asr.errors import CheckpointError, DataError, DeviceError, TrainingError, UsageError
from dali_asr.training.build import build_hidden, check_size, complete_loader, open_corpus, training_loader
from dali_asr.training.checkpoint import (
    Checkpoint,
    ModelDescription,
    checkpoint_name,
    list_checkpoints,
    read_checkpoint,
    read_training,
    remove_later,
    save_checkpoint,
)
from dali_asr.training.curves import draw_curves
from dali_asr.training.interruption import Interruption, TrainingInterrupted
from dali_asr.training.labels import balanced_weights, label_counts, warn_of_missing
from dali_asr.training.metrics import FrameMetrics
from dali_asr.training.reporter import SILENCE
from dali_asr.training.run_folder import METRICS, RunFolder, writing
from dali_asr.training.start import find_start
from dali_asr.training.step import Stepper, forward, matrix_precision
from dali_asr.training.tracking import open_trackers
from dali_asr.training.world import joined

if TYPE_CHECKING:
    from pathlib import Path

    from dali_asr.config import Config
    from dali_asr.corpus import Corpus, Partition
    from dali_asr.inventory import Inventory
    from dali_asr.loading import WindowLoader
    from dali_asr.model import HiddenLayer
    from dali_asr.training.metrics import Measured
    from dali_asr.training.reporter import Reporter
    from dali_asr.training.start import Start
    from dali_asr.training.tracking import Tracker
    from dali_asr.training.world import World


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
        train, dev = _partitions(config, corpus)
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
        _check_batches(self.batches, train, self.description.hidden)
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
        self.interruption = Interruption()
        self.saved: str | None = None
        self.unsaved_best: tuple[str, float | None] | None = None
        offset = self._resume(start.checkpoint) if start.checkpoint else 0
        self.path = start.run
        self._warned: set[int | None] = set()
        self.folder = RunFolder(start.run, resumed=start.resumed) if world.leads else None
        self.trackers: list[Tracker] = []
        if self.folder:
            try:
                self._begin(self.folder, start, offset)
            except BaseException:
                self.folder.close()
                raise
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
        if self.stops_early:
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
            with self.interruption.noted():
                while not self.is_done:
                    self._epoch()
                if self.saved is None:  # the disk was full
                    self.best = self.unsaved_best or self.best
                    self._save(strict=True)
        except KeyboardInterrupt as error:  # a second one
            kept = f"keeps the checkpoint {self.saved}" if self.saved else "has no new checkpoint"
            raise TrainingInterrupted(f"interrupted; {self.path} {kept}", 130) from error
        finally:
            self._close()
        return TrainingResult(self.path, self.epochs, self._remark(nothing_left=nothing_left))

    def _begin(self, folder: RunFolder, start: Start, offset: int) -> None:
        """Make the run's folder ready, which rank 0 writes."""
        found = list_checkpoints(self.path)
        if start.from_last and (found[-1] if found else None) != start.checkpoint:
            raise UsageError(
                f"{self.path}: another process trained in this run just now; start again, to go on from there"
            )
        folder.check(offset)
        config = _resolved(self.config, self.description.inventory)
        folder.describe(config, self.batches)  # first, as it makes the folder one of a run
        if start.checkpoint:
            with writing(self.path):
                later = remove_later(start.checkpoint)
            if later:
                self.reporter.warned(f"{self.path}: removed the later checkpoints {', '.join(later)}")
        folder.cut(offset)
        self.trackers = open_trackers(config, self.path, self.stepper.steps, self.reporter.warned)

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
        _set_generators(state["generators"], self.world)
        return checkpoint.metrics_bytes

    def _epoch(self) -> None:
        begun, frames = time.perf_counter(), 0
        self.stepper.model.train()
        if not self.epoch_is_over:
            for batch in self.batches:
                self.stepper.step(batch)
                frames += len(batch.frames) * self.world.size
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
            self._log(line | measured)
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
        self._log(line)
        self._log_time({"epoch": number, "train_seconds": seconds, "frames_per_second": frames / seconds})
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
            "generators": _generators(self.world),
            "epochs": self.epochs,
            "waited": self.waited,
            "epoch_is_over": self.epoch_is_over,
        }
        weights = self.stepper.trained.state_dict()
        if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
            self._diverged("a weight", self.stepper.steps)
        failed = None
        if self.folder:
            try:
                self._write_checkpoint(self.folder, weights, state)
            except DataError as error:
                failed = error
        # All ranks go on as rank 0 does, or end as it does.
        written = self.world.smallest(0 if failed else 1) == 1
        self.saved = self._name if written else None
        if written:
            self._warned.clear()
        elif failed or strict or self.config.training.on_write_error == "stop":
            fault = failed or DataError(f"{self.path}: rank 0 could not save; see what it says")
            self._write_failed(fault, strict=strict)

    def _write_checkpoint(self, folder: RunFolder, weights: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        metrics = self.epochs[-1] if self.epochs else None
        with writing(self.path):
            offset = folder.flush()
            checkpoint = Checkpoint(
                self.description, len(self.epochs), self.stepper.steps, metrics, self.best, offset, weights
            )
            save_checkpoint(folder.checkpoints, checkpoint, state, keep=self.config.training.keep_checkpoints)

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

    def _log(self, line: dict[str, Any]) -> None:
        if not self.folder:
            return
        try:
            self.folder.log(line)
        except DataError as error:
            self._write_failed(error)
        for tracker in self.trackers:
            tracker.log(line)

    def _log_time(self, line: dict[str, Any]) -> None:
        if self.folder:
            try:
                self.folder.time(line)
            except DataError as error:
                self._write_failed(error)

    def _write_failed(self, error: DataError, *, strict: bool = False) -> None:
        """Warn, once of each reason until a checkpoint is saved, or end the run."""
        if strict or self.config.training.on_write_error == "stop":
            raise error
        reason = getattr(error.__cause__, "errno", None)
        if reason not in self._warned:
            self._warned.add(reason)
            self.reporter.warned(f"{error}; training goes on, and tries again")

    def _close(self) -> None:
        if not self.folder:
            return
        try:
            if self.epochs:
                draw_curves(self.path / METRICS, self.path / "curves.png")
        except OSError as error:
            self.reporter.warned(f"{self.path / 'curves.png'}: {error.strerror}; not drawn")
        finally:
            for tracker in self.trackers:
                tracker.close()
            self.folder.close()


def _generators(world: World) -> dict[str, list[torch.Tensor]]:
    """Return the states of torch's generators, of all ranks."""
    states = {"cpu": world.gather(torch.get_rng_state())}
    if world.device.type == "cuda":
        states["cuda"] = world.gather(torch.cuda.get_rng_state(world.device))
    return states


def _set_generators(states: dict[str, list[torch.Tensor]], world: World) -> None:
    """Restore this rank's generators; a rank that there was not keeps its own."""
    if world.rank < len(states["cpu"]):
        torch.set_rng_state(states["cpu"][world.rank])
    if world.device.type == "cuda" and world.rank < len(states.get("cuda", [])):
        torch.cuda.set_rng_state(states["cuda"][world.rank], world.device)


def _partitions(config: Config, corpus: Corpus) -> tuple[Partition, Partition | None]:
    train = corpus.partition(*config.data.train)
    return train, corpus.partition(config.data.dev) if config.data.dev else None


def _check_batches(batches: WindowLoader, partition: Partition, hidden: tuple[HiddenLayer, ...]) -> None:
    size = batches.planner.batch_size
    if not len(batches):
        raise UsageError(
            f"{partition.name}: {batches.planner.positions} frames are fewer than a batch of {size}; "
            "lower loader.batch_size, or set loader.drop_last: false"
        )
    if min(size, batches.planner.positions) == 1 and any(layer.norm == "batch" for layer in hidden):
        raise UsageError(
            f"{partition.name}: batches of 1 window cannot train batch norm; "
            "raise loader.batch_size, or set model.norm: none"
        )


def _resolved(config: Config, inventory: Inventory) -> Config:
    """Return the configuration with the symbols of an inventory file instead of its path."""
    if config.data.inventory == "arpabet":
        return config
    data = config.data.model_copy(update={"inventory": inventory.symbols})
    return config.model_copy(update={"data": data})
