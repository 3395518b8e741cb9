"""What a graph decides by the image's size is an obstacle, unless it decides alike for every image."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile_converters.prepare.from_onnx import prepare_network

N = helper.make_node


def network(nodes, constants) -> onnx.ModelProto:
    """Conv, ``nodes`` from "a" to "b", Conv; "rows" and "columns" are the image's."""
    kernel = np.ones((2, 2, 3, 3), np.float32)
    tensors = {"k": kernel, **{name: np.asarray(value) for name, value in constants.items()}}
    graph = helper.make_graph(
        [
            N("Shape", ["x"], ["rows"], start=2, end=3),
            N("Shape", ["x"], ["columns"], start=3, end=4),
            N("Conv", ["x", "k"], ["a"], pads=[1] * 4, strides=[2, 2]),
            *nodes,
            N("Conv", ["b", "k"], ["y"], pads=[1] * 4),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, "h2", "w2"])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def obstacles(nodes, **constants) -> list[str]:
    return [o.op for o in prepare_network(network(nodes, constants), name="net").trace().obstacles]


def chosen(*condition):
    """One of two maps by "c"."""
    return [*condition, N("Neg", ["a"], ["na"]), N("Where", ["c", "a", "na"], ["b"])]


@pytest.mark.parametrize("op", ["Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"])
@pytest.mark.parametrize("side", ["rows", "columns"])
def test_a_comparison_that_turns_at_some_size_is_an_obstacle(op, side):
    """200 pixels: images below and above are treated differently."""
    assert obstacles(chosen(N(op, [side, "t"], ["c"])), t=[200]) == [op]


def test_rows_compared_with_columns_are_an_obstacle():
    """High and wide images differ."""
    assert obstacles(chosen(N("Greater", ["rows", "columns"], ["c"]))) == ["Greater"]


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        (chosen(N("Greater", ["rows", "t"], ["c"])), {"t": [0]}),
        (chosen(N("Greater", ["rows", "t"], ["c"])), {"t": [1]}),
        (chosen(N("Equal", ["rows", "t"], ["c"])), {"t": [-1]}),
        (chosen(N("Add", ["rows", "t"], ["more"]), N("Greater", ["more", "rows"], ["c"])), {"t": [7]}),
        (chosen(N("Max", ["rows", "t"], ["m"]), N("Equal", ["m", "rows"], ["c"])), {"t": [2]}),
    ],
)
def test_what_is_the_same_for_every_image_is_none(nodes, constants):
    """The stride is 2: no image has fewer pixels."""
    assert obstacles(nodes, **constants) == []


def test_padding_small_images_is_an_obstacle():
    """Padded to 128 pixels and cropped again: a tile of 64 would be, the image not."""
    nodes = [
        N("Shape", ["a"], ["s"], start=2, end=4),
        N("Sub", ["m", "s"], ["e"]),
        N("Max", ["e", "zero"], ["f"]),
        N("Concat", ["none", "f"], ["p"], axis=0),
        N("Pad", ["a", "p"], ["ap"]),
        N("MaxPool", ["ap"], ["q"], kernel_shape=[3, 3], pads=[1] * 4),
        N("Slice", ["q", "begin", "s", "axes"], ["b"]),
    ]
    assert obstacles(nodes, m=[128, 128], zero=[0, 0], none=[0] * 6, begin=[0, 0], axes=[2, 3]) == ["Max"]
