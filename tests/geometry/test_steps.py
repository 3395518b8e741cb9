"""Strides that are no product of small numbers, as patches of 7 or 14 pixels make them."""

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

DOWN = "<float[2, 1, STEP, STEP] k = {KERNEL}> { d = Conv <strides = [STEP, STEP]> (x, k) y = Relu (d) }"


def network(nodes: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> net (float[1, 1, h, w] x) => (float[1, C, u, v] y) {nodes}'
    )


def patches(step: int) -> onnx.ModelProto:
    kernel = np.random.default_rng(0).integers(-3, 4, 2 * step * step)
    return network(DOWN.replace("STEP", str(step)).replace("KERNEL", ", ".join(map(str, kernel))))


@pytest.mark.parametrize("step", [7, 11, 14, 67])
def test_patches_of_any_size_are_the_stride(step):
    for axis in (geometry := prepare_network(patches(step), name="net").trace().geometry).y, geometry.x:
        assert (axis.stride, axis.before, axis.after, axis.scale.denominator) == (step, 0, 0, step)


def test_odd_steps_one_after_another_multiply():
    pools = [
        f"p{i} = MaxPool <kernel_shape = [{step}, {step}], strides = [{step}, {step}]> ({source})"
        for i, (step, source) in enumerate(((7, "x"), (11, "p0"), (7, "p1")))
    ]
    geometry = prepare_network(network(f"{{ {' '.join(pools)} y = Relu (p2) }}"), name="net").trace().geometry
    assert (geometry.y.stride, geometry.x.stride) == (539, 539)


def test_every_seventh_pixel():
    nodes = """{ b = Constant <value_ints = [3, 0]> ()
                 e = Constant <value_ints = [2147483647, 2147483647]> ()
                 a = Constant <value_ints = [2, 3]> ()
                 s = Constant <value_ints = [7, 7]> ()
                 y = Slice (x, b, e, a, s) }"""
    geometry = prepare_network(network(nodes), name="net").trace().geometry
    assert [(axis.stride, axis.before, axis.after) for axis in (geometry.y, geometry.x)] == [(7, -3, -3), (7, 0, -6)]


@pytest.mark.parametrize("plan", ["tile", "strip"])
def test_tiles_and_strips_are_one_pass(plan):
    model, image = patches(14), np.random.default_rng(1).integers(0, 9, (14 * 9, 14 * 6, 1), dtype=np.uint8)
    deployed = deploy(prepare_network(model, name="net"), image_dtype="uint8", output="raw")
    sink = ArraySink()
    options = {"tile": (28, 42)} if plan == "tile" else {}
    summary = Session(deployed, memory_bytes=8 << 30).segment(ArraySource(image), sink, plan=plan, **options)
    session = ort.InferenceSession(model.SerializeToString())
    whole = session.run(None, {"x": image.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
    assert summary.tiles > 1
    assert np.array_equal(sink.result, whole)


def test_steps_beyond_all_tiles_are_an_obstacle():
    found = prepare_network(
        network("{ p = MaxPool <kernel_shape = [4099, 4099], strides = [4099, 4099]> (x) y = Relu (p) }"), name="net"
    ).trace()
    assert found.geometry is None
    assert [(obstacle.op, "4099 pixels" in obstacle.reason) for obstacle in found.obstacles] == [("MaxPool", True)]
