"""The multilayer perceptron that classifies windows, and its presets.

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame, `C` labels, `K` states of a
label.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

from dali_asr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}
# Batch norm: Ioffe and Szegedy 2015; layer norm: Ba, Kiros and Hinton 2016.
NORMS: dict[str, type[nn.Module] | None] = {"none": None, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


@dataclass(frozen=True)
class HiddenLayer:
    """A hidden layer: linear, optional normalization, activation, dropout.

    Attributes:
        width: number of units.
        dropout: probability of zeroing a unit during training.
        norm: normalization before the activation: `batch`, `layer` or `none`.
    """

    width: int
    dropout: float = 0.0
    norm: str = "none"

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UsageError(f"MLP: hidden width {self.width}; expected 1 or more")
        if self.norm not in NORMS:
            raise UsageError(f"MLP: norm {self.norm!r}; expected one of {', '.join(NORMS)}")


def _layers(widths: tuple[int, ...], dropout: tuple[float, ...]) -> tuple[HiddenLayer, ...]:
    """Return layers with batch norm in every other layer, starting with the first."""
    return tuple(
        HiddenLayer(w, d, "none" if at % 2 else "batch") for at, (w, d) in enumerate(zip(widths, dropout, strict=True))
    )


PRESETS = {
    "tiny": _layers((512,) * 3, (0.35, 0.30, 0.25)),
    "full": _layers((2048,) * 4 + (1024, 512, 256), (0.35, 0.30, 0.25, 0.20, 0.15, 0.10, 0.05)),
}


class MLP(nn.Module):
    """A multilayer perceptron that maps context windows to logits.

    Weights are Glorot uniform (Glorot and Bengio 2010), biases zero.

    Args:
        window: number of frames per window, W.
        feature_dim: number of features per frame, D.
        classes: number of labels, C.
        hidden: a preset, `tiny` or `full`; or the hidden layers, each a `HiddenLayer` or its width.
        activation: `gelu`, `relu`, `silu` or `tanh`.
        residual: add the input of a hidden layer to its output if both have the same width (He et al. 2016).
        states: number of states of a label, K.

    Raises:
        UsageError: an unknown preset, norm or activation, or a size below 1.

    Example:
        MLP(window=61, feature_dim=28, classes=42, hidden="tiny")(batch.windows)  # [B, 42]
    """

    def __init__(
        self,
        *,
        window: int,
        feature_dim: int,
        classes: int,
        hidden: str | Sequence[HiddenLayer | int] = "tiny",
        activation: str = "gelu",
        residual: bool = False,
        states: int = 1,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UsageError(f"MLP: activation {activation!r}; expected one of {', '.join(ACTIVATIONS)}")
        for name, size in (("window", window), ("feature_dim", feature_dim), ("classes", classes), ("states", states)):
            if size < 1:
                raise UsageError(f"MLP: {name} {size}; expected 1 or more")
        layers = _hidden_layers(hidden)
        widths = [window * feature_dim, *(layer.width for layer in layers)]
        modules: list[nn.Module] = [nn.Flatten()]
        for at, (fan_in, fan_out) in enumerate(pairwise(widths)):
            hidden_layer = _hidden_layer(fan_in, layers[at], activation)
            # The input of the first layer is the window, not a hidden layer.
            modules += [Residual(*hidden_layer)] if residual and at and fan_in == fan_out else hidden_layer
        modules.append(nn.Linear(widths[-1], classes * states))
        if states > 1:
            modules.append(StateSum(states))
        self.states = states
        self.layers = nn.Sequential(*modules)
        self.apply(_initialize)

    def forward(self, windows: torch.Tensor, *, by_state: bool = False) -> torch.Tensor:
        """Map windows `[B, W, D]` to logits `[B, C]`; or to those of states, `[B, C·K]`, those of a label together."""
        layers = self.layers[:-1] if by_state and self.states > 1 else self.layers
        logits: torch.Tensor = layers(windows)
        return logits


class StateSum(nn.Module):
    """The sum of the probabilities of a label's states, as logits.

    Args:
        states: number of states of a label, K.
    """

    def __init__(self, states: int) -> None:
        super().__init__()
        self.states = states

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Map logits of states `[B, C·K]` to logits of labels `[B, C]`."""
        by_label: torch.Tensor = logits.unflatten(1, (-1, self.states))  # type: ignore[no-untyped-call]
        return by_label.logsumexp(dim=2)


class Residual(nn.Sequential):
    """Layers with a residual connection: input and output are `[B, width]`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """Return the sum of the input and of the layers' output."""
        output = input
        for layer in self:
            output = layer(output)
        return input + output


def _hidden_layer(fan_in: int, layer: HiddenLayer, activation: str) -> list[nn.Module]:
    norm = NORMS[layer.norm]
    return [
        nn.Linear(fan_in, layer.width),
        *([norm(layer.width)] if norm else []),
        ACTIVATIONS[activation](),
        *([nn.Dropout(layer.dropout)] if layer.dropout else []),
    ]


def _hidden_layers(hidden: str | Sequence[HiddenLayer | int]) -> tuple[HiddenLayer, ...]:
    if not isinstance(hidden, (str, list, tuple)):
        raise UsageError(f"MLP: hidden {hidden!r}; expected {' or '.join(PRESETS)}, or a list of widths")
    if not isinstance(hidden, str):
        return tuple(layer if isinstance(layer, HiddenLayer) else HiddenLayer(layer) for layer in hidden)
    if hidden not in PRESETS:
        raise UsageError(f"MLP: hidden {hidden!r}; expected {' or '.join(PRESETS)}, or the widths of the layers")
    return PRESETS[hidden]


@dataclass(frozen=True)
class LayerSummary:
    """A line of a model's summary: the layer's name, the shape of its output, its number of parameters."""

    name: str
    output: str
    parameters: int


def summarize(model: MLP, window: int, feature_dim: int) -> Iterator[LayerSummary]:
    """Yield one line per layer, in order."""
    width = window * feature_dim
    for block in model.layers:
        residual = isinstance(block, Residual)
        for layer in block.children() if residual else [block]:
            if isinstance(layer, nn.Linear):
                width = layer.out_features
            if isinstance(layer, StateSum):
                width //= layer.states
            yield LayerSummary(_name(layer), f"[B, {width}]", parameter_count(layer))
        if residual:
            yield LayerSummary("Residual", f"[B, {width}]", 0)


def parameter_count(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _name(layer: nn.Module) -> str:
    kind = type(layer).__name__
    if isinstance(layer, nn.Linear):
        return f"{kind} {layer.in_features} -> {layer.out_features}"
    if isinstance(layer, StateSum):
        return f"{kind} {layer.states}"
    return f"{kind} {layer.p:g}" if isinstance(layer, nn.Dropout) else kind


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
