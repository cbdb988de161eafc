"""The perceptron as a convolution over frames, which needs no windows.

Shape letters: `R` rows of frames, `N` windows, `W` frames of a window, `D` features, `H` units, `C` labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from dali_asr.model import MLP


class Convolution(nn.Module):
    """A trained perceptron that maps consecutive frames to the logits of every window of them.

    The first linear layer, `[H, W · D]`, is a convolution with the kernel `[H, D, W]`: both sum the same products.
    No windows are made, which would take W times the memory of the frames. The kernel is a copy; later layers are
    shared.

    Args:
        model: the perceptron.
        feature_dim: features per frame, D.
        by_state: whether logits are those of states, `[N, C·K]`; see `MLP.forward`.
    """

    def __init__(self, model: MLP, feature_dim: int, *, by_state: bool = False) -> None:
        super().__init__()
        # The first module flattens windows, the last one sums states.
        _, first, *others = list(model.layers)[: -1 if by_state and model.states > 1 else None]
        assert isinstance(first, nn.Linear)
        units = first.out_features
        window = first.in_features // feature_dim
        kernel = first.weight.detach().view(units, window, feature_dim).permute(0, 2, 1).contiguous()
        self.kernel = nn.Parameter(kernel, requires_grad=False)
        self.bias = nn.Parameter(first.bias.detach(), requires_grad=False)
        self.others = nn.Sequential(*others)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Map `rows` `[R, D]` to logits `[N, C]`, N = R − W + 1; both float32."""
        units = nn.functional.conv1d(rows.t()[None], self.kernel, self.bias)[0].t()
        logits: torch.Tensor = self.others(units)
        return logits
