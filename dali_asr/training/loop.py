"""The training loop: batches to checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from dali_asr.corpus import NO_LABEL
from dali_asr.errors import DaliAsrError, DataError, DeviceError, UsageError
from dali_asr.loading import resolve_device
from dali_asr.training.build import build_hidden, complete_loader, open_corpus, training_loader
from dali_asr.training.checkpoint import Checkpoint, ModelDescription, save_checkpoint
from dali_asr.training.curves import draw_curves
from dali_asr.training.metrics import FrameMetrics
from dali_asr.training.tracking import RunFolder

if TYPE_CHECKING:
    from dali_asr.config import Config, OptimizerConfig
    from dali_asr.corpus import Corpus, Partition
    from dali_asr.inventory import Inventory
    from dali_asr.loading import Batch, WindowLoader
    from dali_asr.model import MLP, HiddenLayer
    from dali_asr.training.metrics import Measured

LOG_EVERY = 20  # steps between two readings of the metrics


class Reporter:
    """What a training run tells while it runs; this one is silent."""

    def packing(self, stage: str, done: int, total: int) -> None:
        """So many utterances of a course folder are packed."""

    def started(self, run: Path, loader: WindowLoader, steps: int) -> None:
        """Training begins, on what the loader delivers; it will take so many steps."""

    def stepped(self, step: int, metrics: Measured, speed: float) -> None:
        """A step was done; metrics are those of the epoch so far, and so is the speed, in frames a second."""

    def evaluated(self, epoch: dict[str, Any]) -> None:
        """An epoch ended, with this line of metrics."""


class TrainingInterrupted(DaliAsrError):  # noqa: N818 - no fault of anybody
    """Ctrl-C."""

    exit_code = 130


@dataclass(frozen=True)
class TrainingResult:
    """What training came to.

    Attributes:
        run: the run's folder.
        epochs: the metrics of each epoch; `dev` is None where it was not evaluated.
    """

    run: Path
    epochs: list[dict[str, Any]]


def train(
    config: Config,
    *,
    run: str | Path | None = None,
    recipe: str = "run",
    reporter: Reporter | None = None,
) -> TrainingResult:
    """Train a model as configured.

    The same configuration on the same machine gives the same weights to the bit, on the CPU.

    Args:
        config: the configuration.
        run: the run's folder; by default one of `config.run`'s, named by recipe, date and time.
        recipe: names the folder.
        reporter: told how it goes.

    Raises:
        DataError, DeviceError, UsageError: as the parts; also a partition without labels, or of fewer frames
            than a batch, a disk that is full, a GPU that is too small.
        TrainingInterrupted: by Ctrl-C; the message says what is kept.
    """
    reporter = reporter or Reporter()
    device = resolve_device(config.loader.device)
    corpus = open_corpus(config.data, reporter.packing)
    try:
        return _Training(config, corpus, device, _run_path(config, run, recipe), reporter).run()
    except torch.OutOfMemoryError as error:
        raise DeviceError(f"{device}: out of memory; lower loader.batch_size, or choose a smaller model") from error


class _Training:
    """One run: the objects that its epochs share."""

    def __init__(self, config: Config, corpus: Corpus, device: torch.device, path: Path, reporter: Reporter) -> None:
        self.config, self.device, self.reporter = config, device, reporter
        train, dev = _partitions(config, corpus)
        torch.manual_seed(config.training.seed)
        self.batches = training_loader(config.loader, train, seed=config.training.seed, device=device)
        self.description = ModelDescription(
            config.loader.context,
            train.feature_dim,
            build_hidden(config.model),
            config.model.activation,
            corpus.inventory,
            corpus.normalization,
        )
        self.dev = (
            complete_loader(
                dev,
                context=config.loader.context,
                batch_size=config.loader.batch_size,
                device=device,
                memory_budget=config.loader.memory_budget,
            )
            if dev
            else None
        )
        _check_batches(self.batches, train, self.description.hidden)
        self.model = self.description.build().to(device)
        self.optimizer = _optimizer(self.model, config.training.optimizer, device)
        self.metrics = FrameMetrics(len(corpus.inventory), device)
        self.folder = RunFolder(path)
        self.step, self.frames, self.best = 0, 0, -1.0
        self.epochs: list[dict[str, Any]] = []

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        total = self.config.training.epochs * len(self.batches)
        return min(total, self.config.training.max_steps or total)

    def run(self) -> TrainingResult:
        """Run all epochs."""
        self.folder.describe(_resolved(self.config, self.description.inventory), self.batches)
        self.reporter.started(self.folder.path, self.batches, self.total_steps)
        try:
            while self.step < self.total_steps:
                self._epoch()
        except KeyboardInterrupt as error:
            self._draw()
            raise TrainingInterrupted(self._what_is_kept()) from error
        self._draw()
        return TrainingResult(self.folder.path, self.epochs)

    def _epoch(self) -> None:
        number = len(self.epochs) + 1
        begun, frames = time.perf_counter(), self.frames
        self.model.train()
        self.metrics.reset()
        for batch in self.batches:
            self._step(batch)
            if self.step % LOG_EVERY == 0 or self.step == self.total_steps:
                measured = self.metrics.compute()
                self.folder.log({"kind": "step", "step": self.step, "epoch": number, **measured})
                speed = (self.frames - frames) / (time.perf_counter() - begun)
                self.reporter.stepped(self.step, measured, speed)
            if self.step == self.total_steps:
                break
        seconds = time.perf_counter() - begun
        line = {
            "kind": "epoch",
            "epoch": number,
            "step": self.step,
            "train": self.metrics.compute(),
            "dev": self._evaluate(number),
        }
        speed = (self.frames - frames) / seconds
        self._save(line)
        self.folder.log(line)
        self.folder.time({"epoch": number, "train_seconds": seconds, "frames_per_second": speed})
        self.epochs.append(line)
        self.reporter.evaluated(line)

    def _step(self, batch: Batch) -> None:
        assert batch.labels is not None
        logits, loss = self._forward(batch)
        labelled = (batch.labels != NO_LABEL).sum().clamp(min=1)  # a batch may have none
        self.optimizer.zero_grad(set_to_none=True)
        (loss / labelled).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.metrics.update(logits.detach(), batch.labels, loss.detach())
        self.step += 1
        self.frames += len(batch.frames)

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits `[B, C]` and the sum of the losses of the labelled frames."""
        assert batch.labels is not None
        bf16 = self.config.training.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = self.model(batch.windows.float())
        logits = logits.float()
        return logits, functional.cross_entropy(logits, batch.labels, ignore_index=NO_LABEL, reduction="sum")

    @torch.inference_mode()
    def _evaluate(self, epoch: int) -> Measured | None:
        due = epoch % self.config.training.eval_every == 0 or self.step == self.total_steps
        if self.dev is None or not due:
            return None
        self.model.eval()
        metrics = FrameMetrics(len(self.description.inventory), self.device)
        for batch in self.dev:
            assert batch.labels is not None
            logits, loss = self._forward(batch)
            metrics.update(logits, batch.labels, loss)
        return metrics.compute()

    def _save(self, line: dict[str, Any]) -> None:
        measured = {"train": line["train"], "dev": line["dev"]}
        checkpoint = Checkpoint(self.description, line["epoch"], self.step, measured, self.model.state_dict())
        score = line["dev"]["accuracy"] if line["dev"] else None
        improved = score is not None and score > self.best
        self.best = max(self.best, score or self.best)
        if improved or self.dev is None:
            save_checkpoint(self.folder.checkpoints, checkpoint, ("last", "best"))
        else:
            save_checkpoint(self.folder.checkpoints, checkpoint, ("last",))

    def _draw(self) -> None:
        if self.epochs:
            draw_curves(self.folder.path / "metrics.jsonl", self.folder.path / "curves.png")

    def _what_is_kept(self) -> str:
        kept = "nothing but the configuration: no epoch had ended"
        if self.epochs:
            kept = f"the checkpoints up to epoch {len(self.epochs)}, and the metrics"
        return f"interrupted at step {self.step} of {self.total_steps}; {self.folder.path} keeps {kept}"


