"""The ONNX graph around the network: normalization, padding, and a scan over chunks of the utterance.

The network alone would hold the activations of all frames: 3 GB for an hour of speech and 2,048 units. A `Scan` runs it
on K chunks of N frames instead, N at most 2,048. The chunks are of equal length, as the outputs of a `Scan` must be, so
that up to K − 1 rows are computed in vain.

Shape letters: `T` frames of an utterance, `K` chunks, `N` frames of a chunk, `R` rows of a chunk with its context, `D`
features, `C` labels. Specification: https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import json
import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from dali_asr.environment import installed_version
from dali_asr.inference.convolution import Convolution
from dali_asr.model import MLP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import ModelProto
    from onnx.onnx_ml_pb2 import GraphProto

    from dali_asr.inference.trained import TrainedModel

INPUT = "frames"
CHUNK = 2048  # frames
OPSET = 18  # the first with axes as inputs of all reductions, and the default of the earliest torch that is supported

_STATISTICS = {
    "none": "",
    # float64, as in `Normalization`; a constant feature becomes zero
    "utterance": """
        time = Constant <value_ints = [0]> ()
        mean = ReduceMean <keepdims = 1> (wide, time)
        deviations = Sub (wide, mean)
        squares = Mul (deviations, deviations)
        variance = ReduceMean <keepdims = 1> (squares, time)
        deviation = Sqrt (variance)
        highest = ReduceMax <keepdims = 1> (frames, time)
        lowest = ReduceMin <keepdims = 1> (frames, time)
        equal = Equal (highest, lowest)
        nothing = Constant <value = double {0.0}> ()
        flat = Equal (deviation, nothing)
        constant = Or (equal, flat)
        inverse = Reciprocal (deviation)
        factor = Where (constant, nothing, inverse)
        normalized = Mul (deviations, factor)
    """,
    "global": """
        deviations = Sub (wide, mean)
        normalized = Mul (deviations, factor)
    """,
}

# To the 11 bits of a float16. `Cast` alone goes from float64 by way of float32 and so rounds twice. Dekker 1971, "A
# floating-point technique for extending the available precision", after Veltkamp.
_ROUND_ONCE = """
        splitter = Constant <value = double {{{splitter}}}> ()
        spread = Mul (normalized, splitter)
        difference = Sub (normalized, spread)
        rounded_once = Add (spread, difference)
"""

_GRAPH = """
    <ir_version: 8, opset_import: ["" : {opset}]>
    dali_asr (float[T, {features}] frames) => (float[T, {classes}] log_probabilities)
    {{
        wide = Cast <to = {double}> (frames)
        {statistics}
        stored = Cast <to = {stored}> ({normalized})
        utterance = Cast <to = {float}> (stored)

        length = Shape <start = 0, end = 1> (frames)
        one = Constant <value_ints = [1]> ()
        chunk = Constant <value_ints = [{chunk}]> ()
        rounded = Constant <value_ints = [{chunk_less_one}]> ()
        up = Add (length, rounded)
        full = Div (up, chunk)
        chunks = Max (full, one)
        length_up = Add (length, chunks)
        length_down = Sub (length_up, one)
        chunk_length = Div (length_down, chunks)

        computed = Mul (chunks, chunk_length)
        surplus = Sub (computed, length)
        right = Constant <value_ints = [{right}]> ()
        after = Add (surplus, right)
        before = Constant <value_ints = [{left}, 0]> ()
        zero = Constant <value_ints = [0]> ()
        padding = Concat <axis = 0> (before, after, zero)
        rows = Pad (utterance, padding)

        context = Constant <value_ints = [{context}]> ()
        span = Add (chunk_length, context)
        first = Constant <value_int = 0> ()
        step = Constant <value_int = 1> ()
        count = Squeeze (chunks)
        numbers = Range (first, count, step)
        starts = Mul (numbers, chunk_length)
        scanned = Scan <num_scan_inputs = 1, body = chunk_body (int64 start) => (float[N, {classes}] chunk_output)
        {{
            begin = Unsqueeze (start, zero)
            end = Add (begin, span)
            network_rows = Slice (rows, begin, end, zero)
            chunk_output = Identity (network_output)
        }}> (starts)

        shape = Constant <value_ints = [-1, {classes}]> ()
        joined = Reshape (scanned, shape)
        log_probabilities = Slice (joined, zero, length, zero)
    }}
