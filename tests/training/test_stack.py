"""Models that train together get the weights of models that train alone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from dali_asr import MLP, Corpus
from dali_asr.config import IN_MEMORY, Config
from dali_asr.errors import TrainingError, TrainingInterrupted
from dali_asr.runs.checkpoint import load_checkpoint
from dali_asr.runs.reporter import Reporter
from dali_asr.training import TrainingResult, train
from dali_asr.training.stack import StackedModel, common_starts, stack_key, train_together
from tests.makers import make_features

SMALL = (
    "loader.device=cpu",
    "loader.context=4",
    "loader.batch_size=64",
    "loader.seed=3",
    "data.train=[all]",
    "data.dev=all",
    "model.hidden=[16,16]",
    "model.norm=[batch,layer]",
    "model.residual=true",
    "training.epochs=3",
    "training.log_every=4",
    # A bias before batch norm has no gradient but rounding errors, which AdamW raises to full steps at a small eps.
    "training.optimizer.eps=1e-3",
)
MEMBERS = (
    ("training.seed=0",),
    ("training.seed=1", "training.optimizer.learning_rate=0.01", "training.optimizer.weight_decay=0.5"),
    ("training.seed=2", "training.label_smoothing=0.2", "training.optimizer.max_gradient_norm=0.1"),
    ("training.seed=3", "training.schedule.kind=cosine", "training.schedule.warmup_steps=3"),
    ("training.seed=4", "training.class_weights=balanced", "training.optimizer.betas=[0.8,0.9]"),
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Return a corpus whose labels can be learned from the frames."""
    frames = [make_features(90, 5, n) for n in range(5)]
    return Corpus.from_arrays(frames, [(f[:, 0] > 3).astype("int64") + (f[:, 1] > 3) for f in frames])


def config(*overrides: str) -> Config:
    return Config.load("demo", [*SMALL, f"data.root={IN_MEMORY}", *overrides])


def together(corpus: Corpus, runs: list[Path], configs: list[Config]) -> list[TrainingResult | TrainingError]:
    starts = common_starts(runs, "demo")
    assert starts
    return train_together(configs, starts, corpus, [Reporter()] * len(runs))


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_close(found: Path, expected: Path, *, metrics: bool = True) -> None:
    """The weights of the last checkpoints, and the metrics, are equal within the rounding of float32."""
    ours, theirs = load_checkpoint(found, "last"), load_checkpoint(expected, "last")
    assert (ours.name, ours.description) == (theirs.name, theirs.description)
    for name, weight in theirs.weights.items():
        torch.testing.assert_close(ours.weights[name], weight, rtol=1e-4, atol=2e-5, msg=name)
    for our, their in zip(lines(found), lines(expected), strict=True) if metrics else ():
        assert our.keys() == their.keys()
        if our["kind"] == "step":
            assert our["learning_rate"] == their["learning_rate"]
            assert our["loss"] == pytest.approx(their["loss"], rel=1e-4)


def test_the_weights_are_those_of_separate_runs(corpus: Corpus, tmp_path: Path) -> None:
    """With other seeds, rates, decays, smoothing, clipping, schedules and class weights; with batch and layer norm."""
    configs = [config(*overrides) for overrides in MEMBERS]
    assert len({stack_key(member) for member in configs}) == 1
    runs = [tmp_path / f"together-{at}" for at in range(len(configs))]
    results = together(corpus, runs, configs)
    for at, (member, result) in enumerate(zip(configs, results, strict=True)):
        assert isinstance(result, TrainingResult)
        alone = train(member, run=tmp_path / f"alone-{at}", corpus=corpus)
        assert_close(result.run, alone.run)
        assert sorted(p.name for p in result.run.iterdir()) == sorted(p.name for p in alone.run.iterdir())
        assert (result.run / "config.yaml").read_bytes() == (alone.run / "config.yaml").read_bytes()


