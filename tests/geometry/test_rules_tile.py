"""Operators that must not be taken for obstacles: tiled equals whole, bit for bit, on integer weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from exactile_converters.prepare.from_onnx import prepare_network
from tests.converters.test_graph_io import model_of, picture, weights
from tests.runs.test_exactness import segment

C = 4


def stem(*rest: tuple, constants=None, output=("n", "c", "oh", "ow"), kind=TensorProto.FLOAT, opset=17) -> bytes:
    """A 3x3 convolution to 4 channels, the operators under test, and whatever they need."""
    nodes = [("Conv", ["image", "w"], ["a"], {"pads": [1] * 4}), *rest]
    return model_of(nodes, {"w": weights(C, 3, 3, 3), **(constants or {})}, output=output, kind=kind, opset=opset)


def node(op: str, inputs: str, outputs: str, **attributes) -> tuple:
    return op, ["" if name == "_" else name for name in inputs.split()], outputs.split(), attributes


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def sizes_of(name: str) -> list[tuple]:
    """Height and width of a map as 1-D tensors ``h`` and ``w_``, as exporters compute them."""
    return [
        node("Shape", name, "shape"),
        node("Gather", "shape two", "h", axis=0),
        node("Gather", "shape three", "w_", axis=0),
    ]


SIZE_CONSTANTS = {"two": ints(2), "three": ints(3), "one": ints(1), "minus": ints(-1), "four": ints(C)}

TO_CHANNELS_LAST = node("Transpose", "a", "last", perm=[0, 2, 3, 1])
FROM_CHANNELS_LAST = node("Transpose", "dense", "out", perm=[0, 3, 1, 2])
TOKENS = [
    *sizes_of("a"),
    node("Concat", "one four minus", "flat", axis=0),
    node("Reshape", "a flat", "rows"),
    node("Transpose", "rows", "tokens", perm=[0, 2, 1]),
]
FROM_TOKENS = [
    node("Transpose", "dense", "back", perm=[0, 2, 1]),
    node("Concat", "one minus h w_", "full", axis=0),
    node("Reshape", "back full", "out"),
]

CASES: dict[str, tuple[list[tuple], dict]] = {
    "channel shuffle": (
        [
            node("Shape", "a", "shape"),
            node("Slice", "shape two end", "hw"),
            node("Concat", "groups hw", "split", axis=0),
            node("Reshape", "a split", "grouped"),
            node("Transpose", "grouped", "swapped", perm=[0, 2, 1, 3, 4]),
            node("Reshape", "swapped shape", "shuffled"),
            node("Conv", "shuffled k", "out", pads=[1] * 4),
        ],
        {"two": ints(2), "end": ints(4), "groups": ints(1, 2, 2), "k": weights(C, C, 3, 3)},
    ),
    "batch and channels merged": (
        [
            *sizes_of("a"),
            node("Concat", "four h w_", "merged", axis=0),
            node("Reshape", "a merged", "chw"),
            node("Relu", "chw", "positive"),
            node("Unsqueeze", "positive zero", "out"),
        ],
        {**SIZE_CONSTANTS, "zero": ints(0)},
    ),
    "pixel shuffle by reshapes": (
        [
            *sizes_of("a"),
            node("Concat", "one one two_ two_ h w_", "six", axis=0),
            node("Reshape", "a six", "split"),
            node("Transpose", "split", "swapped", perm=[0, 1, 4, 2, 5, 3]),
            node("Mul", "h two_", "h2"),
            node("Mul", "w_ two_", "w2"),
            node("Concat", "one one h2 w2", "full", axis=0),
            node("Reshape", "swapped full", "big"),
            node("Conv", "big k", "out", pads=[1] * 4),
        ],
        {**SIZE_CONSTANTS, "two_": ints(2), "k": weights(2, 1, 3, 3)},
    ),
    "pixel unshuffle by reshapes": (
        [
            *sizes_of("a"),
            node("Div", "h two_", "h2"),
            node("Div", "w_ two_", "w2"),
            node("Concat", "one four h2 two_ w2 two_", "six", axis=0),
            node("Reshape", "a six", "split"),
            node("Transpose", "split", "swapped", perm=[0, 1, 3, 5, 2, 4]),
            node("Concat", "one minus h2 w2", "full", axis=0),
            node("Reshape", "swapped full", "small"),
            node("Conv", "small k", "out", pads=[1] * 4),
        ],
        {**SIZE_CONSTANTS, "two_": ints(2), "k": weights(2, 4 * C, 3, 3)},
    ),
    "dense layer on channels last": (
        [TO_CHANNELS_LAST, node("MatMul", "last m", "dense"), FROM_CHANNELS_LAST],
        {"m": weights(C, 5)},
    ),
    "dense layer on tokens": (
        [*TOKENS, node("MatMul", "tokens m", "dense"), *FROM_TOKENS],
        {**SIZE_CONSTANTS, "m": weights(C, 5)},
    ),
    "matrix times channels": (
        [
            node("Transpose", "a", "t", perm=[0, 2, 1, 3]),
            node("MatMul", "m t", "p"),
            node("Transpose", "p", "out", perm=[0, 2, 1, 3]),
        ],
        {"m": weights(5, C)},
    ),
    "gemm on flattened pixels": (
        [
            *sizes_of("a"),
            TO_CHANNELS_LAST,
            node("Flatten", "last", "pixels", axis=3),
            node("Gemm", "pixels m b", "scores", transB=1),
            node("Concat", "one h w_ minus", "full", axis=0),
            node("Reshape", "scores full", "dense"),
            FROM_CHANNELS_LAST,
        ],
        {**SIZE_CONSTANTS, "m": weights(5, C), "b": weights(5)},
    ),
    "einsum over channels": (
        [node("Einsum", "a m", "out", equation="nchw,dc->ndhw")],
        {"m": weights(5, C)},
    ),
    "einsum with an ellipsis": (
        [TO_CHANNELS_LAST, node("Einsum", "last m", "dense", equation="...c,cd->...d"), FROM_CHANNELS_LAST],
        {"m": weights(C, 5)},
    ),
    "gated by another map, pixel by pixel": (
        [node("Conv", "a k", "b", pads=[1] * 4), node("Einsum", "a b", "out", equation="nchw,ndhw->nchw")],
        {"k": weights(2, C, 3, 3)},
    ),
    "one map times another over channels": (
        [
            node("Conv", "a k", "b", pads=[1] * 4),
            TO_CHANNELS_LAST,
            node("Unsqueeze", "last three", "left"),
            node("Transpose", "b", "blast", perm=[0, 2, 3, 1]),
            node("Unsqueeze", "blast four_", "right"),
            node("MatMul", "left right", "dot"),
            node("Squeeze", "dot four_", "dense"),
            FROM_CHANNELS_LAST,
        ],
        {"k": weights(C, C, 3, 3), "three": ints(3), "four_": ints(4)},
    ),
    "quantised": (
        [
            node("QuantizeLinear", "a s z", "q"),
            node("QLinearConv", "q s z kq s1 z8 s z", "r", pads=[1] * 4),
            node("DequantizeLinear", "r s z", "out"),
        ],
        {
            "s": np.float32(2),
            "z": np.uint8(3),
            "s1": np.float32(1),
            "z8": np.int8(0),
            "kq": weights(2, C, 3, 3).astype(np.int8),
        },
    ),
    "integer convolution": (
        [
            node("QuantizeLinear", "a s z", "q"),
            node("ConvInteger", "q kq z", "r", pads=[1] * 4, strides=[2, 2]),
            node("Cast", "r", "out", to=TensorProto.FLOAT),
        ],
        {"s": np.float32(1), "z": np.uint8(128), "kq": weights(2, C, 3, 3).astype(np.int8)},
    ),
    "quantised by channel": (
        [node("QuantizeLinear", "a s z", "q", axis=-3), node("DequantizeLinear", "q s z", "out", axis=1)],
        {"s": np.array([1, 2, 4, 8], np.float32), "z": np.zeros(C, np.int8)},
    ),
    "repeated over channels": ([node("Tile", "a times", "out")], {"times": ints(1, 2, 1, 1)}),
    "expanded over channels": (
        [
            node("ReduceMax", "a", "top", axes=[1]),
            node("Shape", "a", "shape"),
            node("Expand", "top shape", "wide"),
            node("Sub", "a wide", "out"),
        ],
        {},
    ),
    "a constant channel as large as the image": (
        [
            *sizes_of("a"),
            node("Concat", "one one h w_", "full", axis=0),
            node("ConstantOfShape", "full", "ones", value=onnx.helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])),
            node("Mul", "ones half", "halves"),
            node("Concat", "a halves", "more", axis=1),
            node("Conv", "more k", "out", pads=[0] * 4),
        ],
        {**SIZE_CONSTANTS, "half": np.float32(0.5), "k": weights(2, C + 1, 1, 1)},
    ),
    "running sum over channels": ([node("CumSum", "a axis", "out")], {"axis": np.int64(1)}),
    "largest channels": ([node("TopK", "a k", "out where", axis=1)], {"k": ints(2)}),
    "gather with a negative axis": ([node("Gather", "a picked", "out", axis=-3)], {"picked": ints(3, 0, -1)}),
    "colours looked up by label": (
        [
            node("ArgMax", "a", "label", axis=1, keepdims=0),
            node("Gather", "table label", "dense", axis=0),
            FROM_CHANNELS_LAST,
        ],
        {"table": weights(C, 3)},
    ),
    "best channel gathered": (
        [node("ArgMax", "a", "label", axis=1), node("GatherElements", "a label", "out", axis=1)],
        {},
    ),
    "every second pixel": (
        [node("Slice", "a starts ends axes steps", "small"), node("Conv", "small k", "out", pads=[1] * 4)],
        {
            "starts": ints(1, 0),
            "ends": ints(2**31 - 1, 2**62),
            "axes": ints(-2, -1),
            "steps": ints(2, 3),
            "k": weights(2, C, 3, 3),
        },
    ),
    "slope for each channel": ([node("PRelu", "a slope", "out")], {"slope": weights(C, 1, 1)}),
    "sum of many": ([node("Sum", "a a b a", "out")], {"b": weights(1, C, 1, 1)}),
    "where by a mask from the image": (
        [node("Greater", "a zero", "mask"), node("Where", "mask a zero", "out")],
        {"zero": np.float32(0)},
    ),
    "clipped, cast to bool and back": (
        [
            node("Clip", "a low high", "b"),
            node("Cast", "b", "c", to=TensorProto.BOOL),
            node("Not", "c", "d"),
            node("Cast", "d", "out", to=TensorProto.FLOAT),
        ],
        {"low": np.float32(0), "high": np.float32(9)},
    ),
    "one label in many channels": (
        [
            node("ArgMax", "a", "label", axis=1, keepdims=0),
            node("OneHot", "label depth values", "dense", axis=-1),
            FROM_CHANNELS_LAST,
        ],
        {"depth": np.int64(C), "values": floats(0, 1)},
    ),
    "average pooling that counts its padding": (
        [node("AveragePool", "a", "out", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)],
        {},
    ),
    "maximum of the last column by ceil_mode": (
        [node("MaxPool", "a", "out", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        {},
    ),
    "padded automatically, more above": (
        [node("Conv", "a k", "out", auto_pad="SAME_LOWER", strides=[1, 2])],
        {"k": weights(2, C, 2, 4)},
    ),
    "reflected and convolved": (
        [node("Pad", "a pads", "p", mode="reflect"), node("Conv", "p k", "out")],
        {"pads": ints(0, 0, 3, 3, 0, 0, 3, 3), "k": weights(2, C, 7, 7)},
    ),
    "reflected far and shifted": (
        [
            node("Pad", "a pads", "p", mode="reflect"),
            node("Conv", "p k", "q"),
            node("Conv", "q k2", "r", pads=[0, 0, 6, 6]),
            node("Pad", "r pads", "s", mode="reflect"),
            node("Conv", "s k3", "out"),
        ],
        {
            "pads": ints(0, 0, 6, 6, 0, 0, 0, 0),
            "k": weights(2, C, 7, 7),
            "k2": weights(2, 2, 7, 7),
            "k3": weights(2, 2, 7, 7),
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_looks_at_bounded_neighbourhoods_is_tiled_exactly(case):
    nodes, constants = CASES[case]
    model = stem(*nodes, constants=constants, kind=TensorProto.FLOAT)
    traced = prepare_network(onnx.load_from_string(model), name=case).trace()
    assert traced.obstacles == ()
    y, x = traced.geometry.y, traced.geometry.x
    image = picture(y.accepted_size(40), x.accepted_size(44))
    tile = tuple(axis.accepted_size(axis.margin_before + axis.margin_after + 3 * axis.stride) for axis in (y, x))
    raw, summary, _ = segment(model, image, tile=tile)
    session = ort.InferenceSession(model)
    (whole,) = session.run(None, {"image": image.transpose(2, 0, 1)[None].astype(np.float32)})[:1]
    assert summary.tiles > 4
    assert np.array_equal(raw, whole[0])
