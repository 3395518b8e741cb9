"""Interval maps of single operators against the operators themselves, run on markers."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from exactile_converters.prepare.from_onnx import prepare_network


def one_operator(op: str, weight: np.ndarray | None = None, inputs: tuple = (), opset: int = 17, **attributes):
    """A graph of one operator on (1, 1, H, W); ``inputs`` are further constant inputs."""
    constants = [] if weight is None else [helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.ravel())]
    names = ["image", *(["w"] if weight is not None else [])]
    for i, value in enumerate(inputs):
        if value is None:
            names.append("")
            continue
        array = np.asarray(value)
        kind = TensorProto.INT64 if array.dtype.kind == "i" else TensorProto.FLOAT
        constants.append(helper.make_tensor(f"c{i}", kind, array.shape, array.ravel()))
        names.append(f"c{i}")
    graph = helper.make_graph(
        [helper.make_node(op, names, ["out"], name="the_node", **attributes)],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "h", "w"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 1, "oh", "ow"])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def dependencies(model: onnx.ModelProto, size: int) -> np.ndarray:
    """(output rows, input rows): which output rows depend on which input rows, by poisoning one at a time."""
    session = ort.InferenceSession(model.SerializeToString())
    columns = []
    for row in range(size):
        image = np.ones((1, 1, size, size), np.float32)
        image[0, 0, row] = np.inf
        columns.append(~np.isfinite(session.run(None, {"image": image})[0][0]).all(axis=(0, 2)))
    return np.array(columns).T


def check(model: onnx.ModelProto, size: int) -> None:
    geometry = prepare_network(model, name="one").trace().geometry
    assert geometry is not None
    axis = geometry.y
    size = axis.accepted_size(size)
    depends = dependencies(model, size)
    assert depends.shape[0] == axis.output_size(size)
    first = -(-max(axis.margin_before, 0) // axis.stride) * axis.stride
    last = (size - axis.margin_after) // axis.stride * axis.stride
    assert last > first
    rows = depends[axis.output_position(first) : axis.output_position(last)].any(axis=0)
    touched = np.flatnonzero(rows)
    assert touched[0] == first - axis.before
    assert touched[-1] == last + axis.after - 1


small = st.integers(1, 4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(small, st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3))
def test_convolution_reaches_exactly_what_the_walk_says(kernel, stride, dilation, before, after):
    weight = np.ones((1, 1, kernel, kernel), np.float32)
    pads = [before, before, after, after]
    model = one_operator("Conv", weight, strides=[stride] * 2, dilations=[dilation] * 2, pads=pads)
    check(model, 24)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
def test_automatic_padding_reaches_exactly_what_the_walk_says(kernel, stride, auto_pad):
    weight = np.ones((1, 1, kernel, kernel), np.float32)
    check(one_operator("Conv", weight, strides=[stride] * 2, auto_pad=auto_pad), 24)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(0, 2), st.data())
def test_transposed_convolution_reaches_exactly_what_the_walk_says(kernel, stride, dilation, before, after, data):
    extent = (kernel - 1) * dilation + 1
    assume(kernel >= stride)
    assume(before < extent and after < extent)
    extra = data.draw(st.integers(0, stride - 1))
    weight = np.ones((1, 1, kernel, kernel), np.float32)
    pads = [before, before, after, after]
    model = one_operator(
        "ConvTranspose",
        weight,
        strides=[stride] * 2,
        dilations=[dilation] * 2,
        pads=pads,
        output_padding=[extra] * 2,
    )
    check(model, 24)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize(
    ("kernel", "stride", "pads"), [(2, 2, [0] * 4), (3, 2, [1] * 4), (3, 1, [1] * 4), (3, 3, [0] * 4)]
)
def test_pooling_reaches_exactly_what_the_walk_says(op, ceil_mode, kernel, stride, pads):
    model = one_operator(op, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, ceil_mode=ceil_mode)
    check(model, 24)


RESIZES = [
    (mode, coordinates, rounding, factor)
    for mode in ("nearest", "linear", "cubic")
    for coordinates in ("half_pixel", "asymmetric", "pytorch_half_pixel")
    for rounding in (["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"] if mode == "nearest" else ["floor"])
    for factor in (2.0, 3.0, 4.0, 0.5, 1 / 3)
]


@pytest.mark.parametrize(("mode", "coordinates", "rounding", "factor"), RESIZES)
def test_resize_reaches_exactly_what_the_walk_says(mode, coordinates, rounding, factor):
    model = one_operator(
        "Resize",
        inputs=(None, np.array([1, 1, factor, factor], np.float32)),
        mode=mode,
        coordinate_transformation_mode=coordinates,
        nearest_mode=rounding,
    )
    check(model, 24)


def test_slice_and_pad_shift_by_what_they_take_and_add():
    crop = one_operator("Slice", inputs=([3, 1], [-2, 2**62], [2, 3], [1, 1]))
    check(crop, 24)
    for mode in ("constant", "reflect", "edge"):
        check(one_operator("Pad", inputs=([0, 0, 2, 1, 0, 0, 3, 1],), mode=mode), 24)


def test_a_crop_that_is_padded_again_costs_extra_margin():
    """What was cropped is lost inside a tile, though nothing beyond the box influences it."""
    nodes = [
        helper.make_node("Slice", ["image", "starts", "ends", "axes"], ["cropped"]),
        helper.make_node("Pad", ["cropped", "pads"], ["out"]),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        for name, values in (("starts", [3]), ("ends", [-2]), ("axes", [2]), ("pads", [0, 0, 3, 0, 0, 0, 2, 0]))
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "h", "w"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 1, "h", "w"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    axis = prepare_network(model, name="crop").trace().geometry.y
    assert (axis.before, axis.after, axis.margin_before, axis.margin_after) == (0, 0, 3, 2)


def test_space_and_depth_reach_exactly_what_the_walk_says():
    check(one_operator("SpaceToDepth", blocksize=2), 24)
