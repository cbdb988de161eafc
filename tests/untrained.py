"""Models with random weights and statistics, as if they were trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dali_asr import HiddenLayer, Inventory, Normalization, TrainedModel
from dali_asr.runs.checkpoint import Checkpoint
from dali_asr.runs.description import ModelDescription

if TYPE_CHECKING:
    from collections.abc import Sequence


def make_model(
    context: tuple[int, int],
    hidden: Sequence[HiddenLayer],
    normalization: Normalization,
    *,
    feature_dim: int = 4,
    activation: str = "gelu",
    residual: bool = False,
    dtype: str = "float32",
    states: int = 1,
) -> TrainedModel:
    """Return a model of five symbols whose batch norm has seen data that is not standardized."""
    torch.manual_seed(0)
    description = ModelDescription(
        context,
        feature_dim,
        tuple(hidden),
        activation,
        residual,
        Inventory(tuple("abcde")),
        normalization,
        states=states,
    )
    built = description.build()
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            torch.nn.init.normal_(module.bias)
    checkpoint = Checkpoint(description, 1, 1, None, None, 0, built.state_dict())
    return TrainedModel.of(checkpoint, dtype, torch.device("cpu"))
