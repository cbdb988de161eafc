"""The description of a model: everything needed to build it and to prepare its input."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dali_asr.audio.settings import FeatureSettings
from dali_asr.corpus import Normalization
from dali_asr.inventory import Inventory
from dali_asr.model import ACTIVATIONS, MLP, HiddenLayer
from dali_asr.segments import FrameTiming


@dataclass(frozen=True)
class ModelDescription:
    """Everything needed to build a model and to prepare its input.

    Attributes:
        context: the numbers of frames (left, right) around a window's own.
        feature_dim: the number of features per frame, D.
        hidden: the hidden layers.
        activation: the name of the activation function.
        residual: whether hidden layers of equal width add their input to their output.
        inventory: the label set.
        normalization: how the features were normalized.
        features: how the features were computed from recordings; None if unknown.
        states: the number of states of a label.
        label_shift: that of the `Corpus` it was trained on, in seconds.
    """

    context: tuple[int, int]
    feature_dim: int
    hidden: tuple[HiddenLayer, ...]
    activation: str
    residual: bool
    inventory: Inventory
    normalization: Normalization
    features: FeatureSettings | None = None
    states: int = 1
    label_shift: float = 0.0

    @property
    def window(self) -> int:
        """The number of frames in a window, W."""
        return sum(self.context) + 1

    @property
    def timing(self) -> FrameTiming:
        """When frames are; 25 ms every 10 ms at 16 kHz if it is not known how they were computed."""
        return self.features.timing if self.features else FrameTiming()

    def build(self) -> MLP:
        """Return the model, freshly initialized."""
        return MLP(
            window=self.window,
            feature_dim=self.feature_dim,
            classes=len(self.inventory),
            hidden=self.hidden,
            activation=self.activation,
            residual=self.residual,
            states=self.states,
        )

    def differences(self, other: ModelDescription) -> list[str]:
        """Return the differences to another description, as `name ours (here theirs)`."""
        ours, theirs = self.to_json(), other.to_json()
        ours["hidden"], theirs["hidden"] = _layer_list(self.hidden), _layer_list(other.hidden)
        found = [
            f"{name} {ours[name]} (here {theirs[name]})"
            for name in ("context", "feature_dim", "hidden", "activation", "residual", "states")
            if ours[name] != theirs[name]
        ]
        if self.inventory != other.inventory:
            found.append(_inventory_difference(self.inventory.symbols, other.inventory.symbols))
        if ours["normalization"] != theirs["normalization"]:
            found.append(f"normalization {self.normalization.kind} (here {other.normalization.kind}, or other values)")
        if self.features != other.features:
            found.append("features computed by other settings")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON values."""
        return {
            "context": list(self.context),
            "feature_dim": self.feature_dim,
            "hidden": [asdict(layer) for layer in self.hidden],
            "activation": self.activation,
            "residual": self.residual,
            "states": self.states,
            "label_shift": self.label_shift,
            "inventory": list(self.inventory.symbols),
            "normalization": self.normalization.to_json(),
            "features": self.features.to_json() if self.features else None,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelDescription:
        """Return the description that `to_json` wrote."""
        left, right = values["context"]
        return cls(
            (int(left), int(right)),
            int(values["feature_dim"]),
            tuple(HiddenLayer(**layer) for layer in values["hidden"]),
            _known_activation(values["activation"]),
            bool(values["residual"]),
            Inventory(tuple(values["inventory"])),
            Normalization.from_json(values["normalization"]),
            FeatureSettings.from_json(values["features"]) if values.get("features") else None,
            int(values.get("states", 1)),
            float(values.get("label_shift", 0)),
        )


def _known_activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r}")
    return name


def _layer_list(layers: tuple[HiddenLayer, ...]) -> str:
    return ", ".join(f"{layer.width}/{layer.norm}/{layer.dropout:g}" for layer in layers)


def _inventory_difference(ours: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    at = next((n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    if at is None:
        return f"inventory of {len(ours)} symbols (here {len(theirs)})"
    return f"inventory of {len(ours)} symbols, label {at} is {ours[at]} (here {len(theirs)}, {theirs[at]})"
