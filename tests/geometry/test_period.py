"""Networks that pad themselves to a multiple: tiled on that multiple, or not at all."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network

# Pads at the bottom and right to a multiple, convolves twice with a bias, so that what was padded is no longer zero.
PADDED = """
  <ir_version: 8, opset_import: ["" : 17]>
  net (float[1, 1, h, w] x) => (float[1, 1, u, v] y)
  <float[1, 1, 3, 3] k = {1, 2, 3, 4, 5, 6, 7, 8, 9}, float[1] b = {5}> {
    size = Shape <start = 2> (x)
    less = Neg (size)
    unit = Constant <value_ints = [UNIT]> ()
    more = Mod (less, unit)
    none = Constant <value_ints = [0, 0, 0, 0, 0, 0]> ()
    pads = Concat <axis = 0> (none, more)
    padded = Pad (x, pads)
    one = Conv <pads = [1, 1, 1, 1]> (padded, k, b)
    two = Conv <pads = [1, 1, 1, 1]> (one, k, b)
    first = Constant <value_ints = [0, 0]> ()
    axes = Constant <value_ints = [2, 3]> ()
    y = Slice (two, first, size, axes)
  }"""


def padded_to(unit: str, nodes: str = PADDED) -> onnx.ModelProto:
    return onnx.parser.parse_model(nodes.replace("UNIT", unit))


def plain(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": image.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]


def test_padding_matters_to_a_tile():
    """The reason: the same rows at the lower edge of a smaller image come out otherwise."""
    model, image = padded_to("8, 8"), np.ones((44, 40, 1), np.uint8)
    assert not np.array_equal(plain(model, image)[:, -8:], plain(model, image[4:])[:, -8:])


@pytest.mark.parametrize("unit", [8, 12, 32, 45])
def test_a_network_that_pads_to_a_multiple_has_it_as_stride(unit):
    model = padded_to(f"{unit}, {unit}")
    geometry = prepare_network(model, name="net").trace().geometry
    for axis in (geometry.y, geometry.x):
        assert (axis.stride, axis.before, axis.after, axis.remainder) == (unit, 2, 2, 0)


@pytest.mark.parametrize("plan", ["tile", "strip"])
def test_it_is_tiled_like_one_pass(plan):
    model, image = padded_to("8, 8"), np.random.default_rng(0).integers(0, 9, (104, 72, 1), dtype=np.uint8)
    deployed = deploy(prepare_network(model, name="net"), image_dtype="uint8", output="raw")
    sink = ArraySink()
    tile = {"tile": (32, 32)} if plan == "tile" else {}
    summary = Session(deployed, memory_bytes=8 << 30).segment(ArraySource(image), sink, plan=plan, **tile)
    assert summary.tiles > 1
    assert np.array_equal(sink.result, plain(model, image))


def test_padding_that_adds_to_the_stride_leaves_it():
    """Padding to a multiple of 4 before pooling by 8 asks for no more than the pool does."""
    pooled = PADDED.replace(
        "two = Conv <pads = [1, 1, 1, 1]> (one, k, b)", "two = MaxPool <kernel_shape = [8, 8], strides = [8, 8]> (one)"
    ).replace("y = Slice (two, first, size, axes)", "y = Relu (two)")
    geometry = prepare_network(padded_to("4, 4", pooled), name="net").trace().geometry
    assert (geometry.y.stride, geometry.x.stride) == (8, 8)


def test_a_multiple_beyond_all_tiles_is_an_obstacle():
    pooled = PADDED.replace(
        "two = Conv <pads = [1, 1, 1, 1]> (one, k, b)", "two = MaxPool <kernel_shape = [7, 7], strides = [7, 7]> (one)"
    ).replace("y = Slice (two, first, size, axes)", "y = Relu (two)")
    found = prepare_network(padded_to("2880, 2880", pooled), name="net").trace()
    assert found.geometry is None
    assert [obstacle.op for obstacle in found.obstacles] == ["Pad"]
    assert "something else for each size" in found.obstacles[0].reason
