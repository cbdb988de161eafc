"""What a course takes of a run, in one zip archive.

    README.md             setup, experiments, architecture
    model_metadata.json   number of parameters, architecture, and what the checkpoint reached
    submission.csv        the labels of the test partition, as Kaggle takes them; left out without a test partition
    config.yaml           and the other files of the run: environment.json, metrics.jsonl, timings.jsonl, changes.jsonl,
                          curves.png, the evaluations of the checkpoint
    wandb.csv             what W&B was sent, one row per step; left out if the run was not tracked there

All of them are in one folder. The same run gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from dali_asr.config import Config
from dali_asr.config.values import file_name
from dali_asr.corpus.packing import quiet
from dali_asr.corpus.regular import read_regular
from dali_asr.errors import CheckpointError, DataError, UsageError
from dali_asr.files import check_output, disk_errors, new_file, sweep
from dali_asr.model import parameter_count, summarize
from dali_asr.pretrained import is_pretrained
from dali_asr.reports.readme import SUBMISSION, Facts, write_readme
from dali_asr.reports.submission import Submission, predict_submission
from dali_asr.runs.changes import CHANGES
from dali_asr.runs.checkpoint import find_checkpoint, load_checkpoint, run_of
from dali_asr.runs.folder import ABOUT, METRICS, TIMINGS
from dali_asr.runs.run_path import CONFIG, check_run_folder
from dali_asr.runs.tracking import WANDB_ID, scalars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dali_asr.corpus.packing import Progress
    from dali_asr.runs.checkpoint import Checkpoint, Which

_FILES = (CONFIG, ABOUT, METRICS, TIMINGS, CHANGES, "curves.png")
_TIME = (1980, 1, 1, 0, 0, 0)  # of every file in the archive; the earliest that the format has
_MODE = 0o100644 << 16


@dataclass(frozen=True)
class HandIn:
    """What was handed in.

    Attributes:
        path: the archive.
        parameters: number of the model's parameters.
        max_parameters: the limit that they were checked against; None for no limit.
        checkpoint: name of the checkpoint's folder.
        files: names of the files in the archive.
        evaluations: names of the evaluations among them.
        submission: the Kaggle submission in it; None without a test partition.
    """

    path: Path
    parameters: int
    max_parameters: int | None
    checkpoint: str
    files: tuple[str, ...]
    evaluations: tuple[str, ...]
    submission: Submission | None


def hand_in(
    run: str | Path,
    path: str | Path,
    *,
    name: str | None = None,
    source: str | Path | None = None,
    partition: str | None = None,
    max_parameters: int | None = None,
    checkpoint: Which = "best",
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = quiet,
) -> HandIn:
    """Write what a course takes of a run into a zip archive.

    Args:
        run: folder of a run, or of one of its checkpoints.
        path: the archive to write.
        name: of the run in the archive, and of the folder in it; by default that of the run's folder.
        source: the corpus to predict; by default the one that the run was trained on.
        partition: to predict; by default the run's `data.test`.
        max_parameters: limit of the number of parameters; by default the run's `model.max_parameters`.
        checkpoint: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`, to predict.
        overwrite: whether the archive may exist.
        progress: called with a stage, the amount done, and the amount of all.

    Raises:
        UsageError: the run is a model in the package, the model has more parameters than allowed, the name is invalid,
            or the archive exists or its name does not end in `.zip`.
        CheckpointError: the folder is not a run, or the checkpoint is damaged.
        DataError: the corpus is missing, a file cannot be read, or the disk cannot be written.
    """
    run, path = Path(run).expanduser(), Path(path).expanduser()
    check_output(path, overwrite=overwrite, suffix=".zip")
    folder = run_of(run)
    if is_pretrained(folder):
        raise UsageError(
            f"{run}: is a model in the package, not a run; hand in a run of your own, which may start from it "
            f"(training.init={folder.name})"
        )
    check_run_folder(folder, pretrained=False)
    called = _checked_name(name or folder.absolute().name)
    trained = load_checkpoint(run, checkpoint)
    config = Config.load(folder / CONFIG)
    limit = max_parameters if max_parameters is not None else config.model.max_parameters
    metadata = _metadata(called, trained, limit)
    _check_parameters(folder, metadata["parameters"], limit)
    files = {file: read_regular(folder / file) for file in _FILES if (folder / file).is_file()}
    evaluations = [found for found in sorted(folder.glob(f"evaluation-*-{trained.name}.*")) if _is_current(found)]
    files |= {found.name: read_regular(found) for found in evaluations}
    scores = [found.name for found in evaluations if found.suffix == ".json"]
    lines = _json_lines(folder, files, METRICS)
    submission = None
    if config.data.test or source is not None or partition is not None:
        with TemporaryDirectory() as aside:
            submission = predict_submission(
                run,
                Path(aside) / SUBMISSION,
                source=source,
                partition=partition,
                checkpoint=checkpoint,
                device=device,
                progress=progress,
            )
            files[SUBMISSION] = read_regular(Path(aside) / SUBMISSION)
    if (folder / WANDB_ID).is_file():
        files["wandb.csv"] = _wandb_history(lines)
    files["model_metadata.json"] = (json.dumps(metadata, indent=2, ensure_ascii=False) + "\n").encode()
    facts = Facts(
        name=called,
        config=config,
        environment=_json_object(folder, files, ABOUT),
        metadata=metadata,
        lines=lines,
        changes=_json_lines(folder, files, CHANGES),
        evaluations=[_json_object(folder, files, file) for file in scores],
        files=sorted(files),
        checkpoint=_role(folder, trained.name),
        submission=submission,
        wandb_run=_wandb_run(folder),
    )
    files["README.md"] = write_readme(facts).encode()
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with new_file(path) as stream:
            _write_archive(stream, called, files)
    return HandIn(path, metadata["parameters"], limit, trained.name, tuple(sorted(files)), tuple(scores), submission)


def _role(run: Path, checkpoint: str) -> str:
    """Return `best` or `last` if that is what a checkpoint is to its run, otherwise its name."""
    which: Which
    for which in ("best", "last"):
        with suppress(CheckpointError):  # none is the best without a dev partition
            if find_checkpoint(run, which).name == checkpoint:
                return which
    return checkpoint


def _checked_name(name: str) -> str:
    try:
        return str(file_name(name))
    except ValueError as error:
        raise UsageError(f"name: {error}; give another (name=NAME)") from error


def _metadata(name: str, trained: Checkpoint, limit: int | None) -> dict[str, Any]:
    """Return the content of `model_metadata.json`."""
    description = trained.description
    with torch.device("meta"):
        model = description.build()
    dev = (trained.metrics or {}).get("dev") or {}
    return {
        "name": name,
        "parameters": parameter_count(model),
        "max_parameters": limit,
        "architecture": {
            "kind": "multilayer perceptron",
            "context": list(description.context),
            "input": [description.window, description.feature_dim],
            "hidden": [asdict(layer) for layer in description.hidden],
            "activation": description.activation,
            "residual": description.residual,
            "classes": len(description.inventory),
            "layers": [asdict(layer) for layer in summarize(model, description.window, description.feature_dim)],
        },
        "normalization": description.normalization.kind,
        "checkpoint": trained.name,
        "epoch": trained.epoch,
        "step": trained.step,
        "dev_accuracy": dev.get("accuracy"),
        "dev_loss": dev.get("loss"),
    }


def _check_parameters(run: Path, count: int, limit: int | None) -> None:
    if limit is not None and count > limit:
        raise UsageError(
            f"{run}: the model has {count:,} parameters, {count - limit:,} more than the {limit:,} allowed "
            "(max_parameters=N); hand in a smaller one"
        )


def _json_lines(run: Path, files: dict[str, bytes], name: str) -> list[dict[str, Any]]:
    """Return the objects in a file of the run, one per line; none if there is no such file."""
    try:
        return [json.loads(line) for line in files.get(name, b"").splitlines()]
    except ValueError as error:
        raise DataError(f"{run / name}: damaged ({error}); copy the whole folder of the run again") from error


def _json_object(run: Path, files: dict[str, bytes], name: str) -> dict[str, Any]:
    """Return the object in a file of the run."""
    try:
        return dict(json.loads(files[name]))
    except (KeyError, ValueError, TypeError) as error:
        reason = "damaged" if name in files else "missing"
        raise DataError(f"{run / name}: {reason}; copy the whole folder of the run again") from error


def _wandb_run(run: Path) -> str | None:
    path = run / WANDB_ID
    return read_regular(path).decode(errors="replace").strip() if path.is_file() else None


def _wandb_history(lines: Sequence[dict[str, Any]]) -> bytes:
    """Return what W&B was sent, as CSV with a column per metric; W&B joins the lines of a step."""
    rows: dict[int, dict[str, float]] = {}
    for line in lines:
        rows.setdefault(line["step"], {}).update(scalars(line))
    columns = ["step", *sorted({name for row in rows.values() for name in row})]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"step": step, **row} for step, row in rows.items())
    return text.getvalue().encode()


def _write_archive(stream: Any, folder: str, files: dict[str, bytes]) -> None:
    """Write the files into a folder of an archive, in the order of their names and with one time for all."""
    with zipfile.ZipFile(stream, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{folder}/{name}", _TIME)
            entry.external_attr = _MODE
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED)


def _is_current(evaluation: Path) -> bool:
    """Return whether an evaluation is younger than its checkpoint, which a resumed run may have written anew."""
    found = re.search(r"(epoch-\d+-step-\d+)\.\w+$", evaluation.name)
    checkpoint = evaluation.parent / "checkpoints" / found[1] if found else None
    return not (checkpoint and checkpoint.is_dir() and evaluation.stat().st_mtime < checkpoint.stat().st_mtime)
