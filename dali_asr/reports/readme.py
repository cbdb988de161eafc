"""The README that a run is handed in with: setup, experiments, architecture."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dali_asr.config import DEMO
from dali_asr.runs.curves import epoch_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dali_asr.config import Config
    from dali_asr.reports.submission import Submission

SUBMISSION = "submission.csv"
_CORPUS = "CORPUS"  # stands for the folder of the corpus, which is elsewhere on another machine
_PREDICTED = "PREDICTED_CORPUS"  # stands for that of another corpus, which was predicted
_WANDB = "https://wandb.ai"


@dataclass(frozen=True)
class Facts:
    """What the README tells.

    Attributes:
        name: of the run.
        config: its configuration.
        environment: versions and machine.
        metadata: the content of `model_metadata.json`.
        lines: of the metrics.
        changes: what changed when the run was resumed.
        evaluations: scores on labelled partitions.
        files: names of the files in the archive.
        checkpoint: what is handed in: `best`, `last`, or the name of another checkpoint's folder.
        submission: what was predicted; None without a test partition.
        wandb_run: W&B's ID of the run; None if it was not tracked there.
    """

    name: str
    config: Config
    environment: dict[str, Any]
    metadata: dict[str, Any]
    lines: Sequence[dict[str, Any]]
    changes: Sequence[dict[str, Any]]
    evaluations: Sequence[dict[str, Any]]
    files: Sequence[str]
    checkpoint: str
    submission: Submission | None
    wandb_run: str | None


def write_readme(facts: Facts) -> str:
    """Return the text, in Markdown."""
    sections = (_setup(facts), _experiments(facts), _architecture(facts), _contents(facts))
    return "\n\n".join([f"# {facts.name}", *(paragraph for section in sections for paragraph in section)]) + "\n"


def _setup(facts: Facts) -> Iterator[str]:
    yield "## Setup"
    versions = facts.environment.get("packages") or {}
    data = facts.config.data
    root, run = (DEMO if data.root == DEMO else _CORPUS), f"runs/{facts.name}"
    predicted = _predicted_corpus(facts, root)
    folders = {_CORPUS: "the corpus", _PREDICTED: "the corpus that is predicted"}
    used = {name: what for name, what in folders.items() if name in (root, predicted)}
    meanings = [f"; `{name}` stands for the folder of {what}" for name, what in used.items()]
    model = "a similar model (this one was resumed with other settings, see below)" if facts.changes else "the model"
    yield (
        "The configuration beside this file holds every setting"
        + "".join(meanings)
        + f". These commands train {model}, and predict with it:"
    )
    commands = [
        [
            *("dali-asr", "train", "config.yaml", "--run-folder", run),
            *([] if root == DEMO else ["--set", f"data.root={root}"]),
        ],
    ]
    if facts.submission:
        named = facts.checkpoint not in ("best", "last")
        last = ["--checkpoint", "last"] if facts.checkpoint == "last" else []
        commands.append(
            [
                *("dali-asr", "predict", f"{run}/checkpoints/{facts.checkpoint}" if named else run, predicted),
                *("--partition", facts.submission.partition, *last, "--output", SUBMISSION),
            ]
        )
    yield "```sh\n" + "\n".join(map(shlex.join, commands)) + "\n```"
    machine = facts.environment.get("machine") or {}
    yield _table(
        ("what", "value"),
        [
            ("recipe", facts.environment.get("recipe")),
            ("corpus", data.root),
            *([("predicted corpus", facts.submission.source)] if facts.submission and predicted != root else []),
            ("seed", facts.config.training.seed),
            ("processor", f"{machine.get('processor') or 'unknown'}, {machine.get('cores')} cores"),
            ("GPU", machine.get("gpu") or "none"),
            ("Python", facts.environment.get("python")),
            ("CUDA", facts.environment.get("cuda") or "none"),
            ("git commit", facts.environment.get("git") or "none"),
            *versions.items(),
        ],
    )


def _predicted_corpus(facts: Facts, root: str) -> str:
    """Return what stands for the corpus that was predicted, given what stands for that of the training."""
    if facts.submission is None or facts.submission.source == facts.config.data.root:
        return root
    return DEMO if facts.submission.source == DEMO else _PREDICTED


def _experiments(facts: Facts) -> Iterator[str]:
    yield "## Experiments"
    config, training = facts.config, facts.config.training
    yield _table(
        ("setting", "value"),
        [
            ("trained on", " + ".join(config.data.train)),
            ("evaluated on", config.data.dev or "nothing"),
            ("normalization", config.data.normalization),
            ("batch size", config.loader.batch_size),
            ("masks", "none" if config.loader.masking is None else "as in config.yaml"),
            ("epochs", training.epochs),
            ("optimizer", f"AdamW, learning rate {training.optimizer.learning_rate:g}, {training.schedule.kind}"),
            ("weight decay", f"{training.optimizer.weight_decay:g}"),
            ("label smoothing", f"{training.label_smoothing:g}"),
            ("precision", training.precision),
        ],
    )
    epochs = [line for line in facts.lines if line["kind"] == "epoch"]
    if epochs:
        yield _epoch_table(epochs)
    accuracy = facts.metadata["dev_accuracy"]
    reached = "" if accuracy is None else f", with a dev accuracy of {accuracy:.2%}"
    which = facts.checkpoint
    called = f"{which} checkpoint" if which in ("best", "last") else f"checkpoint {which}"
    yield (
        f"The {called}, which is handed in, was saved after {facts.metadata['epoch']} complete "
        f"epochs and {facts.metadata['step']:,} steps{reached}."
    )
    if facts.changes:
        yield "The run was resumed with other settings:"
        yield _table(
            ("after step", "key", "was", "is"),
            [(f"{c['step']:,}", c["key"], json.dumps(c["old"]), json.dumps(c["new"])) for c in facts.changes],
        )
    if facts.evaluations:
        yield _evaluation_table(facts.evaluations)
    if facts.wandb_run:
        yield _wandb_line(facts)


def _epoch_table(epochs: Iterable[dict[str, Any]]) -> str:
    rows = []
    for epoch in epochs:
        values = [(epoch[part] or {}).get(name) for part in ("train", "dev") for name in ("loss", "accuracy")]
        rows.append((epoch_label(epoch), f"{epoch['step']:,}", *map(_number, values, (".4f", ".2%") * 2)))
    return _table(("epoch", "step", "train loss", "train accuracy", "dev loss", "dev accuracy"), rows)


def _evaluation_table(evaluations: Iterable[dict[str, Any]]) -> str:
    scores = ("accuracy", "macro_f1", "phoneme_error_rate")
    return _table(
        ("partition", "checkpoint", "decoding", "frame accuracy", "macro F1", "phoneme error rate"),
        [
            (e["partition"], e["checkpoint"], e["decoding"], *(_number(e.get(name), ".2%") for name in scores))
            for e in evaluations
        ],
    )


def _wandb_line(facts: Facts) -> str:
    project, entity = facts.config.wandb.project, facts.config.wandb.entity
    place = f"project {project}, run {facts.wandb_run}"
    if entity:
        place = f"{_WANDB}/{entity}/{project}/runs/{facts.wandb_run}"
    return f"W&B: {place}. `wandb.csv` holds the metrics that W&B was sent."


def _architecture(facts: Facts) -> Iterator[str]:
    yield "## Architecture"
    about = facts.metadata["architecture"]
    left, right = about["context"]
    frames, features = about["input"]
    limit = facts.metadata["max_parameters"]
    yield (
        f"A multilayer perceptron that labels a frame by a window of {left} frames before it and {right} after it, "
        f"{frames} × {features} = {frames * features:,} values. It has {facts.metadata['parameters']:,} parameters"
        + (f", of {limit:,} allowed." if limit else ".")
    )
    yield _table(
        ("hidden layer", "width", "normalization", "activation", "dropout"),
        [
            (at, f"{layer['width']:,}", layer["norm"], about["activation"], f"{layer['dropout']:g}")
            for at, layer in enumerate(about["hidden"], 1)
        ],
    )
    if about["residual"]:
        yield "Hidden layers of equal width add their input to their output."
    rows = [(layer["name"], layer["output"], f"{layer['parameters']:,}") for layer in about["layers"]]
    yield _table(
        ("layer", "output", "parameters"),
        [("windows", f"[B, {frames}, {features}]", "0"), *rows, ("total", "", f"{facts.metadata['parameters']:,}")],
    )


_MEANINGS = {
    "changes.jsonl": "what changed when the run was resumed",
    "config.yaml": "the configuration, with all defaults",
    "curves.png": "loss and accuracy over the steps",
    "environment.json": "versions, machine and git commit",
    "metrics.jsonl": "loss and accuracy, by step and by epoch",
    "model_metadata.json": "number of parameters and architecture",
    SUBMISSION: "the predicted labels of the test partition",
    "timings.jsonl": "seconds of each epoch",
    "wandb.csv": "the metrics that W&B was sent",
}


def _contents(facts: Facts) -> Iterator[str]:
    yield "## Files"
    yield _table(("file", "content"), [(name, _MEANINGS.get(name, _evaluation(name))) for name in facts.files])


def _evaluation(name: str) -> str:
    return "confusion matrix of an evaluation" if name.endswith(".png") else "scores of an evaluation"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
