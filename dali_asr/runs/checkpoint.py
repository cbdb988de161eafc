"""Checkpoints: weights as safetensors, what training goes on from as tensors and plain values, all else as JSON.

    RUN/checkpoints/epoch-0001-step-00000204/    of one epoch ended, and 204 steps
        model.safetensors    the weights to be used
        training.pt          optimizer, generators, loader, sums under way; read with `weights_only`
        checkpoint.json      what the model is, where it stood, which checkpoint is the best
        SHA256SUMS           of the three, as `sha256sum` has it

A folder is written aside, flushed and renamed, so a checkpoint is there as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dali_asr.errors import CheckpointError, DataError, UsageError
from dali_asr.runs.description import ModelDescription

if TYPE_CHECKING:
    from pathlib import Path

    from dali_asr.model import MLP

VERSION = 2
CONFIG = "config.yaml"  # of the run
Which = Literal["last", "best"]
_MODEL, _TRAINING, _ABOUT, _SUMS = "model.safetensors", "training.pt", "checkpoint.json", "SHA256SUMS"
_NAME = re.compile(r"epoch-\d{4,}-step-\d{8,}")


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and where it stood.

    Attributes:
        description: of the model.
        epoch: epochs that had ended.
        step: optimizer steps.
        metrics: of the epoch that ended last; None where none had.
        best: name of the best checkpoint, and its dev accuracy; None where no epoch had ended.
        metrics_bytes: of the run's metrics that were written.
        weights: to be used, by name.
    """

    description: ModelDescription
    epoch: int
    step: int
    metrics: dict[str, Any] | None
    best: tuple[str, float | None] | None
    metrics_bytes: int
    weights: dict[str, torch.Tensor]

    @property
    def name(self) -> str:
        """Of its folder; names sort as time went."""
        return checkpoint_name(self.epoch, self.step)

    def build(self, device: torch.device) -> MLP:
        """Return the trained model on a device, in evaluation mode.

        Raises:
            CheckpointError: the weights are of another model.
        """
        model = self.description.build()
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"checkpoint of step {self.step}: its weights are not of the model that it describes; "
                "use the other checkpoint, or train again"
            ) from error
        return model.to(device).eval()


def checkpoint_name(epoch: int, step: int) -> str:
    """Return the name of the folder of a checkpoint, after so many epochs ended and steps were done."""
    return f"epoch-{epoch:04d}-step-{step:08d}"


def save_checkpoint(folder: Path, checkpoint: Checkpoint, training: dict[str, Any], *, keep: int) -> None:
    """Write a checkpoint, and remove all but the last `keep` and the best.

    Args:
        folder: of the run's checkpoints.
        checkpoint: the model.
        training: what training goes on from: tensors and plain values.
        keep: how many.

    Raises:
        OSError: the disk is full, or cannot be written; what was saved before stays.
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
        "model": checkpoint.description.to_json(),
    }
    files = {
        _MODEL: save_tensors({name: tensor.cpu().contiguous() for name, tensor in checkpoint.weights.items()}),
        _TRAINING: state.getvalue(),
        _ABOUT: (json.dumps(about, indent=2) + "\n").encode(),
    }
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    folder.mkdir(parents=True, exist_ok=True)
    _remove_partial(folder)
    aside = folder / f".{checkpoint.name}.partial"
    try:
        aside.mkdir()
        for name, content in {**files, _SUMS: sums.encode()}.items():
            _write(aside / name, content)
        _flush(aside)
        target = folder / checkpoint.name
        if target.exists():  # of the same step, before the run was interrupted
            target.rename(folder / f".{checkpoint.name}.superseded.partial")
        aside.rename(target)
        _flush(folder)
    finally:
        _remove_partial(folder)
    _keep(folder, keep)


def is_checkpoint(path: Path) -> bool:
    """Whether a path is that of a checkpoint in the folder of a run, there or not."""
    return path.parent.name == "checkpoints" and bool(_NAME.fullmatch(path.name))


def list_checkpoints(run: Path) -> list[Path]:
    """Return the folders of a run's checkpoints, oldest first."""
    folder = run / "checkpoints"
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def find_checkpoint(run: Path, which: Which) -> Path:
    """Return the folder of a run's last or best checkpoint.

    Raises:
        CheckpointError: the folder is no run, or has no such checkpoint.
    """
    if not run.is_dir():
        raise CheckpointError(f"{run}: no such folder; give the folder of a run, as dali-asr train prints it")
    found = list_checkpoints(run)
    if not found:
        if (run / CONFIG).is_file():
            raise CheckpointError(
                f"{run}: a run that ended before its first checkpoint; begin it again by the same command and "
                f"--run-folder {run} --resume auto"
            )
        raise CheckpointError(
            f"{run}: no run, it has no checkpoints; train one first, or give the folder that dali-asr train prints"
        )
    if which == "last":
        return found[-1]
    best = _read(found[-1])["best"]
    if best is None:
        raise CheckpointError(
            f"{run}: no best checkpoint, as none was evaluated yet; take the last one (--checkpoint last), or train on"
        )
    return run / "checkpoints" / str(best[0])


