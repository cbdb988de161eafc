"""`bench train`: how much of a training step is spent waiting for the loader.

A model trains on what the loader delivers and, in turn, on one batch that already lies on the device. The data stall is
one minus the ratio of their steps a second.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from dali_asr.bench.measure import synchronize
from dali_asr.environment import environment
from dali_asr.errors import UsageError
from dali_asr.loading import Masking, WindowLoader, resolve_device
from dali_asr.model import MLP, parameter_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dali_asr.corpus import Partition
    from dali_asr.corpus.packing import Progress
    from dali_asr.loading import Batch

_WARM_UP, _LEAST = 3, 2  # steps


@dataclass(frozen=True)
class TrainSettings:
    """How training is measured.

    Attributes:
        models: presets, one after the other.
        batch_sizes: B, one after the other.
        context: frames (left, right) of a window's own.
        masking: of the loader.
        precision: of the matrix multiplications, `fp32` or `bf16`.
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
        fed: steps a second with the loader, of each repeat.
        fixed: steps a second on one batch that stays on the device.
    """

    model: str
    parameters: int
    batch_size: int
    graph: str
    fed: list[float]
    fixed: list[float]

    @property
    def stall(self) -> float:
        """The data stall: the share of a step that is spent waiting for data, below 0 by chance alone."""
        return 1 - statistics.median(self.fed) / statistics.median(self.fixed)

    @property
    def frames_per_second(self) -> float:
        """With the loader."""
        return statistics.median(self.fed) * self.batch_size


def bench_train(partition: Partition, settings: TrainSettings, progress: Progress) -> list[TrainResult]:
    """Measure every model at every batch size.

    Raises:
        UsageError: a partition without labels, or of too few frames for a batch.
    """
    device = resolve_device(settings.device)
    if not partition.labelled:
        raise UsageError(f"{partition.name}: has no labels, which training needs; name another partition")
    if partition.frame_count < max(settings.batch_sizes):
        raise UsageError(
            f"{partition.name}: {partition.frame_count} frames are fewer than a batch of {max(settings.batch_sizes)}; "
            "give a smaller --batch-size, or more frames"
        )
    results = []
    for model in settings.models:
        for batch_size in settings.batch_sizes:
            stage = f"{model}, batch {batch_size}"
            results.append(_measure(partition, settings, model, batch_size, device, partial(progress, stage)))
    return results


def to_json(partition: Partition, settings: TrainSettings, results: list[TrainResult]) -> dict[str, Any]:
    """Return the results with machine, versions, settings and all repeats, as JSON values."""
    return {
        "benchmark": "train",
        **environment(resolve_device(settings.device)),
        "corpus": {"partition": partition.name, "frames": partition.frame_count, "dtype": partition.dtype.name},
        "settings": asdict(settings),
        "results": [
            {**asdict(result), "stall": result.stall, "frames_per_second": result.frames_per_second}
            for result in results
        ],
    }


def _measure(
    partition: Partition,
    settings: TrainSettings,
    preset: str,
    batch_size: int,
    device: torch.device,
    progress: Callable[[int, int], object],
) -> TrainResult:
    loader = WindowLoader(
        partition,
        context=settings.context,
        batch_size=batch_size,
        masking=settings.masking,
        drop_last=True,
        dtype=partition.dtype.name,
        device=device,
    )
    torch.manual_seed(0)
    model = MLP(
        window=sum(settings.context) + 1,
        feature_dim=partition.feature_dim,
        classes=len(partition.inventory),
        hidden=preset,
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=device.type == "cuda")
    batches = chain.from_iterable(repeat(loader))
    fixed: Batch = next(batches)
    sides: tuple[Iterator[Batch], ...] = (batches, repeat(fixed))
    rates: tuple[list[float], ...] = ([], [])
    for at in range(2 * (settings.repeats + 1)):
        rate = _time(model, optimizer, sides[at % 2], device, settings.precision, settings.seconds)
        if at > 1:  # the first of each side warms up
            rates[at % 2].append(rate)
        progress(at + 1, 2 * (settings.repeats + 1))
    result = TrainResult(preset, parameter_count(model), batch_size, loader.graph, *rates)
    loader.close()
    return result


def _time(
    model: MLP,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    device: torch.device,
    precision: str,
    seconds: float,
) -> float:
    """Return steps a second."""
    for _ in range(_WARM_UP):
        _step(model, optimizer, next(batches), device, precision)
    synchronize(device)
    begun = time.perf_counter()
    done = 0
    while time.perf_counter() - begun < seconds or done < _LEAST:
        _step(model, optimizer, next(batches), device, precision)
        done += 1
    synchronize(device)  # a GPU runs behind by what is queued, which counts
    return done / (time.perf_counter() - begun)


def _step(model: MLP, optimizer: torch.optim.Optimizer, batch: Batch, device: torch.device, precision: str) -> None:
    assert batch.labels is not None
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits = model(batch.windows if precision == "bf16" else batch.windows.float())
    functional.cross_entropy(logits.float(), batch.labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
