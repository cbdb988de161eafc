"""`bench train`: the part of a training step that is not the model.

A model trains in three ways in turn: a bare loop of forward, backward and step on one batch that stays on the device;
the same loop on the batches of the loader; and `dali_asr.train`, with everything that it measures and writes. The data
stall is one minus the ratio of the second rate to the first. The overhead is the extra time of a step of the third,
relative to a step of the first.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from itertools import chain, pairwise, repeat
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from dali_asr.bench.measure import matrix_roof, synchronize
from dali_asr.build import training_loader
from dali_asr.config import Config
from dali_asr.device import resolve_device
from dali_asr.environment import environment
from dali_asr.errors import UsageError
from dali_asr.model import MLP, PRESETS, parameter_count
from dali_asr.training import Reporter, train
from dali_asr.training.step import build_optimizer, forward, matrix_precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dali_asr.corpus import Corpus
    from dali_asr.corpus.packing import Progress
    from dali_asr.loading import Batch
    from dali_asr.training.metrics import Measured

_WARM_UP, _MIN_STEPS = 3, 2
_LOG_EVERY = Config().training.log_every


def bench_train(
    corpus: Corpus,
    config: Config,
    progress: Progress,
    *,
    models: Sequence[str] = tuple(PRESETS),
    batch_sizes: Sequence[int] = (4096,),
    precision: str = "fp32",
    repeats: int = 5,
    seconds: float = 1.0,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure every model at every batch size.

    Args:
        corpus: the corpus to train on.
        config: names the training partitions and configures the loader.
        progress: called with the progress of each model.
        models: presets.
        batch_sizes: windows per batch.
        precision: precision of the matrix multiplications, `fp32`, `bf16` or `fp16`.
        repeats: number of times that each way is timed.
        seconds: minimum duration of each repeat.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        Machine, versions, settings and all repeats, as JSON values.

    Raises:
        UsageError: the partition has no labels, or too few frames for a batch.
    """
    where = resolve_device(device)
    partition = corpus.partition(*config.data.train)
    if not partition.labelled:
        raise UsageError(f"{partition.name}: has no labels, which training needs; name a labelled partition")
    if partition.frame_count < max(batch_sizes):
        raise UsageError(
            f"{partition.name}: {partition.frame_count} frames are fewer than a batch of {max(batch_sizes)}; "
            "give a smaller batch size, or more frames"
        )
    results = []
    with matrix_precision(where, allow_tf32=True):
        for model in models:
            for batch_size in batch_sizes:
                race = _Race(corpus, config, model, batch_size, precision, where)
                results.append(race.run(repeats, seconds, partial(progress, f"{model}, batch {batch_size}")))
    return {
        "benchmark": "train",
        **environment(where),
        "corpus": {"partition": partition.name, "frames": partition.frame_count, "dtype": partition.dtype.name},
        "settings": {
            "loader": config.loader.model_dump(mode="json"),
            "precision": precision,
            "repeats": repeats,
            "seconds": seconds,
        },
        "results": results,
    }


class _Race:
    """The three ways to train one model at one batch size."""

    def __init__(
        self, corpus: Corpus, config: Config, preset: str, batch_size: int, precision: str, device: torch.device
    ) -> None:
        loader = {**config.loader.model_dump(mode="json"), "batch_size": batch_size, "device": str(device)}
        self._values: dict[str, Any] = {
            "data": {"train": list(config.data.train), "dev": None, "test": None},
            "loader": loader,
            "model": {"preset": preset},
            "training": {"precision": precision},
        }
        checked = Config.check(self._values)
        partition = corpus.partition(*config.data.train)
        self._corpus, self._preset, self._batch_size = corpus, preset, batch_size
        self._precision, self._device = precision, device
        self._loader = training_loader(checked.loader, partition, seed=0, device=device)
        torch.manual_seed(0)
        window, classes = sum(checked.loader.context) + 1, len(corpus.inventory)
        self._model = MLP(window=window, feature_dim=partition.feature_dim, classes=classes, hidden=preset).to(device)
        self._optimizer = build_optimizer(self._model)
        widths = [window * partition.feature_dim, *(layer.width for layer in PRESETS[preset]), classes]
        products = [a * b for a, b in pairwise(widths)]
        # Forward, and backward to the weights and to the inputs. The first layer needs no gradient of its inputs.
        self._operations = 2 * batch_size * (3 * sum(products) - products[0])

    def run(self, repeats: int, seconds: float, progress: Callable[[int, int], object]) -> dict[str, Any]:
        """Time the three ways in turn; return all repeats and what is derived from them, as JSON values."""
        batches = chain.from_iterable(repeat(self._loader))
        resident: Batch = next(batches)
        rates: dict[str, list[float]] = {"fixed": [], "fed": [], "trained": []}
        roofs = []
        for at in range(repeats + 1):
            fixed, fed = self._bare(repeat(resident), seconds), self._bare(batches, seconds)
            trained, roof = self._train(fixed * seconds), matrix_roof(self._device, self._precision)
            if at:  # the first round warms up
                for name, rate in zip(rates, (fixed, fed, trained), strict=True):
                    rates[name].append(rate)
                roofs.append(roof)
            progress(at + 1, repeats + 1)
        self._loader.close()
        fixed, fed, trained = (median(found) for found in rates.values())
        return {
            "model": self._preset,
            "parameters": parameter_count(self._model),
            "batch_size": self._batch_size,
            "graph": self._loader.graph,
            **rates,
            "step_operations": self._operations,
            "roof": median(roofs),
            "stall": 1 - fed / fixed,
            "overhead": fixed / trained - 1,
            "frames_per_second": trained * self._batch_size,
            "share_of_roof": trained * self._operations / median(roofs),
        }

    def _bare(self, batches: Iterator[Batch], seconds: float) -> float:
        """Return the steps per second of a bare loop."""
        for _ in range(_WARM_UP):
            self._step(next(batches))
        synchronize(self._device)
        begun = time.perf_counter()
        done = 0
        while time.perf_counter() - begun < seconds or done < _MIN_STEPS:
            self._step(next(batches))
            done += 1
        synchronize(self._device)  # includes the steps that a GPU has only queued
        return done / (time.perf_counter() - begun)

    def _step(self, batch: Batch) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        logits = forward(self._model, batch.windows, self._precision)
        functional.cross_entropy(logits, batch.labels).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def _train(self, steps: float) -> float:
        """Return the steps per second of a training of about so many steps."""
        rounds = 1 + max(round(steps / _LOG_EVERY), 1)
        limits = {"max_steps": rounds * _LOG_EVERY, "epochs": rounds * _LOG_EVERY}
        config = Config.check({**self._values, "training": {**self._values["training"], **limits}})
        clock = _Clock()
        with tempfile.TemporaryDirectory() as folder:
            train(config, run=Path(folder) / "run", corpus=self._corpus, reporter=clock)
        return clock.rate


class _Clock(Reporter):
    """A reporter that notes the time of each report of the training loop."""

    def __init__(self) -> None:
        self._heard: list[tuple[int, float]] = []

    @property
    def rate(self) -> float:
        """Steps per second between the first and the last report."""
        (first, begun), (last, ended) = self._heard[0], self._heard[-1]
        return (last - first) / (ended - begun)

    def stepped(self, step: int, metrics: Measured, speed: float) -> None:  # noqa: ARG002
        self._heard.append((step, time.perf_counter()))
