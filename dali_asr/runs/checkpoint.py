"""Checkpoints: weights as safetensors, the state of training as tensors and plain values, the rest as JSON.

    RUN/checkpoints/epoch-0001-step-00000204/    saved after 1 complete epoch and 204 steps
        model.safetensors    the weights to evaluate and predict with
        training.pt          optimizer, generators, loader, sums of the epoch under way; read with `weights_only`
        checkpoint.json      the model's description, the epoch and step, the best checkpoint so far
        segments.json        counts of the label segments trained on, for Viterbi decoding; not in every checkpoint
        SHA256SUMS           checksums of the other files, in the format of `sha256sum`

Weights may be stored as float16, as those of pretrained models are; they are read as float32.

A folder is written aside, flushed and renamed, so a checkpoint appears whole or not at all. Checksums find damage;
strict models (`state`) refuse values of the wrong kind even if the checksums match.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dali_asr.corpus.regular import reading
from dali_asr.corpus.segment_counts import SegmentCounts
from dali_asr.errors import CheckpointError, DataError, UsageError
from dali_asr.files import new_folder, remove_folder, write_file
from dali_asr.pretrained import find_pretrained, is_pretrained
from dali_asr.runs.description import ModelDescription
from dali_asr.runs.run_path import CHECKPOINTS, CONFIG, check_run_folder
from dali_asr.runs.state import CHECKPOINT_NAME, StoredCheckpoint, check_weights, one_line, parse_training

if TYPE_CHECKING:
    from dali_asr.model import MLP
    from dali_asr.runs.state import TrainingState

VERSION = 3
Which = Literal["last", "best"]
_MODEL, _TRAINING, _ABOUT, _SUMS = "model.safetensors", "training.pt", "checkpoint.json", "SHA256SUMS"
_SEGMENTS = "segments.json"
_NAME = re.compile(CHECKPOINT_NAME)
_EMPTY = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and the point of the run at which it was saved.

    Attributes:
        description: the model's description.
        epoch: the number of completed epochs.
        step: the number of optimizer steps.
        metrics: the line of the last epoch, which may be cut short; None before the first.
        best: name and dev accuracy of the best checkpoint; None before the first evaluation.
        metrics_bytes: the size of the run's `metrics.jsonl` at that point.
        weights: the weights to evaluate and predict with, by name.
        metrics_sha256: the checksum of those bytes of `metrics.jsonl`.
        segments: counts of the label segments trained on; None in checkpoints of earlier versions, and for inventories
            of more than 1,000 symbols.
    """

    description: ModelDescription
    epoch: int
    step: int
    metrics: dict[str, Any] | None
    best: tuple[str, float | None] | None
    metrics_bytes: int
    weights: dict[str, torch.Tensor]
    metrics_sha256: str = _EMPTY
    segments: SegmentCounts | None = None

    @property
    def name(self) -> str:
        """The name of the checkpoint's folder; names sort by time."""
        return checkpoint_name(self.epoch, self.step)

    def build(self, device: torch.device) -> MLP:
        """Return the trained model on a device, in evaluation mode."""
        model = self.description.build()
        model.load_state_dict(self.weights)
        return model.to(device).eval()


def checkpoint_name(epoch: int, step: int) -> str:
    """Return the name of the folder of a checkpoint."""
    return f"epoch-{epoch:04d}-step-{step:08d}"


def save_checkpoint(folder: Path, checkpoint: Checkpoint, training: dict[str, Any], *, keep: int) -> None:
    """Write a checkpoint, and remove all but the last `keep` and the best.

    Args:
        folder: the run's folder of checkpoints.
        checkpoint: what to write.
        training: the values of a `TrainingState`.
        keep: the number of checkpoints to keep, besides the best.

    Raises:
        OSError: the disk is full or cannot be written. Earlier checkpoints are kept.
    """
    state = io.BytesIO()
    torch.save(training, state)
    about = {
        "version": VERSION,
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "best": checkpoint.best,
        "metrics_bytes": checkpoint.metrics_bytes,
        "metrics_sha256": checkpoint.metrics_sha256,
        "model": checkpoint.description.to_json(),
    }
    files = {
        _MODEL: save_tensors({name: tensor.cpu().contiguous() for name, tensor in checkpoint.weights.items()}),
        _TRAINING: state.getvalue(),
        _ABOUT: (json.dumps(about, indent=2) + "\n").encode(),
    }
    if checkpoint.segments:
        files[_SEGMENTS] = (json.dumps(checkpoint.segments.to_json()) + "\n").encode()
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    with new_folder(folder / checkpoint.name) as partial:
        for name, content in {**files, _SUMS: sums.encode()}.items():
            write_file(partial / name, content)
    remove_old(folder, keep)


