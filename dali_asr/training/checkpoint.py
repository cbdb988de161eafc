"""Checkpoints: weights as safetensors, all else as JSON.

    RUN/checkpoints/step-00000820.safetensors    weights
    RUN/checkpoints/last.json, best.json         which weights, and what they need to be used

The JSON file is replaced in one step once the weights that it names are on the disk, so a checkpoint is the old
one or the new one and never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from safetensors.torch import load, save

from dali_asr.corpus import Normalization
from dali_asr.errors import CheckpointError, DataError
from dali_asr.inventory import Inventory
from dali_asr.model import ACTIVATIONS, MLP, HiddenLayer
from dali_asr.training.tracking import writing

if TYPE_CHECKING:
    from pathlib import Path

    import torch

VERSION = 1
Which = Literal["last", "best"]


@dataclass(frozen=True)
class ModelDescription:
    """All that is needed to build the model again and to feed it.

    Attributes:
        context: frames (left, right) of a window's own.
        feature_dim: D.
        hidden: the hidden layers.
        activation: between them.
        inventory: the label set.
        normalization: of the features it was trained on.
    """

    context: tuple[int, int]
    feature_dim: int
    hidden: tuple[HiddenLayer, ...]
    activation: str
    inventory: Inventory
    normalization: Normalization

    @property
    def window(self) -> int:
        """W."""
        return sum(self.context) + 1

    def build(self) -> MLP:
        """Return the model, freshly initialized."""
        return MLP(
            window=self.window,
            feature_dim=self.feature_dim,
            classes=len(self.inventory),
            hidden=self.hidden,
            activation=self.activation,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values."""
        return {
            "context": list(self.context),
            "feature_dim": self.feature_dim,
            "hidden": [asdict(layer) for layer in self.hidden],
            "activation": self.activation,
            "inventory": list(self.inventory.symbols),
            "normalization": self.normalization.to_json(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelDescription:
        """Read what `to_json` gave."""
        left, right = values["context"]
        return cls(
            (int(left), int(right)),
            int(values["feature_dim"]),
            tuple(HiddenLayer(**layer) for layer in values["hidden"]),
            _known_activation(values["activation"]),
            Inventory(tuple(values["inventory"])),
            Normalization.from_json(values["normalization"]),
        )


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and where it stood.

    Attributes:
        description: of the model.
        epoch: the epoch it ended, from 1.
        step: optimizer steps.
        metrics: of that epoch.
        weights: by name.
    """

    description: ModelDescription
    epoch: int
    step: int
    metrics: dict[str, Any]
    weights: dict[str, torch.Tensor]

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


def _known_activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r}")
    return name


def save_checkpoint(folder: Path, checkpoint: Checkpoint, names: tuple[Which, ...]) -> None:
    """Write a checkpoint under one or both names, and remove weights that no name holds any more.

    Raises:
        DataError: the disk is full, or cannot be written; what was saved before stays.
    """
    content = save({name: tensor.cpu().contiguous() for name, tensor in checkpoint.weights.items()})
    weights = f"step-{checkpoint.step:08d}.safetensors"
    values = {
        "version": VERSION,
        "weights": weights,
        "sha256": hashlib.sha256(content).hexdigest(),
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "model": checkpoint.description.to_json(),
    }
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with writing(folder):
            _write(folder / weights, content)
            for name in names:
                _write(folder / f"{name}.json", (json.dumps(values, indent=2) + "\n").encode())
    finally:
        _prune(folder)


def _prune(folder: Path) -> None:
    """Remove weights that no name holds, and what was left half-written."""
    held = {json.loads(path.read_text(encoding="utf-8"))["weights"] for path in folder.glob("*.json")}
    for path in folder.iterdir():
        if path.suffix == ".partial" or (path.suffix == ".safetensors" and path.name not in held):
            path.unlink()


def load_checkpoint(run: Path, which: Which = "best") -> Checkpoint:
    """Read a checkpoint of a run.

    Raises:
        CheckpointError: the folder is no run, holds no such checkpoint, or one that is damaged.
    """
    folder = run / "checkpoints"
    path = folder / f"{which}.json"
    if not run.is_dir():
        raise CheckpointError(f"{run}: no such folder; give the folder of a run, as dali-asr train prints it")
    if not path.is_file():
        others = " and ".join(sorted(other.stem for other in folder.glob("*.json")))
        remedy = f"it has the checkpoint {others} (--checkpoint {others})" if others else "train one first"
        raise CheckpointError(f"{run}: no run with a {which} checkpoint ({path} is missing); {remedy}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] > VERSION:
            raise CheckpointError(f"{path}: checkpoint format {values['version']}; update dali-asr")
        description = ModelDescription.from_json(values["model"])
        weights = folder / values["weights"]
        if not weights.is_file():
            raise CheckpointError(f"{weights}: missing; copy the whole run again, or train again")
        content = weights.read_bytes()
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r}); use the other checkpoint, or train again") from error
    if hashlib.sha256(content).hexdigest() != values["sha256"]:
        raise CheckpointError(f"{weights}: its SHA-256 is not the one saved; use the other checkpoint")
    return Checkpoint(description, values["epoch"], values["step"], values["metrics"], load(content))


def _write(path: Path, content: bytes) -> None:
    """Write a file aside, flush it and rename it to its place."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
