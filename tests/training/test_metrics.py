"""Loss and accuracy, compared with plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from dali_asr.runs.state import MetricsState
from dali_asr.training.distributed import World
from dali_asr.training.metrics import FrameMetrics

ALONE = World(torch.device("cpu"))


def update(metrics: FrameMetrics, loss: float) -> None:
    metrics.update(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), torch.tensor(loss))


def test_metrics_match_numpy() -> None:
    rng = np.random.default_rng(0)
    metrics = FrameMetrics(ALONE)
    assert metrics.compute() == {"loss": None, "accuracy": None}
    total, right, labelled = 0.0, 0, 0
    for size in (5, 1, 40):
        logits, labels = rng.normal(size=(size, 7)), rng.integers(0, 7, size)
        labels[::3] = -100
        for row, label in zip(logits, labels, strict=True):
            if label >= 0:
                total += np.log(np.exp(row).sum()) - row[label]
                right += row.argmax() == label
                labelled += 1
        tensors = torch.from_numpy(logits), torch.from_numpy(labels)
        metrics.update(*tensors, functional.cross_entropy(*tensors, ignore_index=-100, reduction="sum"))
    measured = metrics.compute()
    assert measured["loss"] == pytest.approx(total / labelled)
    assert measured["accuracy"] == pytest.approx(right / labelled)
    again = FrameMetrics(ALONE)
    again.load_state(MetricsState(**metrics.state_dict()))
    assert again.compute() == measured
    metrics.end_epoch()
    assert metrics.compute() == {"loss": None, "accuracy": None}
    assert metrics.read() == measured, "the epoch's end is not a reading"


def test_readings_are_means_since_the_last_one() -> None:
    """Across the end of an epoch and a saved state; the mean over the epoch is not touched by readings."""
    losses = [float(loss) for loss in np.random.default_rng(1).integers(0, 99, 12)]
    metrics, readings = FrameMetrics(ALONE), []
    for step, loss in enumerate(losses, 1):
        update(metrics, loss)
        if step % 3 == 0:
            readings.append(metrics.read()["loss"])
        if step == 7:
            assert metrics.compute()["loss"] == pytest.approx(np.mean(losses[:7]))
            metrics.end_epoch()
            state = MetricsState(**metrics.state_dict())
            metrics = FrameMetrics(ALONE)
            metrics.load_state(state)
    assert readings == pytest.approx(np.reshape(losses, (4, 3)).mean(axis=1))
    assert metrics.compute()["loss"] == pytest.approx(np.mean(losses[7:]))
    assert metrics.read() == {"loss": None, "accuracy": None}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_loss_that_is_not_finite_is_found(bad: float) -> None:
    for before in range(9):
        for after in range(4):
            metrics = FrameMetrics(ALONE, losses=4)
            for loss in [1.0] * before + [bad] + [float("nan")] * after:
                update(metrics, loss)
            assert metrics.first_bad() == after, (before, after)
            assert metrics.compute()["loss"] is None
    metrics = FrameMetrics(ALONE, losses=4)
    assert metrics.first_bad() is None
    for _ in range(9):
        update(metrics, 1.0)
        assert metrics.first_bad() is None
