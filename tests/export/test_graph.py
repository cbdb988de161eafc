"""The ONNX graph in onnxruntime, against NumPy's windows and the perceptron."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dali_asr import MLP, HiddenLayer, Normalization, TrainedModel
from dali_asr.errors import ExportError
from dali_asr.export import onnx_file
from dali_asr.export.graph import CHUNK, build_graph
from tests.untrained import make_model

# Just above the middle of two float16: rounded up at once, but down by way of float32.
JUST_ABOVE = (1 + 2.0**-11) * (1 + 2.0**-30)
CASES: dict[str, dict[str, Any]] = {
    "utterance": {
        "context": (3, 1),
        "hidden": [HiddenLayer(8, 0.3, "batch"), HiddenLayer(8, norm="layer"), HiddenLayer(8), HiddenLayer(6)],
        "normalization": Normalization("utterance"),
        "residual": True,
    },
    "global": {
        "context": (0, 2),
        "hidden": [HiddenLayer(6, norm="layer")],
        "normalization": Normalization("global", (-JUST_ABOVE, 0.0, 5.0, 7.0), (1.0, 1.0, 2.0, 0.0), ("train",)),
        "activation": "silu",
        "dtype": "float16",
        "states": 3,
    },
    "none": {"context": (0, 0), "hidden": [], "normalization": Normalization("none"), "dtype": "float16"},
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[TrainedModel, bytes]:
    """Return a model and its ONNX file."""
    model = make_model(**CASES[request.param])
    return model, build_graph(model).SerializeToString()


def reference(model: TrainedModel, frames: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Return log-probabilities `[T, C]` by way of windows."""
    values, kind = frames.astype(np.float64), model.normalization.kind
    if kind != "none":
        mean, deviation = (
            (np.array(model.normalization.mean), np.array(model.normalization.deviation))
            if kind == "global"
            else (values.mean(axis=0), values.std(axis=0))
        )
        deviation = np.where((values == values[0]).all(axis=0), 0, deviation) if kind == "utterance" else deviation
        values = np.where(deviation == 0, 0, (values - mean) / np.where(deviation == 0, 1, deviation))
    left, right = model.context
    padded = np.pad(values.astype(dtype).astype(np.float32), ((left, right), (0, 0)))
    windows = np.stack([padded[at : at + left + 1 + right] for at in range(len(frames))])
    with torch.inference_mode():
        logits = model(torch.from_numpy(windows)).numpy().astype(np.float64)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def test_it_equals_windows_at_every_length(case: tuple[TrainedModel, bytes]) -> None:
    model, content = case
    session = onnx_file.open_session(content)
    for length in (*range(1, 41), CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7):
        frames = np.random.default_rng(length).normal(3, 4, (length, 4)).astype(np.float32)
        frames[:, 1] = 0.1  # a constant feature
        frames[0, 0] = 0.0  # becomes JUST_ABOVE in the second case
        (found,) = session.run(None, {"frames": frames})
        expected = reference(model, frames, str(model.frame_dtype))
        assert found.shape == (length, 5)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4, err_msg=f"{length} frames")
        np.testing.assert_allclose(model.log_probabilities(frames), expected, rtol=0, atol=1e-4)


def test_a_file_that_predicts_something_else_is_refused(case: tuple[TrainedModel, bytes]) -> None:
    model, content = case
    assert onnx_file.compare(content, model) < 1e-4
    assert isinstance(model.model, MLP)
    last = [layer for layer in model.model.layers if isinstance(layer, torch.nn.Linear)][-1]
    last.bias.data[0] += 0.01
    with pytest.raises(ExportError, match=r"log-probabilities of 1 frames differ by .* nothing is written"):
        onnx_file.compare(content, model)
    last.bias.data[0] -= 0.01


def test_no_frames_are_an_error_and_no_crash(case: tuple[TrainedModel, bytes]) -> None:
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        onnx_file.open_session(case[1]).run(None, {"frames": np.zeros((0, 4), np.float32)})