def _partitions(config: Config, corpus: Corpus) -> tuple[Partition, Partition | None]:
    train = corpus.partition(*config.data.train)
    dev = corpus.partition(config.data.dev) if config.data.dev else None
    for partition, key in ((train, "train"), (dev, "dev")):
        if partition and not partition.labelled:
            raise DataError(f"{partition.name}: has no transcripts; name a labelled partition in data.{key}")
    return train, dev


def _check_batches(batches: WindowLoader, partition: Partition, hidden: tuple[HiddenLayer, ...]) -> None:
    size = batches.planner.batch_size
    if not len(batches):
        raise UsageError(
            f"{partition.name}: {batches.planner.positions} frames are fewer than a batch of {size}; "
            "lower loader.batch_size, or set loader.drop_last: false"
        )
    if min(size, batches.planner.positions) == 1 and any(layer.batch_norm for layer in hidden):
        raise UsageError(
            f"{partition.name}: batches of 1 window cannot train batch norm; "
            "raise loader.batch_size, or set model.batch_norm: false"
        )


def _resolved(config: Config, inventory: Inventory) -> Config:
    """Return the configuration with the symbols of an inventory file instead of its path."""
    if config.data.inventory == "arpabet":
        return config
    data = config.data.model_copy(update={"inventory": inventory.symbols})
    return config.model_copy(update={"data": data})


def _optimizer(model: MLP, config: OptimizerConfig, device: torch.device) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )


def _run_path(config: Config, run: str | Path | None, recipe: str) -> Path:
    if run is not None:
        return Path(run).expanduser()
    name = config.run.name or f"{recipe}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    return Path(config.run.folder).expanduser() / name
