"""`bench train`: how much of a training step is spent on anything but the model.

A model trains three ways in turn: a bare loop of forward, backward and step on one batch that stays on the device; the
same loop on what the loader delivers; and `dali_asr.train` itself, with all that it measures and writes. The data stall
is one minus the ratio of the second to the first, the overhead what a step of the third takes over one of the first.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from dali_asr.bench.measure import matrix_roof, synchronize
from dali_asr.config import Config
from dali_asr.device import resolve_device
from dali_asr.environment import environment
from dali_asr.errors import UsageError
from dali_asr.loading import WindowLoader
from dali_asr.model import MLP, PRESETS, parameter_count
from dali_asr.plan import Masking
from dali_asr.training import Reporter, train
from dali_asr.training.step import build_optimizer, forward, matrix_precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dali_asr.corpus import Corpus, Partition
    from dali_asr.corpus.packing import Progress
    from dali_asr.loading import Batch
    from dali_asr.training.metrics import Measured

_WARM_UP, _LEAST = 3, 2  # steps
_LOG_EVERY = Config().training.log_every


@dataclass(frozen=True)
class TrainSettings:
    """How training is measured.

    Attributes:
        models: presets, one after the other.
        batch_sizes: B, one after the other.
        context: frames (left, right) of a window's own.
        masking: of the loader.
        precision: of the matrix multiplications, `fp32`, `bf16` or `fp16`.
        repeats: of each side, in turn.
        seconds: of each repeat, at least.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """

    models: tuple[str, ...] = ("tiny", "full")
    batch_sizes: tuple[int, ...] = (4096,)
    context: tuple[int, int] = (30, 30)
    masking: Masking | None = field(default_factory=Masking)
    precision: str = "fp32"
    repeats: int = 5
    seconds: float = 1.0
    device: str = "auto"


@dataclass(frozen=True)
class TrainResult:
    """What was measured of a model.

    Attributes:
        model: its preset.
        parameters: that it has.
        batch_size: B.
        graph: of the loader.
        fixed: steps a second of the bare loop on one batch that stays on the device, of each repeat.
        fed: of the bare loop with the loader.
        trained: of `dali_asr.train`.
        step_operations: floating-point operations of a step's matrix multiplications.
        roof: operations a second that a large matrix multiplication reached in the same run.
    """

    model: str
    parameters: int
    batch_size: int
    graph: str
    fixed: list[float]
    fed: list[float]
    trained: list[float]
    step_operations: int
    roof: float

    @property
    def stall(self) -> float:
        """The data stall: the share of a step that is spent waiting for data, below 0 by chance alone."""
        return 1 - statistics.median(self.fed) / statistics.median(self.fixed)

    @property
    def overhead(self) -> float:
        """What a step of training takes over one of the bare loop on a fixed batch, as a share of the latter."""
        return statistics.median(self.fixed) / statistics.median(self.trained) - 1

    @property
    def frames_per_second(self) -> float:
        """Of `dali_asr.train`."""
        return statistics.median(self.trained) * self.batch_size

    @property
    def share_of_roof(self) -> float:
        """The share of the roof that `dali_asr.train` reaches."""
        return statistics.median(self.trained) * self.step_operations / self.roof


def bench_train(
    corpus: Corpus, names: tuple[str, ...], settings: TrainSettings, progress: Progress
) -> list[TrainResult]:
    """Measure every model at every batch size.

    Args:
        corpus: to train on.
        names: of its partitions that are joined.
        settings: how.
        progress: told how far it is.

    Raises:
        UsageError: a partition without labels, or of too few frames for a batch.
    """
    device = resolve_device(settings.device)
    partition = corpus.partition(*names)
    if not partition.labelled:
        raise UsageError(f"{partition.name}: has no labels, which training needs; name another partition")
    if partition.frame_count < max(settings.batch_sizes):
        raise UsageError(
            f"{partition.name}: {partition.frame_count} frames are fewer than a batch of {max(settings.batch_sizes)}; "
            "give a smaller --batch-size, or more frames"
        )
    results = []
    with matrix_precision(device, allow_tf32=True):
        for model in settings.models:
            for batch_size in settings.batch_sizes:
                race = _Race(corpus, names, settings, model, batch_size, device)
                results.append(race.run(partial(progress, f"{model}, batch {batch_size}")))
    return results


def to_json(partition: Partition, settings: TrainSettings, results: list[TrainResult]) -> dict[str, Any]:
    """Return the results with machine, versions, settings and all repeats, as JSON values."""
    derived = ("stall", "overhead", "frames_per_second", "share_of_roof")
    return {
        "benchmark": "train",
        **environment(resolve_device(settings.device)),
        "corpus": {"partition": partition.name, "frames": partition.frame_count, "dtype": partition.dtype.name},
        "settings": asdict(settings),
        "results": [{**asdict(result), **{name: getattr(result, name) for name in derived}} for result in results],
    }


class _Race:
    """The three ways to train one model at one batch size."""

    def __init__(
        self,
        corpus: Corpus,
        names: tuple[str, ...],
        settings: TrainSettings,
        preset: str,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self._corpus, self._names, self._settings = corpus, names, settings
        self._preset, self._batch_size, self._device = preset, batch_size, device
        partition = corpus.partition(*names)
        self._loader = WindowLoader(
            partition,
            context=settings.context,
            batch_size=batch_size,
            masking=settings.masking,
            drop_last=True,
            dtype=partition.dtype.name,
            device=device,
        )
        torch.manual_seed(0)
        window, classes = sum(settings.context) + 1, len(corpus.inventory)
        self._model = MLP(window=window, feature_dim=partition.feature_dim, classes=classes, hidden=preset).to(device)
        widths = [window * partition.feature_dim, *(layer.width for layer in PRESETS[preset]), classes]
        products = [a * b for a, b in pairwise(widths)]
        # Forward, and backward to the weights and to the inputs, which the first layer spares.
        self._operations = 2 * batch_size * (3 * sum(products) - products[0])

    def run(self, progress: Callable[[int, int], object]) -> TrainResult:
        """Take turns."""
        settings = self._settings
        optimizer = build_optimizer(self._model)
        batches = chain.from_iterable(repeat(self._loader))
        fixed: Batch = next(batches)
        rates: tuple[list[float], ...] = ([], [], [])
        roofs = []
        for at in range(settings.repeats + 1):  # the first warms up
            took = [self._bare(optimizer, repeat(fixed)), self._bare(optimizer, batches)]
            took.append(self._train(took[0]))
            roofs.append(matrix_roof(self._device, settings.precision))
            if at:
                for found, rate in zip(rates, took, strict=True):
                    found.append(rate)
            progress(at + 1, settings.repeats + 1)
        size, graph = parameter_count(self._model), self._loader.graph
        self._loader.close()
        fixed_rates, fed, trained = rates
        roof, operations = statistics.median(roofs[1:]), self._operations
        return TrainResult(self._preset, size, self._batch_size, graph, fixed_rates, fed, trained, operations, roof)

    def _bare(self, optimizer: torch.optim.Optimizer, batches: Iterator[Batch]) -> float:
        """Return steps a second of a loop of one's own."""
        for _ in range(_WARM_UP):
            self._step(optimizer, next(batches))
        synchronize(self._device)
        begun = time.perf_counter()
        done = 0
        while time.perf_counter() - begun < self._settings.seconds or done < _LEAST:
            self._step(optimizer, next(batches))
            done += 1
        synchronize(self._device)  # a GPU runs behind by what is queued, which counts
        return done / (time.perf_counter() - begun)

    def _step(self, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        assert batch.labels is not None
        optimizer.zero_grad(set_to_none=True)
        logits = forward(self._model, batch.windows, self._settings.precision)
        functional.cross_entropy(logits, batch.labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def _train(self, rate: float) -> float:
        """Return steps a second of a training that takes about as long."""
        wanted = round(rate * self._settings.seconds / _LOG_EVERY) * _LOG_EVERY
        clock = _Clock()
        with tempfile.TemporaryDirectory() as folder:
            config = self._config(_LOG_EVERY + max(wanted, _LOG_EVERY))
            train(config, run=Path(folder) / "run", corpus=self._corpus, reporter=clock)
        return clock.rate

    def _config(self, steps: int) -> Config:
        masking = self._settings.masking
        return Config.check(
            {
                "data": {"train": list(self._names), "dev": None, "test": None},
                "loader": {
                    "context": list(self._settings.context),
                    "batch_size": self._batch_size,
                    "device": str(self._device),
                    "dtype": self._corpus.partition(*self._names).dtype.name,
                    "masking": masking and asdict(masking),
                },
                "model": {"preset": self._preset},
                "training": {"precision": self._settings.precision, "max_steps": steps, "epochs": steps},
            }
        )


class _Clock(Reporter):
    """Hears of steps from the training loop, and when."""

    def __init__(self) -> None:
        self._heard: list[tuple[int, float]] = []

    @property
    def rate(self) -> float:
        """Steps a second between the first and the last that was heard of."""
        (first, begun), (last, ended) = self._heard[0], self._heard[-1]
        return (last - first) / (ended - begun)

    def stepped(self, step: int, metrics: Measured, speed: float) -> None:  # noqa: ARG002
        self._heard.append((step, time.perf_counter()))