def test_an_interrupted_stack_continues_from_the_last_common_checkpoint(corpus: Corpus, tmp_path: Path) -> None:
    """One member had saved a checkpoint more when the process was killed."""
    short = [config(*overrides, "training.epochs=1") for overrides in MEMBERS[:2]]
    whole = [config(*overrides) for overrides in MEMBERS[:2]]
    runs = [tmp_path / "a", tmp_path / "b"]
    together(corpus, runs, short)
    train(config(*MEMBERS[0], "training.epochs=2"), run=runs[0], resume="auto", corpus=corpus)
    starts = common_starts(runs, "demo")
    assert starts
    assert [start.checkpoint.name for start in starts if start.checkpoint] == ["epoch-0001-step-00000007"] * 2
    together(corpus, runs, whole)
    for at, member in enumerate(whole):
        assert_close(runs[at], train(member, run=tmp_path / f"alone-{at}", corpus=corpus).run, metrics=False)
    assert common_starts([runs[0], tmp_path / "new"], "demo") is None


class _Interrupting(Reporter):
    def advanced(self, step: int) -> None:
        if step == 10:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_saves_all_members_at_the_same_step(corpus: Corpus, tmp_path: Path) -> None:
    configs = [config(*overrides) for overrides in MEMBERS[:2]]
    runs = [tmp_path / "a", tmp_path / "b"]
    starts = common_starts(runs, "demo")
    assert starts
    with pytest.raises(TrainingInterrupted) as stopped:
        train_together(configs, starts, corpus, [_Interrupting(), Reporter()])
    assert stopped.value.exit_code == 130
    assert [load_checkpoint(run, "last").step for run in runs] == [10, 10]
    together(corpus, runs, configs)
    for at, member in enumerate(configs):
        assert_close(runs[at], train(member, run=tmp_path / f"alone-{at}", corpus=corpus).run)


def test_a_member_that_diverges_leaves_the_others_alone(corpus: Corpus, tmp_path: Path) -> None:
    configs = [config("training.optimizer.learning_rate=1e30"), config(*MEMBERS[1])]
    failed, kept = together(corpus, [tmp_path / "a", tmp_path / "b"], configs)
    assert isinstance(failed, TrainingError)
    assert "is not finite at step" in str(failed)
    assert isinstance(kept, TrainingResult)
    assert_close(kept.run, train(configs[1], run=tmp_path / "alone", corpus=corpus).run)


def test_dropout_differs_between_members_and_has_its_rate() -> None:
    """Two equal models: 64,000 draws of rate 0.3 stay within five standard deviations."""
    models = [MLP(window=1, feature_dim=4, classes=8, hidden=[8], activation="relu") for _ in range(2)]
    for model in models:
        model.layers.append(torch.nn.Dropout(0.3))
        model.load_state_dict(models[0].state_dict())
    torch.manual_seed(0)
    logits = StackedModel(models)(torch.randn(4000, 1, 4))
    zero = logits == 0
    assert zero.shape == (2, 4000, 8)
    assert not torch.equal(zero[0], zero[1])
    assert zero.double().mean().item() == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / 64000) ** 0.5)


def test_only_runs_on_the_same_batches_and_of_one_shape_train_together() -> None:
    first = stack_key(config())
    assert first == stack_key(config("training.seed=9")), "loader.seed keeps the order"
    assert first == stack_key(config("loader.seed=null", "training.seed=3")), "the same order"
    for other in (
        "loader.seed=4",
        "loader.masking={}",
        "loader.batch_size=65",
        "loader.subset=2",
        "model.dropout=0.1",
        "model.activation=relu",
        "training.epochs=4",
        "data.train=[dev]",
    ):
        assert stack_key(config(other)) not in (None, first), other
    for alone in (
        "training.precision=bf16",
        "training.compile=true",
        "training.ema=0.9",
        "training.teacher.folder=teacher",
        "training.early_stopping=2",
        "tracking=tensorboard",
    ):
        assert stack_key(config(alone)) is None, alone