def load_checkpoint(run: Path, which: Which = "best") -> Checkpoint:
    """Read a checkpoint of a run.

    Args:
        run: its folder; or that of a checkpoint, which is read whichever is asked for.
        which: `best` or `last`.

    Raises:
        CheckpointError: the folder is no run, holds no such checkpoint, or one that is damaged.
    """
    return read_checkpoint(run if is_checkpoint(run) else find_checkpoint(run, which))


def run_of(path: Path) -> Path:
    """Return the folder of the run that a path names, itself or by a checkpoint of it."""
    return path.parent.parent if is_checkpoint(path) else path


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the checkpoint in a folder.

    Raises:
        CheckpointError: it is damaged; the one before is named.
    """
    values = _read(path)
    weights = load_tensors(_checked(path, _MODEL))
    try:
        best = values["best"]
        return Checkpoint(
            ModelDescription.from_json(values["model"]),
            int(values["epoch"]),
            int(values["step"]),
            values["metrics"],
            None if best is None else (str(best[0]), best[1]),
            int(values["metrics_bytes"]),
            weights,
        )
    except (KeyError, TypeError, ValueError, DataError, UsageError) as error:
        raise CheckpointError(f"{path}: it contradicts itself ({error!r}); {_remedy(path)}") from error


def read_training(path: Path) -> dict[str, Any]:
    """Read what training goes on from; nothing in it is executed.

    Raises:
        CheckpointError: it is damaged; the one before is named.
    """
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(_checked(path, _TRAINING)), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path / _TRAINING}: cannot be read ({error!r}); {_remedy(path)}") from error
    return state


def remove_later(path: Path) -> list[str]:
    """Remove the checkpoints after this one, from which training goes on; return their names."""
    later = [other for other in list_checkpoints(path.parent.parent) if other.name > path.name]
    for other in later:
        _remove(other)
    return [other.name for other in later]


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(_checked(path, _ABOUT))
        if values["version"] != VERSION:
            raise CheckpointError(f"{path}: checkpoint format {values['version']}; this dali-asr reads {VERSION}")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path / _ABOUT}: damaged ({error!r}); {_remedy(path)}") from error
    return values


def _checked(path: Path, name: str) -> bytes:
    """Return a file of a checkpoint whose checksum is right."""
    try:
        content = (path / name).read_bytes()
        sums = (path / _SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "damaged"
        raise CheckpointError(f"{getattr(error, 'filename', None) or path}: {reason}; {_remedy(path)}") from error
    if f"{hashlib.sha256(content).hexdigest()}  {name}" not in sums:
        raise CheckpointError(f"{path / name}: its SHA-256 is not the one in {_SUMS}; {_remedy(path)}")
    return content


def _remedy(path: Path) -> str:
    run = path.parent.parent
    before = [other for other in list_checkpoints(run) if other.name < path.name]
    if before:
        return f"take the one before: {before[-1]}"
    return "train again"


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _keep(folder: Path, keep: int) -> None:
    """Remove all but the last and those that one of them names as the best."""
    found = list_checkpoints(folder.parent)
    named = set()
    for path in found[-keep:]:
        with suppress(CheckpointError):
            best = _read(path)["best"]
            named.add(best and best[0])
    for path in found[:-keep]:
        if path.name not in named:
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a checkpoint, first its name, so that no half of it is ever seen."""
    aside = path.with_name(f".{path.name}.removed.partial")
    path.rename(aside)
    shutil.rmtree(aside)


def _remove_partial(folder: Path) -> None:
    for path in folder.glob(".*.partial"):
        with suppress(OSError):
            shutil.rmtree(path)
