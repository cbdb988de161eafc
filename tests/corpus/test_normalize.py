"""Mean and variance normalization, compared with NumPy's mean and standard deviation."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dali_asr.corpus import Normalization
from dali_asr.corpus.normalize import Moments, as_normalization
from dali_asr.errors import UsageError

values = st.floats(-1e4, 1e4, width=32)
features = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30).flatmap(
    lambda shape: arrays(np.float32, shape, elements=values)
)


@given(features)
def test_utterance_normalization_equals_that_of_numpy(frames: np.ndarray) -> None:
    wide = frames.astype(np.longdouble)
    deviation = wide.std(axis=0)
    constant = (frames == frames[0]).all(axis=0)
    expected = np.where(constant, 0, (wide - wide.mean(axis=0)) / np.where(constant, 1, deviation))
    result = Normalization("utterance").apply(frames)
    assert np.isfinite(result).all()
    scale = np.where(constant, 1, np.abs(wide).max(axis=0) / np.where(constant, 1, deviation))
    assert (np.abs(result - expected) <= 1e-13 * np.maximum(scale, 1) * len(frames)).all()


@pytest.mark.parametrize("value", [0.1, 1e-30, -7.3, 0.0])
def test_a_constant_feature_becomes_positive_zeros(value: float) -> None:
    frames = np.full((1265, 3), value, np.float32)
    assert Normalization("utterance").apply(frames).tobytes() == bytes(1265 * 3 * 8)


def test_the_input_is_not_modified() -> None:
    frames = np.arange(12.0).reshape(4, 3)
    kept = frames.copy()
    for normalization in (
        Normalization("utterance"),
        Normalization("none"),
        Normalization("global", (1,) * 3, (2,) * 3),
    ):
        normalization.apply(frames)
    assert np.array_equal(frames, kept)


@given(
    st.lists(
        st.integers(1, 20).flatmap(lambda frames: arrays(np.float32, (frames, 3), elements=values)),
        min_size=1,
        max_size=5,
    )
)
def test_global_moments_are_those_of_all_frames_together(utterances: list[np.ndarray]) -> None:
    together = np.concatenate(utterances).astype(np.longdouble)
    normalization = reduce(Moments.merge, map(Moments.of, utterances)).normalization()
    size = np.abs(together).max() + 1
    assert np.allclose(normalization.mean, together.mean(axis=0).astype(float), rtol=0, atol=1e-12 * size)
    assert np.allclose(normalization.deviation, together.std(axis=0).astype(float), rtol=1e-9, atol=1e-7)


def test_global_statistics_survive_json() -> None:
    normalization = Normalization("global", (1.0, 2.0), (2.0, 0.0))
    frames = np.array([[3.0, 2.0], [1.0, 5.0]])
    assert normalization.apply(frames).tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert Normalization.from_json(normalization.to_json()) == normalization
    with pytest.raises(UsageError, match="or global statistics"):
        as_normalization("global")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "speaker"},
        {"kind": None},
        {"mean": [1.0]},
        {"mean": [1.0, float("nan")]},
        {"deviation": [True, 1.0]},
        {"mean": [], "deviation": []},
        {"mean": None},
        {"partitions": [3]},
    ],
)
def test_invalid_json_is_refused(change: dict[str, object]) -> None:
    values = Normalization("global", (1.0, 2.0), (2.0, 0.0), ("train",)).to_json()
    with pytest.raises((ValueError, TypeError)):
        Normalization.from_json(values | change)
