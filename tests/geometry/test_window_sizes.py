"""Sizes of sliding windows: those that ONNX Runtime makes, not those that ONNX's shape inference claims."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.geometry.sliding import RefusedError, made_shape
from exactile_converters.prepare.from_onnx import prepare_network

AUTOMATIC = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
WEIGHTS = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)


def model_of(op: str, kernel: int, **attributes) -> onnx.ModelProto:
    weighted = op in ("Conv", "ConvTranspose")
    weight = numpy_helper.from_array(np.resize(WEIGHTS, (1, 1, kernel, kernel)), "k")
    inputs = ["x", "k"] if weighted else ["x"]
    node = helper.make_node(op, inputs, ["y"], kernel_shape=[kernel, kernel], **attributes)
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, "u", "v"])],
        [weight] if weighted else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def session_of(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def cases(op: str):
    last = (0, 1)  # rounding up, or output padding
    for kernel, stride, dilation, other, auto in itertools.product((1, 2, 3), (1, 2, 3, 5), (1, 2), last, AUTOMATIC):
        attributes = {"strides": [stride] * 2, "dilations": [dilation] * 2, "auto_pad": auto}
        if op == "ConvTranspose":
            attributes["output_padding"] = [other] * 2
        elif op != "Conv":
            attributes["ceil_mode"] = other
        elif other:
            continue
        for before, after in itertools.product((0, 1), repeat=2) if auto == "NOTSET" else ((0, 0),):
            if auto != "NOTSET":
                yield kernel, attributes
            elif max(before, after) < kernel:
                yield kernel, {**attributes, "pads": [before] * 2 + [after] * 2}


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"])
def test_sizes_are_those_that_onnx_runtime_makes(op):
    """Every attribute that sets a size, at ten sizes: the same size, or both refuse."""
    for kernel, attributes in cases(op):
        model = model_of(op, kernel, **attributes)
        session, node = session_of(model), ir.from_proto(model).graph.node(0)
        for size in (11, 12, 15, 16, 17):
            try:
                made = made_shape(node, {0: (1, 1, size, size), 1: (1, 1, kernel, kernel)})
            except RefusedError:
                made = None
            try:
                (result,) = session.run(None, {"x": np.zeros((1, 1, size, size), np.float32)})
            except Exception:  # noqa: BLE001 - its exceptions share no base class
                result = None
            assert made == (None if result is None else result.shape), (kernel, attributes, size)


DISAGREEING = {
    "rounded up, stride over kernel": ("AveragePool", 2, {"strides": [3, 3], "ceil_mode": 1}),
    "rounded up, one pixel of four": ("MaxPool", 1, {"strides": [2, 2], "ceil_mode": 1}),
    "dilated, padded automatically": ("MaxPool", 3, {"dilations": [2, 2], "auto_pad": "SAME_LOWER"}),
    "transposed, padded upper": ("ConvTranspose", 3, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "transposed, padded lower": ("ConvTranspose", 4, {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
}


@pytest.mark.parametrize("plan", ["whole", "tile", "strip"])
@pytest.mark.parametrize("name", DISAGREEING)
def test_windows_that_shape_inference_gets_wrong_run_in_every_plan(name, plan):
    """Each as one pass of plain ONNX Runtime."""
    op, kernel, attributes = DISAGREEING[name]
    if op == "ConvTranspose":
        attributes = {**attributes, "output_padding": [1, 1]}
    model = model_of(op, kernel, **attributes)
    image = np.random.default_rng(3).integers(0, 9, (48, 36, 1)).astype(np.float32)
    (expected,) = session_of(model).run(None, {"x": image.transpose(2, 0, 1)[None]})
    deployed = deploy(prepare_network(model, name="net"), image_dtype="float32", output="raw")
    sink = ArraySink()
    tile = {"whole": {}, "tile": {"tile": (24, 24)}, "strip": {"tile": (12, 36)}}[plan]
    summary = Session(deployed, memory_bytes=8 << 30).segment(ArraySource(image), sink, plan=plan, **tile)
    assert (summary.tiles == 1) == (plan == "whole")
    np.testing.assert_array_equal(sink.result, expected[0])


def test_positions_that_max_pooling_found_are_no_output():
    """They count from the corner of each tile."""
    model = model_of("MaxPool", 2, strides=[2, 2])
    model.graph.node[0].output.append("where")
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("where", TensorProto.INT64, [1, 1, "u", "v"]))
    (obstacle,) = prepare_network(model, name="net").trace().obstacles
    assert "count from the corner of a tile" in obstacle.reason
