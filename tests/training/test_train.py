"""Training is reproducible and complete, and its folder explains itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn import functional

from dali_asr import MLP, Corpus, Inventory, PackedWriter
from dali_asr.build import build_hidden
from dali_asr.config import Config
from dali_asr.demo import DEMO_CORPUS
from dali_asr.errors import DataError, TrainingError, UsageError
from dali_asr.loading import WindowLoader
from dali_asr.reports.record import read_record
from dali_asr.runs.checkpoint import find_checkpoint, load_checkpoint
from dali_asr.runs.curves import epoch_label
from dali_asr.training import Printer, train
from tests.makers import make_course, make_features

SMALL = ["model.hidden=[16]", "training.max_steps=6", "loader.context=1", "training.epochs=9"]


def trained(path: Path, *overrides: str) -> Any:
    return train(Config.load("demo", [*SMALL, "loader.device=cpu", *overrides]), run=path)


@pytest.mark.parametrize("name", ["demo", "course-tiny", "course-full", "course-best", "so762-mini"])
def test_every_recipe_trains_for_three_steps(name: str, tmp_path: Path) -> None:
    recipe = Config.load(name)
    make_course(tmp_path / "c", {p: [40, 30, 60] for p in recipe.data.partitions}, dim=28, unlabelled=("test-clean",))
    root = "demo" if name == "demo" else str(tmp_path / "c")
    config = Config.load(name, [f"data.root={root}", "loader.batch_size=32", "training.max_steps=3"])
    result = train(config, run=tmp_path / "run")
    assert result.epochs[-1]["step"] == 3
    assert torch.isfinite(torch.tensor(result.epochs[-1]["train"]["loss"]))


def test_the_same_seed_gives_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    options = [
        "model.preset=tiny",
        "model.hidden=null",
        "loader.masking={}",
        "loader.context=3",
        "training.max_steps=40",
    ]
    for name in ("a", "b"):
        trained(tmp_path / name, *options)
    trained(tmp_path / "c", *options, "training.seed=1")
    weights = [(find_checkpoint(tmp_path / n, "last") / "model.safetensors").read_bytes() for n in "abc"]
    assert weights[0] == weights[1] != weights[2]
    metrics = [(tmp_path / n / "metrics.jsonl").read_bytes() for n in "abc"]
    assert metrics[0] == metrics[1] != metrics[2]


@pytest.mark.usefixtures("curves_of_runs")
def test_the_run_folder_explains_itself(tmp_path: Path) -> None:
    result = trained(tmp_path / "run", "training.max_steps=null", "training.epochs=2")
    run = result.run
    assert sorted(p.name for p in run.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "curves.png",
        "environment.json",
        "metrics.jsonl",
        "timings.jsonl",
    ]
    assert Config.check(yaml.safe_load((run / "config.yaml").read_text())).training.epochs == 2
    about = json.loads((run / "environment.json").read_text())
    assert {"torch", "nvidia-dali-cuda120", "dali-asr"} <= set(about["packages"])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert epochs == result.epochs
    assert [line["step"] for line in epochs] == [204, 408]
    assert (run / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not list(run.rglob("*.partial"))


def test_reported_metrics_match_the_saved_weights(tmp_path: Path) -> None:
    """Compared with running the saved weights over the whole dev partition in plain torch."""
    result = trained(tmp_path / "run")
    checkpoint = load_checkpoint(result.run, "last")
    model = checkpoint.build(torch.device("cpu"))
    dev = Corpus.open(DEMO_CORPUS).partition("dev")
    batch = next(iter(WindowLoader(dev, context=1, batch_size=dev.frame_count, shuffle=False, device="cpu")))
    with torch.inference_mode():
        logits = model(batch.windows)
    measured = result.epochs[-1]["dev"]
    assert len(batch.labels) == dev.frame_count
    assert measured["accuracy"] == pytest.approx((logits.argmax(1) == batch.labels).double().mean().item(), abs=1e-6)
    assert measured["loss"] == pytest.approx(functional.cross_entropy(logits, batch.labels).item(), rel=1e-4)


def test_a_logged_loss_is_the_mean_since_the_line_before(tmp_path: Path) -> None:
    """Compared with the losses of the single steps, also across the end of an epoch."""

    def logged(name: str, every: int) -> list[dict[str, Any]]:
        small = ["training.max_steps=32", "loader.subset=9", "loader.batch_size=250"]
        run = trained(tmp_path / name, *small, f"training.log_every={every}").run
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

    steps = [line for line in logged("single", 1) if line["kind"] == "step"]
    lines = logged("mean", 4)
    for name in ("loss", "accuracy"):
        values = [line[name] for line in steps]
        means = [sum(values[at : at + 4]) / 4 for at in range(0, 32, 4)]
        assert [line[name] for line in lines if line["kind"] == "step"] == pytest.approx(means)
        assert [line["train"][name] for line in lines if line["kind"] == "epoch"] == pytest.approx(
            [sum(values[:23]) / 23, sum(values[23:]) / 9]
        )


def test_the_best_checkpoint_has_the_highest_dev_accuracy(tmp_path: Path) -> None:
    result = trained(
        tmp_path / "run", "training.max_steps=null", "training.epochs=5", "training.optimizer.learning_rate=0.3"
    )
    scores = [epoch["dev"]["accuracy"] for epoch in result.epochs]
    best, last = (load_checkpoint(result.run, which) for which in ("best", "last"))
    assert best.epoch == scores.index(max(scores)) + 1
    assert last.epoch == len(scores)
    kept = {path.name for path in (result.run / "checkpoints").iterdir()}
    assert kept == {best.name, last.name, f"epoch-0004-step-{result.epochs[3]['step']:08d}"}, (
        "the last two and the best"
    )
    load_file(result.run / "checkpoints" / best.name / "model.safetensors")


def test_a_printer_shows_every_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config.load("demo", [*SMALL, "loader.device=cpu", "loader.subset=9", "training.max_steps=1"])
    train(config, run=tmp_path / "run", reporter=Printer())
    train_line, dev_line = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"epoch 1 \(cut short\)  train  loss [\d.]+  accuracy [\d.]+%  data stall [\d.]+%", train_line)
    assert re.fullmatch(r"epoch 1 \(cut short\)  dev    loss [\d.]+  accuracy [\d.]+%", dev_line)


def test_an_epoch_cut_short_goes_on_in_the_resumed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its line at the end is that of a run that was never cut."""
    options = [*SMALL, "loader.device=cpu", "loader.subset=9", "loader.batch_size=250"]
    options += ["training.schedule.kind=constant"]

    def run(name: str, steps: int) -> Any:
        config = Config.load("demo", [*options, f"training.max_steps={steps}"])
        return train(config, run=tmp_path / name, resume="auto", reporter=Printer())

    whole = run("whole", 46)
    cut = run("cut", 30)
    assert "from step" not in capsys.readouterr().out
    assert load_checkpoint(cut.run, "last").name == "epoch-0001-step-00000030"
    again = run("cut", 46)
    (shown, _) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"epoch 2  train  loss [\d.]+  accuracy [\d.]+%  data stall [\d.]+% \(from step 31\)", shown)
    timings = [json.loads(line) for line in (cut.run / "timings.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line.get("from_step")) for line in timings] == [(1, None), (2, None), (2, 31)]
    seconds = sum(line["train_seconds"] for line in timings[:2])
    waited = sum(line["train_seconds"] * line["data_stall"] for line in timings[:2])
    assert read_record(cut.run).data_stall == pytest.approx(waited / seconds)
    assert [(e["epoch"], e["step"], e["complete"]) for e in again.epochs] == [
        (1, 23, True),
        (2, 30, False),
        (2, 46, True),
    ]
    assert [again.epochs[0], again.epochs[2]] == whole.epochs
    assert load_checkpoint(cut.run, "last").name == "epoch-0002-step-00000046"
    record = read_record(cut.run)
    assert (record.completed, len(record.by_number)) == (2, 2)
    assert {line["epoch"] for line in record.lines if line["step"] > 23} == {2}
    assert [epoch_label(line) for line in record.epochs] == ["1", "2 (cut short)", "2"]


def test_evaluation_can_skip_epochs(tmp_path: Path) -> None:
    result = trained(
        tmp_path / "run", "training.max_steps=null", "training.epochs=3", "training.eval_every=2", "loader.subset=9"
    )
    assert [epoch["dev"] is not None for epoch in result.epochs] == [False, True, True]


def test_training_without_a_dev_partition_in_bf16(tmp_path: Path) -> None:
    result = trained(tmp_path / "run", "data.dev=null", "training.precision=bf16", "loader.dtype=float16")
    assert result.epochs[-1]["dev"] is None
    assert load_checkpoint(result.run, "best").step == 6


def test_frames_without_labels_do_not_count(tmp_path: Path) -> None:
    from dali_asr.inventory import ARPABET

    with PackedWriter(tmp_path / "p", inventory=ARPABET, normalization="utterance") as writer:
        for partition in ("train", "dev", "test"):
            writer.add(partition, "a", make_features(64), [-100] * 32 + [3] * 32)
    options = ["data.dtype=float32", "loader.batch_size=8", "training.epochs=10", "training.max_steps=null"]
    result = trained(tmp_path / "run", f"data.root={tmp_path / 'p'}", *options, "training.optimizer.learning_rate=0.03")
    last = result.epochs[-1]["dev"]
    assert last["accuracy"] == 1.0
    assert last["loss"] < result.epochs[0]["train"]["loss"]


def test_unusable_partitions_and_folders_are_refused(tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train": [40], "dev": [3], "test": [3]}, unlabelled=("train",))
    root = [f"data.root={tmp_path / 'c'}", "data.dtype=float32"]
    with pytest.raises(DataError, match=r"train: has no transcripts; name a labelled partition in data\.train"):
        trained(tmp_path / "run", *root)
    with pytest.raises(UsageError, match=r"40 frames are fewer than a batch|dev: 3 frames are fewer"):
        trained(tmp_path / "run", *root, "data.train=[dev]")
    with pytest.raises(UsageError, match=r"data\.dev: .*no partition 'other'"):
        trained(tmp_path / "run", "data.dev=other")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not empty"):
        trained(tmp_path / "run")


def test_real_speech_reaches_41_percent(real_speech: Path, tmp_path: Path) -> None:
    """After two epochs of `tiny`; always predicting silence gives 30.0 %."""
    config = Config.load("so762-mini", [f"data.root={real_speech}", "training.eval_every=2"])
    assert train(config, run=tmp_path / "run").epochs[-1]["dev"]["accuracy"] >= 0.41


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Not a directory while writing"):
        trained(tmp_path / "file/run")


def test_batch_norm_cannot_train_on_one_window(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"batches of 1 window cannot train batch norm; raise loader\.batch_size"):
        trained(tmp_path / "run", "loader.batch_size=1", "model.norm=batch")
    assert trained(tmp_path / "run", "loader.batch_size=1").epochs


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    """The message names step and learning rate, and earlier checkpoints stay whole."""
    options = ["training.max_steps=null", "loader.subset=9", "training.log_every=3", "training.epochs=3"]
    kept = trained(tmp_path / "run", *options, "training.epochs=1", "training.keep_checkpoints=9").run
    message = r"is not finite at step (2[3-9]|30), learning rate 1e\+30; .* keeps the checkpoint epoch-0001"
    with pytest.raises(TrainingError, match=rf"(the loss|a weight) {message}"):
        config = Config.load("demo", [*SMALL, "loader.device=cpu", *options, "training.optimizer.learning_rate=1e30"])
        train(config, run=kept, resume="auto")
    last = load_checkpoint(kept, "last")
    assert last.epoch == 1
    assert all(torch.isfinite(tensor).all() for tensor in last.weights.values())
    for line in (kept / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_early_stopping_ends_the_run(tmp_path: Path) -> None:
    """With a learning rate of almost zero, the first epoch is the best."""
    options = ["training.max_steps=null", "loader.subset=9", "training.epochs=9", "training.early_stopping=2"]
    options += ["training.optimizer.learning_rate=1e-30"]
    result = trained(tmp_path / "run", *options)
    assert len(result.epochs) == 3
    assert result.remark is not None
    assert result.remark.startswith("Stopped early after step 66 of 198: no better dev accuracy in 2 evaluations")
    assert load_checkpoint(result.run).epoch == 1
    config = Config.load("demo", [*SMALL, "loader.device=cpu", *options])
    assert len(train(config, run=result.run, resume="auto").epochs) == 3, "and stays stopped"


def test_a_plateau_shows_in_the_metrics(tmp_path: Path) -> None:
    options = [
        "training.max_steps=null",
        "loader.subset=9",
        "training.epochs=4",
        "training.optimizer.learning_rate=1e-30",
    ]
    options += ["training.schedule.kind=plateau", "training.schedule.patience=0", "training.log_every=1"]
    run = trained(tmp_path / "run", *options).run
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = {line["epoch"]: line["learning_rate"] for line in lines if line["kind"] == "step"}
    assert [rates[epoch] * 1e30 for epoch in (1, 2, 3, 4)] == pytest.approx([1, 1, 0.5, 0.25])


def test_the_averaged_weights_are_saved_and_evaluated(tmp_path: Path) -> None:
    options = ["loader.subset=9", "training.max_steps=23", "model.norm=batch", "training.optimizer.learning_rate=0.01"]
    last = trained(tmp_path / "last", *options)
    averaged = trained(tmp_path / "averaged", *options, "training.ema=0.9")
    ours, theirs = (load_checkpoint(result.run).weights for result in (last, averaged))
    assert not torch.equal(ours["layers.1.weight"], theirs["layers.1.weight"])
    assert not torch.equal(ours["layers.2.running_var"], theirs["layers.2.running_var"]), "of the same steps"
    assert last.epochs[-1]["train"] == averaged.epochs[-1]["train"], "training is not changed"
    assert last.epochs[-1]["dev"] != averaged.epochs[-1]["dev"]


def test_too_many_parameters_are_refused(tmp_path: Path) -> None:
    count = 3 * 28 * 16 + 16 + 16 * 42 + 42
    assert trained(tmp_path / "a", f"model.max_parameters={count}").epochs
    with pytest.raises(
        UsageError, match=f"the model has {count:,} parameters, model.max_parameters allows {count - 1:,}"
    ):
        trained(tmp_path / "b", f"model.max_parameters={count - 1}")


def test_course_best_is_below_the_limit_of_the_course() -> None:
    config = Config.load("course-best")
    left, right = config.loader.context
    model = MLP(
        window=left + 1 + right,
        feature_dim=28,
        classes=42,
        hidden=build_hidden(config.model),
        residual=config.model.residual,
    )
    assert config.model.max_parameters == 20_000_000
    assert 15_000_000 < sum(p.numel() for p in model.parameters()) < 20_000_000


def test_a_symbol_without_frames_gives_a_warning(tmp_path: Path) -> None:
    from tests.training_runs import Warnings

    heard = Warnings()
    config = Config.load("demo", [*SMALL, "loader.device=cpu", "training.max_steps=1"])
    train(config, run=tmp_path / "run", reporter=heard)
    assert heard.messages == [], "of the default inventory, it is a note"
    frames = [make_features(40, 5, n) for n in range(2)]
    corpus = Corpus.from_arrays(frames, [[0] * 40, [2] * 40], Inventory(("a", "b", "c")))
    config = Config.load(
        "demo", [*SMALL, "loader.device=cpu", "data.train=[all]", "data.dev=null", "loader.batch_size=8"]
    )
    heard = Warnings()
    train(config, run=tmp_path / "other", corpus=corpus, reporter=heard)
    assert len(heard.messages) == 1
    assert heard.messages[0].startswith("all: no frame is labelled b;")


def test_a_run_says_which_corpus_it_was_trained_on(tmp_path: Path) -> None:
    """Also if that is not the configured one: an evaluation would otherwise score another corpus in silence."""
    from dali_asr import evaluate, predict

    corpus = Corpus.from_arrays(
        {"train": [make_features(60)], "dev": [make_features(20)]},
        {"train": [np.arange(60) % 3], "dev": [np.arange(20) % 3]},
        ["a", "b", "c"],
    )
    once = [*SMALL, "training.max_steps=1"]
    config = Config.load("demo", [*once, "loader.subset=1", "loader.batch_size=9", "data.test=null"])
    run = train(config, run=tmp_path / "run", corpus=corpus).run
    assert Config.load(run / "config.yaml").data.root == "(in memory)"
    with pytest.raises(DataError, match="trained on a corpus in memory, which it does not keep; give the corpus"):
        evaluate(run)
    scored = evaluate(run, corpus, device="cpu")
    assert scored.scores.accuracy == predict(run, corpus, partition="dev", device="cpu").accuracy
    demo = Corpus.open(DEMO_CORPUS)
    for given, recorded in {"elsewhere": str(DEMO_CORPUS), "demo": "demo"}.items():
        run = train(Config.load("demo", [*once, f"data.root={given}"]), run=tmp_path / given, corpus=demo).run
        assert Config.load(run / "config.yaml").data.root == recorded
