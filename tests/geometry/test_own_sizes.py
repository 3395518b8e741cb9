"""Images of every size that a network takes: the result is one pass of plain ONNX Runtime over the image itself.

Weights are small integers, so that sums are exact and results must agree bit for bit.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from exactile.errors import ExactileError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.verify import verify
from tests.support.oracle import RUNTIME_ERRORS

Layer = tuple[str, dict]
"""Operator and attributes; convolutions have ``kernel_shape`` [k, k]."""
NETWORKS: dict[str, tuple[Layer, ...]] = {
    "convolution 4 by 2": (("Conv", {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}),),
    "convolution 5 by 3": (("Conv", {"kernel_shape": [5, 5], "strides": [3, 3], "pads": [2, 2, 2, 2]}),),
    "pooling, SAME_UPPER": (
        ("Conv", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ),
    "convolution, SAME_LOWER": (("Conv", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),),
    "pooling, rounded up": (
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ("Conv", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ),
    "pooling, padded and rounded up": (
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [0, 0, 1, 1], "ceil_mode": 1}),
        ("Conv", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ),
    "two strides": (
        ("Conv", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("Conv", {"kernel_shape": [4, 4], "strides": [3, 3], "pads": [1, 1, 1, 1]}),
    ),
    "down and up": (
        ("Conv", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("ConvTranspose", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ),
}
STRIDES = {"convolution 5 by 3": 3, "pooling, padded and rounded up": 3, "two strides": 6}


def network(layers: tuple[Layer, ...], seed: int = 0) -> bytes:
    """``image`` (1, 1, H, W) through the layers, with weights of -2 to 2."""
    random = np.random.default_rng(seed)
    nodes, constants, value = [], [], "image"
    for index, (operator, attributes) in enumerate(layers):
        inputs, out = [value], f"map{index}"
        if not operator.endswith("Pool"):
            weights = random.integers(-2, 3, (1, 1, *attributes["kernel_shape"])).astype(np.float32)
            constants.append(numpy_helper.from_array(weights, f"w{index}"))
            inputs.append(f"w{index}")
        nodes.append(helper.make_node(operator, inputs, [out], **attributes))
        value = out
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "H", "W"])
    output = helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, 1, "h", "w"])
    graph = helper.make_graph(nodes, "own", [image], [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@cache
def session(model: bytes) -> Session:
    prepared = prepare_network(onnx.load_from_string(model), name="own")
    return Session(deploy(prepared, image_dtype="uint8", output="raw"), threads=1)


@cache
def plain(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options)


def one_pass(model: bytes, image: np.ndarray) -> np.ndarray:
    """(C, H', W'). Rejects a random network that ONNX Runtime refuses, or whose result is empty."""
    try:
        (output,) = plain(model).run(None, {"image": image.transpose(2, 0, 1)[None].astype(np.float32)})
    except RUNTIME_ERRORS:
        reject()
    if not output.size:
        reject()
    return output[0]


def compared(model: bytes, height: int, width: int, plan: str, tile: tuple[int, int] | None) -> str:
    """Assert that the result is one pass; why the image was run at another size, "" where it was not."""
    image = np.random.default_rng([height, width]).integers(0, 8, (height, width, 1), np.uint8)
    expected = one_pass(model, image)
    sink = ArraySink()
    summary = session(model).segment(ArraySource(image), sink, plan=plan, tile=tile)
    if not summary.padded_because:
        assert sink.result.shape == expected.shape
        assert np.array_equal(sink.result, expected)
    return summary.padded_because


@pytest.mark.parametrize("plan", ["whole", "tile", "strip"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_remainder_is_run_as_it_is(name, plan):
    """Heights and widths of every remainder modulo the stride, in all plans; none is extended."""
    model, stride = network(NETWORKS[name]), STRIDES.get(name, 2)
    shape = {"whole": None, "tile": (6 * stride, 7 * stride), "strip": (4 * stride, 10 * stride)}[plan]
    for along in range(stride):
        for across in range(stride):
            assert compared(model, 18 * stride + along, 16 * stride + across, plan, shape) == ""


def test_no_wrong_pixel_where_sizes_are_rounded_up_along_one_axis_alone():
    """Padding counts, so it cannot be shortened: where the form for multiples does not serve, images are extended."""
    pads = {"pads": [0, 0, 1, 1], "ceil_mode": 1, "count_include_pad": 1}
    model = network((("AveragePool", {"kernel_shape": [4, 4], "strides": [4, 4], **pads}),))
    reasons = {compared(model, 40 + along, 40 + across, "whole", None) for along in range(4) for across in range(4)}
    assert "" in reasons


EVEN = """
<ir_version: 8, opset_import: ["" : 17]>
padded (float[1, 1, H, W] image) => (float[1, 1, h, w] result)
<int64[1] two = {2}, int64[1] four = {4}, int64[1] zero = {0}, int64[2] multiple = {4, 4},
 int64[6] none = {0, 0, 0, 0, 0, 0}>
{
    shape = Shape (image)
    size = Slice (shape, two, four, zero)
    over = Mod (size, multiple)
    left = Sub (multiple, over)
    more = Mod (left, multiple)
    pads = Concat <axis = 0> (none, more)
    padded = Pad <mode = "edge"> (image, pads)
    result = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (padded)
}
"""


@pytest.mark.parametrize("height", range(4, 14))
def test_low_images_of_a_network_that_pads_to_a_multiple(height):
    """It does the same every 4 rows, and its maps alone every 2: strips are multiples of 4 rows."""
    model = onnx.parser.parse_model(EVEN).SerializeToString()
    assert compared(model, height, 13, "strip", (4, 12)) == ""


LAYERS = st.one_of(
    st.builds(
        lambda kernel, stride, before, after: (
            "Conv",
            {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [before, before, after, after]},
        ),
        st.integers(1, 5),
        st.integers(1, 3),
        st.integers(0, 2),
        st.integers(0, 2),
    ),
    st.builds(
        lambda operator, kernel, stride, auto: (
            operator,
            {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "auto_pad": auto},
        ),
        st.sampled_from(["Conv", "MaxPool"]),
        st.integers(1, 4),
        st.integers(1, 3),
        st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]),
    ),
    st.builds(
        lambda kernel, stride, ceil: (
            "MaxPool",
            {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "ceil_mode": ceil},
        ),
        st.integers(1, 4),
        st.integers(1, 3),
        st.integers(0, 1),
    ),
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    layers=st.lists(LAYERS, min_size=1, max_size=3),
    height=st.integers(40, 90),
    width=st.integers(40, 90),
    plan=st.sampled_from(["whole", "tile", "strip"]),
)
def test_random_networks_of_odd_strides(layers, height, width, plan):
    """What is run without extending the image is one pass over it; what cannot be cut is refused with an error."""
    model = network(tuple(layers))
    try:
        compared(model, height, width, plan, None)
        if plan == "tile":
            side = session(model)._model.contract.geometry.y
            least = side.before + side.after + side.extra_before + side.extra_after + 2 * side.stride
            compared(model, height, width, plan, (min(height, 2 * least), min(width, 2 * least)))
    except ExactileError as error:
        assert str(error)  # noqa: PT017


@pytest.mark.parametrize("name", ["convolution 5 by 3", "pooling, SAME_UPPER"])
def test_the_proof_is_of_the_image_as_it_is_run(name):
    """Not of what it would be extended to: the one pass that tiles are compared with is as large as ONNX Runtime's."""
    layers, height, width = NETWORKS[name], 103, 98
    image = np.random.default_rng(0).integers(0, 8, (height, width, 1), np.uint8)
    found = verify(
        prepare_network(onnx.load_from_string(network(layers)), name=name), source=ArraySource(image), with_sweep=True
    )
    assert found.comparison.output_shape == one_pass(network(layers), image).shape
    assert found.comparison.difference.max_abs == 0
    assert found.sweep.halos[-1].max_abs == 0
    assert found.holds
