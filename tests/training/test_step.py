"""A step and its learning rate, compared with plain torch."""

from __future__ import annotations

import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from dali_asr.config import Config, TrainingConfig
from dali_asr.corpus.labels import balanced_weights
from dali_asr.errors import DataError
from dali_asr.loading import Batch
from dali_asr.model import MLP, HiddenLayer
from dali_asr.runs.state import ScheduleState
from dali_asr.training.distributed import World
from dali_asr.training.setup import build_stepper
from dali_asr.training.step import Schedule, Stepper, build_optimizer
from dali_asr.training.teacher import read_soft_targets
from tests.makers import make_partition

ALONE = World(torch.device("cpu"))


def make_model(first: str = "batch") -> MLP:
    torch.manual_seed(0)
    return MLP(window=3, feature_dim=4, classes=5, hidden=(HiddenLayer(6, 0.0, first), HiddenLayer(6, 0.0, "layer")))


def make_batch(seed: int, size: int = 32) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (size,), generator=draw)
    labels[::7] = -100
    return Batch(torch.randn(size, 3, 4, generator=draw), labels, torch.arange(size))


def train_on(stepper: Stepper, batch: Batch) -> None:
    stepper.backward(stepper.forward(batch))
    stepper.update()


def settings(**values: Any) -> TrainingConfig:
    return Config.check({"training": values}).training


