"""The convolution over frames against the perceptron on windows."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dali_asr import HiddenLayer, Normalization
from dali_asr.inference.convolution import Convolution
from dali_asr.model import ACTIVATIONS, MLP, NORMS
from tests.untrained import make_model

LAYERS = st.builds(HiddenLayer, st.sampled_from([3, 6]), st.sampled_from([0.0, 0.4]), st.sampled_from(list(NORMS)))


@settings(max_examples=60, deadline=None)
@given(
    context=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    hidden=st.lists(LAYERS, max_size=4),
    feature_dim=st.integers(1, 5),
    activation=st.sampled_from(list(ACTIVATIONS)),
    residual=st.booleans(),
    length=st.integers(1, 40),
)
def test_it_gives_the_logits_of_every_window(
    context: tuple[int, int], hidden: list[HiddenLayer], feature_dim: int, activation: str, residual: bool, length: int
) -> None:
    model = make_model(
        context, hidden, Normalization("none"), feature_dim=feature_dim, activation=activation, residual=residual
    ).model
    assert isinstance(model, MLP)
    rows = np.random.default_rng(length).normal(size=(length + sum(context), feature_dim)).astype(np.float32)
    windows = np.stack([rows[at : at + sum(context) + 1] for at in range(length)])
    with torch.inference_mode():
        expected = model(torch.from_numpy(windows)).numpy()
        found = Convolution(model, feature_dim)(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_it_follows_the_weights_and_the_mode_of_the_model() -> None:
    """A model may be trained on: its labels are those of its present weights."""
    trained = make_model((1, 1), [HiddenLayer(6, norm="batch")], Normalization("none"))
    frames = np.random.default_rng(0).normal(size=(20, 4))
    before = trained.log_probabilities(frames)
    with torch.no_grad():
        for weights in trained.parameters():
            weights.add_(0.5)
    assert np.abs(trained.log_probabilities(frames) - before).max() > 0.1
    np.testing.assert_allclose(np.exp(trained.log_probabilities(frames)), trained.posteriors(frames), rtol=1e-5)
