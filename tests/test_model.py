"""The presets have the layers of the notebook."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from dali_asr.build import build_hidden
from dali_asr.config import Config
from dali_asr.errors import UsageError
from dali_asr.model import MLP, PRESETS, HiddenLayer, parameter_count, summarize


def test_presets_have_the_notebooks_layers() -> None:
    expected = {
        "tiny": ([512] * 3, [0.35, 0.30, 0.25], {0, 2}),
        "full": ([2048] * 4 + [1024, 512, 256], [0.35, 0.30, 0.25, 0.20, 0.15, 0.10, 0.05], {0, 2, 4, 6}),
    }
    assert set(PRESETS) == set(expected)
    for name, (widths, dropout, normed) in expected.items():
        layers = PRESETS[name]
        assert [layer.width for layer in layers] == widths
        assert [layer.dropout for layer in layers] == dropout
        assert {i for i, layer in enumerate(layers) if layer.norm == "batch"} == normed


def test_the_probability_of_a_label_is_the_sum_of_its_states() -> None:
    model = MLP(window=3, feature_dim=2, classes=4, hidden=(HiddenLayer(5),), states=3)
    windows = torch.randn(6, 3, 2)
    of_states = model(windows, by_state=True).softmax(dim=1)
    assert of_states.shape == (6, 12)
    torch.testing.assert_close(model(windows).softmax(dim=1), torch.stack([s.sum(1) for s in of_states.split(3, 1)], 1))
    assert [line.output for line in summarize(model, 3, 2)][-2:] == ["[B, 12]", "[B, 4]"]


def test_the_summary_has_all_layers_parameters_and_shapes() -> None:
    model = MLP(window=61, feature_dim=28, classes=42, hidden="full")
    widths = [61 * 28, 2048, 2048, 2048, 2048, 1024, 512, 256, 42]
    linear = sum(a * b + b for a, b in itertools.pairwise(widths))
    assert parameter_count(model) == linear + 2 * (2048 + 2048 + 1024 + 256) == 18_864_938
    assert sum(line.parameters for line in summarize(model, 61, 28)) == parameter_count(model)
    assert [line.output for line in summarize(model, 61, 28)][-1] == "[B, 42]"
    assert model(torch.zeros(3, 61, 28)).shape == (3, 42)
    kinds = [type(layer) for layer in model.layers]
    assert kinds[:5] == [nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Dropout]


def test_initialization_is_glorot_uniform_with_zero_biases() -> None:
    torch.manual_seed(0)
    model = MLP(window=10, feature_dim=40, classes=42, hidden=(HiddenLayer(600),))
    linear = [layer for layer in model.layers if isinstance(layer, nn.Linear)]
    for layer in linear:
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert layer.bias.count_nonzero() == 0
        assert layer.weight.abs().max() <= bound
        assert abs(layer.weight.std().item() - bound / 3**0.5) < 0.02 * bound


def test_hidden_layers_are_built_from_the_configuration() -> None:
    def built(**model: object) -> list[tuple[int, float, str]]:
        layers = build_hidden(Config.check({"model": model}).model)
        return [(layer.width, layer.dropout, layer.norm) for layer in layers]

    assert build_hidden(Config().model) == PRESETS["tiny"]
    assert built(hidden=[7, 5]) == [(7, 0.0, "none"), (5, 0.0, "none")]
    assert built(hidden=[7, 5], dropout=0.5, norm=["batch", "layer"]) == [(7, 0.5, "batch"), (5, 0.5, "layer")]
    assert built(preset="tiny", dropout=0)[0] == (512, 0.0, "batch")


@pytest.mark.parametrize("size", ["window", "feature_dim", "classes"])
def test_a_size_below_1_is_refused(size: str) -> None:
    sizes = {"window": 3, "feature_dim": 2, "classes": 4}
    with pytest.raises(UsageError, match=f"MLP: {size} 0; expected 1 or more"):
        MLP(**{**sizes, size: 0})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="MLP: hidden width 0; expected 1 or more"):
        MLP(window=3, feature_dim=2, classes=4, hidden=(8, 0))
    with pytest.raises(UsageError, match="MLP: hidden 64; expected tiny or full, or a list of widths"):
        MLP(window=3, feature_dim=2, classes=4, hidden=64)  # type: ignore[arg-type]