def is_checkpoint(path: Path) -> bool:
    """Whether a path has the form of a checkpoint's folder in a run; it need not exist."""
    return path.parent.name == CHECKPOINTS and bool(_NAME.fullmatch(path.name))


def run_of(path: Path) -> Path:
    """Return the run's folder, given that, the folder of one of its checkpoints, or the name of a pretrained model."""
    return path.parent.parent if is_checkpoint(path) else find_pretrained(path) or path


def output_folder(path: Path) -> Path:
    """Return where what is made of a run is written by default: its folder; of a pretrained model, the current one."""
    return Path() if is_of_package(path) else run_of(path)


def is_of_package(path: Path) -> bool:
    """Return whether a run, or a checkpoint in it, is a model in the package."""
    return is_pretrained(run_of(path))


def shown_name(path: Path, checkpoint: Checkpoint) -> str:
    """Return what a checkpoint is called: a pretrained model by its name, others by their folder's."""
    return run_of(path).name if is_of_package(path) else checkpoint.name


def list_checkpoints(run: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, oldest first.

    Raises:
        DataError: the folder cannot be read.
    """
    folder = run / CHECKPOINTS
    with reading(folder):
        return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint by the name of its folder."""
    return int(checkpoint.name.rpartition("-")[2])


def find_checkpoint(run: Path, which: Which) -> Path:
    """Return the folder of a run's last or best checkpoint.

    Raises:
        UsageError: `which` is neither `best` nor `last`.
        CheckpointError: the folder is not a run, or has no such checkpoint.
    """
    if which not in get_args(Which):
        raise UsageError(f"checkpoint {which!r}; expected best or last, or give the folder of a checkpoint as the run")
    check_run_folder(run, pretrained=True)
    found = list_checkpoints(run)
    if not found:
        if (run / CONFIG).is_file():
            raise CheckpointError(
                f"{run}: the run ended before its first checkpoint; start it again with the same configuration and "
                "folder (run=FOLDER, resume='auto')"
            )
        if run.name == CHECKPOINTS:
            raise CheckpointError(f"{run}: not a run, but the checkpoints of one; give {run.parent}, or one of them")
        raise CheckpointError(
            f"{run}: not a run, it has no checkpoints; train one first, or give the folder that dali-asr train prints"
        )
    if which == "last":
        return found[-1]
    best = _read_about(found[-1]).best
    if best is None:
        raise CheckpointError(
            f"{run}: no best checkpoint, because none was evaluated yet; use the last one (checkpoint='last'), or "
            "train on"
        )
    return run / CHECKPOINTS / str(best[0])


def checkpoint_folder(run: Path, which: Which) -> Path:
    """Return the folder of a checkpoint; arguments and errors as in `load_checkpoint`."""
    if not is_checkpoint(run):
        return find_checkpoint(run_of(run), which)
    check_run_folder(run_of(run), pretrained=True)
    return run


def load_checkpoint(run: Path, which: Which = "best") -> Checkpoint:
    """Read a checkpoint of a run.

    Args:
        run: the run's folder, or the name of a pretrained model; or a checkpoint's, which then overrides `which`.
        which: `best` or `last`.

    Raises:
        CheckpointError: the folder is not a run, has no such checkpoint, or the checkpoint is damaged.
    """
    return read_checkpoint(checkpoint_folder(run, which))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the checkpoint in a folder.

    Raises:
        CheckpointError: it is damaged or invalid; the message names the previous checkpoint.
    """
    about = _read_about(path)
    values = about.model_dump()
    try:
        stored = load_tensors(_read_checked(path, _MODEL))
    except SafetensorError as error:
        raise CheckpointError(f"{path / _MODEL}: damaged ({error}); {remedy(path)}") from error
    try:
        description = ModelDescription.from_json(values["model"])
        with torch.device("meta"):
            expected = description.build().state_dict()
    except (KeyError, TypeError, ValueError, RuntimeError, DataError, UsageError) as error:
        raise CheckpointError(f"{path / _ABOUT}: invalid (model: {error}); {remedy(path)}") from error
    weights = {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in stored.items()}
    try:
        check_weights(weights, expected)
    except ValueError as error:
        raise CheckpointError(
            f"{path}: its weights do not fit the model it describes ({error}); {remedy(path)}"
        ) from error
    best = None if about.best is None else (str(about.best[0]), about.best[1])
    return Checkpoint(
        description,
        about.epoch,
        about.step,
        values["metrics"],
        best,
        about.metrics_bytes,
        weights,
        about.metrics_sha256,
        _read_segments(path, len(description.inventory)),
    )


def read_training(path: Path) -> TrainingState:
    """Read the state that training continues from; nothing in it is executed.

    Raises:
        CheckpointError: it is damaged or invalid; the message names the checkpoint before.
    """
    where = str(path / _TRAINING)
    content = io.BytesIO(_read_checked(path, _TRAINING))
    try:
        values = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # a crafted file can fail anywhere in the unpickler
        cause = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{where}: cannot be read ({type(error).__name__}: {cause}); {remedy(path)}") from error
    state = parse_training(values, where, remedy(path))
    if checkpoint_name(state.completed, state.stepper.steps) != path.name:
        raise CheckpointError(
            f"{where}: is of epoch {state.completed} and step {state.stepper.steps}, unlike its folder; {remedy(path)}"
        )
    return state


def remove_later(path: Path) -> list[str]:
    """Remove the checkpoints after this one and return their names."""
    later = [other for other in list_checkpoints(path.parent.parent) if other.name > path.name]
    for other in later:
        remove_folder(other)
    return [other.name for other in later]


def remove_old(folder: Path, keep: int) -> None:
    """Remove all checkpoints in a folder but the last `keep` and those that one of them calls the best."""
    found = list_checkpoints(folder.parent)
    best = set()
    for path in found[-keep:]:
        with suppress(CheckpointError):
            about = _read_about(path)
            best.add(about.best and about.best[0])
    for path in found[:-keep]:
        if path.name not in best:
            remove_folder(path)


def _read_about(path: Path) -> StoredCheckpoint:
    try:
        values = json.loads(_read_checked(path, _ABOUT))
        version = values["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path / _ABOUT}: damaged ({error!r}); {remedy(path)}") from error
    if version != VERSION:
        raise CheckpointError(
            f"{path}: checkpoint format {version}, this dali-asr reads {VERSION}; "
            "use the version that trained the run, or train again"
        )
    try:
        about = StoredCheckpoint.model_validate(values)
    except ValidationError as error:
        raise CheckpointError(f"{path / _ABOUT}: invalid ({one_line(error)}); {remedy(path)}") from error
    if checkpoint_name(about.epoch, about.step) != path.name:
        raise CheckpointError(
            f"{path / _ABOUT}: is of epoch {about.epoch} and step {about.step}, unlike its folder; {remedy(path)}"
        )
    return about


def _read_segments(path: Path, labels: int) -> SegmentCounts | None:
    """Return the counts of segments of C labels; None if the checkpoint was saved without."""
    if not (path / _SEGMENTS).exists() and f"  {_SEGMENTS}\n" not in (path / _SUMS).read_text(encoding="utf-8"):
        return None
    try:
        return SegmentCounts.from_json(json.loads(_read_checked(path, _SEGMENTS)), labels)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{path / _SEGMENTS}: invalid ({error}); {remedy(path)}") from error


def _read_checked(path: Path, name: str) -> bytes:
    """Return the content of a checkpoint's file after comparing its checksum."""
    try:
        content = (path / name).read_bytes()
        sums = (path / _SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "damaged"
        raise CheckpointError(f"{getattr(error, 'filename', None) or path}: {reason}; {remedy(path)}") from error
    if f"{hashlib.sha256(content).hexdigest()}  {name}" not in sums:
        raise CheckpointError(f"{path / name}: its SHA-256 differs from the one in {_SUMS}; {remedy(path)}")
    return content


def remedy(path: Path) -> str:
    """Return what to do if a checkpoint cannot be used."""
    before = [other for other in list_checkpoints(path.parent.parent) if other.name < path.name]
    return f"use the checkpoint before: {before[-1]}" if before else "train again"