def test_steps_match_a_plain_loop() -> None:
    """With label smoothing, class weights, clipping, weight decay, warm-up and averaging.

    Without batch norm, because the bias before it would learn from rounding errors only.
    """
    weights = torch.from_numpy(balanced_weights(torch.tensor([9, 1, 0, 5, 5]).numpy()))
    config = settings(
        label_smoothing=0.1,
        ema=0.8,
        optimizer={"learning_rate": 0.01, "max_gradient_norm": 0.1, "weight_decay": 0.5},
        schedule={"warmup_steps": 3},
    )
    stepper = build_stepper(make_model("none"), config, ALONE, steps=8, class_weights=weights)
    model = make_model("none")
    decayed = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.5)
    averages: list[torch.Tensor] = []
    for step in range(8):
        train_on(stepper, make_batch(step))
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * min(1.0, (step + 1) / 4)
        batch = make_batch(step)
        kept = batch.labels >= 0
        logits = model(batch.windows)[kept]
        losses = functional.cross_entropy(
            logits, batch.labels[kept], weight=weights, label_smoothing=0.1, reduction="none"
        )
        optimizer.zero_grad()
        losses.mean().backward()  # type: ignore[no-untyped-call]
        norm = torch.stack([p.grad.square().sum() for p in model.parameters() if p.grad is not None]).sum().sqrt()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad *= min(1.0, 0.1 / (norm.item() + 1e-6))
        optimizer.step()
        now = [p.detach().clone() for p in model.parameters()]
        averages = [0.8 * a + 0.2 * p for a, p in zip(averages, now, strict=True)] if averages else now
    for ours, theirs in zip(stepper.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    for ours, average in zip(stepper.trained.parameters(), averages, strict=True):
        torch.testing.assert_close(ours, average, rtol=1e-4, atol=1e-6)
    assert stepper.trained is not stepper.model


def test_states_are_what_the_loss_asks_for() -> None:
    torch.manual_seed(0)
    model = MLP(window=3, feature_dim=4, classes=5, hidden=(HiddenLayer(6),), states=3)
    weights, states = torch.arange(1.0, 6), torch.randint(0, 3, (32,), dtype=torch.int8)
    stepper = build_stepper(model, settings(label_smoothing=0.1), ALONE, steps=1, class_weights=weights, states=states)
    batch = make_batch(0)
    kept = batch.labels >= 0
    logits = model(batch.windows, by_state=True)[kept]
    targets = torch.tensor([3 * label + state for label, state in zip(batch.labels[kept], states[kept], strict=True)])
    losses = functional.cross_entropy(
        logits, targets, weight=weights.repeat_interleave(3), label_smoothing=0.1, reduction="none"
    )
    torch.testing.assert_close(stepper.forward(batch), losses.mean())
    right = model(batch.windows)[kept].argmax(dim=1) == batch.labels[kept]
    assert stepper.metrics.compute()["accuracy"] == pytest.approx(right.float().mean().item())


@pytest.mark.parametrize("states", [1, 3])
def test_a_teacher_takes_its_share_of_the_loss(states: int) -> None:
    torch.manual_seed(0)
    model = MLP(window=3, feature_dim=4, classes=5, hidden=(HiddenLayer(6),), states=states)
    batch = make_batch(0)
    own = torch.randint(0, states, (32,), dtype=torch.int8)
    teacher = torch.randn(32, 5 * states).half()
    stepper = build_stepper(
        model,
        settings(teacher={"weight": 0.3}),
        ALONE,
        steps=1,
        states=own if states > 1 else None,
        teacher=teacher,
    )
    log_probabilities = model(batch.windows, by_state=True).log_softmax(dim=1)
    expected = [
        0.7 * -log_probabilities[row, states * label + own[row]]
        + 0.3 * -(teacher[row].float().exp() / teacher[row].float().exp().sum() * log_probabilities[row]).sum()
        for row, label in enumerate(batch.labels.tolist())
        if label >= 0
    ]
    torch.testing.assert_close(stepper.forward(batch), torch.stack(expected).mean())


def test_soft_targets_are_those_of_each_utterance(tmp_path: Path) -> None:
    partition = make_partition([3, 5])
    rows = [np.random.default_rng(length).normal(0, 9, (length, 84)) for length in (3, 5)]
    for name, row in zip(partition.utterances, rows, strict=True):
        np.save(tmp_path / f"{name}.npy", row)
    found = read_soft_targets(tmp_path, partition, 84)
    assert found.dtype == torch.float16
    softmax = [np.exp(row) / np.exp(row).sum(axis=1, keepdims=True) for row in rows]
    np.testing.assert_allclose(found.float().softmax(dim=1), np.concatenate(softmax), rtol=0.02, atol=1e-6)
    with pytest.raises(DataError, match=r"0\.npy: \[3, 84\]; expected \[3, 42\], the utterance's frames and the"):
        read_soft_targets(tmp_path, partition, 42)
    (tmp_path / f"{partition.utterances[1]}.npy").unlink()
    with pytest.raises(DataError, match=r"1\.npy: no such file; training\.teacher\.folder needs one of each"):
        read_soft_targets(tmp_path, partition, 84)
    np.save(tmp_path / f"{partition.utterances[0]}.npy", softmax[0])
    with pytest.raises(DataError, match=r"0\.npy: holds probabilities; write their logarithms"):
        read_soft_targets(tmp_path, partition, 84)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains_about_the_same(precision: str) -> None:
    losses = {}
    for name in ("fp32", precision):
        stepper = build_stepper(
            make_model(), settings(precision=name, optimizer={"learning_rate": 0.01}), ALONE, steps=30
        )
        for _ in range(30):
            train_on(stepper, make_batch(0))
        assert all(p.dtype == torch.float32 for p in stepper.model.parameters())
        losses[name] = stepper.metrics.compute()["loss"]
    assert losses[precision] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses[precision] != losses["fp32"]


def test_a_compiled_model_trains_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the compiler's own tracing and derivatives; generating code from them would take half a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    weights = []
    for compiled in (False, True):
        stepper = build_stepper(make_model("layer"), settings(compile=compiled), ALONE, steps=3)
        for number in range(3):
            train_on(stepper, make_batch(number, size=32 if number < 2 else 27))
        weights.append(list(stepper.trained.state_dict().values()))
        assert not any("orig_mod" in name for name in stepper.trained.state_dict())
    for ours, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_steps_do_not_depend_on_the_address_of_a_batch() -> None:
    found = []
    for shift in range(0, 8, 3):
        stepper = build_stepper(make_model(), settings(), ALONE, steps=1)
        batch = make_batch(0)
        memory = torch.zeros(batch.windows.numel() + 8)
        windows = memory[shift : shift + batch.windows.numel()].view(batch.windows.shape)
        windows.copy_(batch.windows)
        train_on(stepper, Batch(windows, batch.labels, batch.frame_ids))
        found.append(torch.cat([p.detach().flatten() for p in stepper.model.parameters()]))
    assert all(torch.equal(found[0], other) for other in found)


def test_weight_decay_excludes_norms_and_biases() -> None:
    model = make_model()
    groups = build_optimizer(model).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for layer in model.layers:
        if isinstance(layer, nn.Linear):
            assert decays[id(layer.weight)] == 0.01
            assert decays[id(layer.bias)] == 0
        elif isinstance(layer, (nn.BatchNorm1d, nn.LayerNorm)):
            assert decays[id(layer.weight)] == decays[id(layer.bias)] == 0
    assert len(decays) == len(list(model.parameters()))


@given(
    kind=st.sampled_from(["constant", "cosine"]),
    warmup=st.integers(0, 20),
    steps=st.integers(1, 50),
    floor=st.floats(0, 0.9),
)
def test_learning_rates_match_torch(kind: Any, warmup: int, steps: int, floor: float) -> None:
    schedule = Schedule(2.0, steps, kind=kind, warmup_steps=warmup, floor=floor)
    rates = [schedule.rate(step) for step in range(steps + 1)]
    assert all(0 <= rate <= 2 for rate in rates)
    for before, after in itertools.pairwise(rates[: warmup + 1]):
        assert after > before
    after_warmup = rates[warmup:]
    if kind == "constant":
        assert set(after_warmup) <= {2.0}
    elif steps > warmup:
        parameter = torch.optim.AdamW([torch.zeros(1)], lr=2.0)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(parameter, steps - warmup, eta_min=2 * floor)
        for rate in after_warmup:
            assert math.isclose(rate, cosine.get_last_lr()[0], rel_tol=1e-6, abs_tol=1e-9)
            parameter.step()
            cosine.step()


@given(scores=st.lists(st.integers(0, 4).map(lambda n: n / 4), max_size=30), patience=st.integers(0, 3))
def test_a_plateau_lowers_the_rate_as_torch_does(scores: list[float], patience: int) -> None:
    schedule = Schedule(1.0, 10, kind="plateau", patience=patience, factor=0.5, floor=0.1)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    judge = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.5, patience=patience, threshold=0, min_lr=0.1, eps=0
    )
    for at, score in enumerate(scores):
        schedule.evaluated(score)
        judge.step(score)
        again = Schedule(1.0, 10, kind="plateau", patience=patience, factor=0.5, floor=0.1)
        again.load_state(ScheduleState(**schedule.state_dict()))
        schedule = again
        assert schedule.rate(at) == pytest.approx(optimizer.param_groups[0]["lr"])