"""


def build_graph(model: TrainedModel) -> ModelProto:
    """Return the model as ONNX: `frames` `[T, D]`, not normalized, to `log_probabilities` `[T, C]`, both float32.

    The metadata hold the symbols in label order, context, normalization, features per frame, and this version.
    """
    import onnx

    network = onnx.compose.add_prefix(_export(model), "network_")
    graph = onnx.parser.parse_model(_text(model))
    graph.ir_version = network.ir_version
    graph.producer_name, graph.producer_version = "dali-asr", installed_version("dali-asr")
    _add_statistics(graph.graph, model)
    (scan,) = (node for node in graph.graph.node if node.op_type == "Scan")
    (body,) = (attribute.g for attribute in scan.attribute if attribute.name == "body")
    end = body.node.pop()
    for node in network.graph.node:
        node.ClearField("metadata_props")  # where in the source, on this machine, each node comes from
        node.ClearField("doc_string")
    body.node.extend([*network.graph.node, end])
    body.initializer.extend(network.graph.initializer)
    onnx.helper.set_model_props(graph, metadata(model))
    onnx.checker.check_model(graph)
    return graph


def metadata(model: TrainedModel) -> dict[str, str]:
    """Return what the file says of itself, as JSON texts."""
    values = {
        "symbols": model.inventory.symbols,
        "context": model.context,
        "normalization": model.normalization.kind,
        "feature_dim": model.feature_dim,
        "dali_asr": installed_version("dali-asr"),
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def _text(model: TrainedModel) -> str:
    from onnx import TensorProto

    left, right = model.context
    kind = model.normalization.kind
    statistics, normalized = _STATISTICS[kind], "wide" if kind == "none" else "normalized"
    half = model.frame_dtype == np.float16
    if half and kind != "none":
        statistics, normalized = statistics + _ROUND_ONCE.format(splitter=2.0**42 + 1), "rounded_once"
    return _GRAPH.format(
        opset=OPSET,
        features=model.feature_dim,
        classes=len(model.inventory),
        double=TensorProto.DOUBLE,
        float=TensorProto.FLOAT,
        stored=TensorProto.FLOAT16 if half else TensorProto.FLOAT,
        statistics=statistics,
        normalized=normalized,
        chunk=CHUNK,
        chunk_less_one=CHUNK - 1,
        left=left,
        right=right,
        context=left + right,
    )


def _add_statistics(graph: GraphProto, model: TrainedModel) -> None:
    """Add the mean and the inverse deviation of a `global` normalization, `[1, D]` float64."""
    from onnx import numpy_helper

    if model.normalization.kind != "global":
        return
    deviation = np.array(model.normalization.deviation)
    factor = np.divide(1.0, deviation, where=deviation != 0, out=np.zeros_like(deviation))
    for name, values in (("mean", np.array(model.normalization.mean)), ("factor", factor)):
        graph.initializer.append(numpy_helper.from_array(values[None], name))


def _export(model: TrainedModel) -> ModelProto:
    """Return the network as torch exports it, from `rows` `[R, D]` to `output` `[R − W + 1, C]`."""
    window = sum(model.context) + 1
    rows = torch.zeros(window + 2, model.feature_dim)
    perceptron = model.model
    assert isinstance(perceptron, MLP)  # as that of every checkpoint
    network = nn.Sequential(Convolution(perceptron, model.feature_dim), nn.LogSoftmax(dim=1)).eval()
    with _quiet():
        program = torch.onnx.export(
            network,
            (rows,),
            input_names=["rows"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("R", min=window)},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    exported: Any = program.model_proto
    del exported.graph.value_info[:]
    return exported  # type: ignore[no-any-return]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch says of packages that it does not need here, and of itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
