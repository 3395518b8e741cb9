"""Operators of ONNX Runtime's own domain, between two convolutions, are right in tiles and in strips, or refused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from exactile_converters.prepare.from_onnx import load_network
from tests.support.operator_sweep import CHANNELS, between_convolutions, judge, runs_in_onnx_runtime

RUNTIME = "com.microsoft"
SIZE = (60, 61)
N = helper.make_node


def own(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes) -> onnx.NodeProto:
    return N(op, inputs, outputs, domain=RUNTIME, **attributes)


def constant(name: str, value, dtype=np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def weights(name: str, *shape: int, dtype=np.float32) -> onnx.TensorProto:
    return constant(name, np.random.default_rng(4).integers(1, 4, shape), dtype)


def network(nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto] = (), **sizes) -> onnx.ModelProto:
    model = between_convolutions(nodes, constants, opset=17, **sizes)
    model.opset_import.append(helper.make_opsetid(RUNTIME, 1))
    return model


def quantized(nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto] = (), **sizes) -> onnx.ModelProto:
    """``nodes`` from "qa" to "qb", uint8; each map has a scale and a zero point of its own."""
    return network(
        [N("QuantizeLinear", ["a", "as", "az"], ["qa"]), *nodes, N("DequantizeLinear", ["qb", "bs", "bz"], ["b"])],
        [
            *(constant(name, value) for name, value in (("as", 1.5), ("bs", 1.25), ("cs", 0.75))),
            *(constant(name, value, np.uint8) for name, value in (("az", 118), ("bz", 131), ("cz", 97))),
            *constants,
        ],
        **sizes,
    )


def check(model: onnx.ModelProto, folder, *, strips: bool = True) -> None:
    assert runs_in_onnx_runtime(model, SIZE)
    verdict = judge(model, folder)
    assert (verdict.refused, verdict.wrong) == ("", ())
    assert not strips or verdict.no_strips == ""


def to_last(*nodes: onnx.NodeProto, source="a", result="b") -> list[onnx.NodeProto]:
    """``nodes`` from "l" to "m", channels last."""
    return [
        N("Transpose", [source], ["l"], perm=[0, 2, 3, 1]),
        *nodes,
        N("Transpose", ["m"], [result], perm=[0, 3, 1, 2]),
    ]


def quantized_last(*nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    return to_last(*nodes, source="qa", result="qb")


FLOAT = {
    "Gelu": ([own("Gelu", ["a"], ["b"])], []),
    "FastGelu": ([own("FastGelu", ["a"], ["b"])], []),
    "FastGelu with a bias": (to_last(own("FastGelu", ["l", "w"], ["m"])), [weights("w", CHANNELS)]),
    "QuickGelu": ([own("QuickGelu", ["a"], ["b"])], []),
    "QuickGelu of alpha 1": ([own("QuickGelu", ["a"], ["b"], alpha=1.0)], []),
    "BiasGelu": (to_last(own("BiasGelu", ["l", "w"], ["m"])), [weights("w", CHANNELS)]),
    "FusedMatMul": (to_last(own("FusedMatMul", ["l", "w"], ["m"], alpha=0.5)), [weights("w", CHANNELS, CHANNELS)]),
    "FusedMatMul, transposed": (
        to_last(own("FusedMatMul", ["l", "w"], ["m"], transB=1, alpha=2.0)),
        [weights("w", CHANNELS, CHANNELS)],
    ),
    "FusedMatMul of a transposed map": (
        [
            N("Transpose", ["a"], ["l"], perm=[0, 2, 1, 3]),
            own("FusedMatMul", ["l", "w"], ["m"], transA=1),
            N("Transpose", ["m"], ["b"], perm=[0, 3, 1, 2]),
        ],
        [weights("w", CHANNELS, CHANNELS)],
    ),
    "SkipLayerNormalization": (
        to_last(
            N("Reshape", ["l", "flat"], ["f"]),
            own("SkipLayerNormalization", ["f", "f", "w", "w", "w"], ["g"], epsilon=1e-5),
            N("Shape", ["l"], ["shape"]),
            N("Reshape", ["g", "shape"], ["m"]),
        ),
        [weights("w", CHANNELS), constant("flat", [0, -1, CHANNELS], np.int64)],
    ),
    "quantised and back": (
        [
            own("QuantizeLinear", ["a", "s", "z"], ["q"], axis=1),
            own("DequantizeLinear", ["q", "s", "z"], ["b"], axis=1),
        ],
        [constant("s", [0.5] * CHANNELS), constant("z", [1, 2], np.int16)],
    ),
}


@pytest.mark.parametrize("case", FLOAT)
def test_an_operator_of_float_maps_is_right(tmp_path, case):
    nodes, constants = FLOAT[case]
    check(network(nodes, constants), tmp_path, strips="SkipLayer" not in case)


def test_an_activation_stays_the_operator_that_it_is(tmp_path):
    """ONNX has another operator for it, which would round otherwise."""
    model = network([own("QuickGelu", ["a"], ["q"]), own("FastGelu", ["q"], ["b"])])
    onnx.save(model, tmp_path / "m.onnx")
    kept = {(node.domain, node.op_type) for node in load_network(tmp_path / "m.onnx").model.graph}
    assert {(RUNTIME, "QuickGelu"), (RUNTIME, "FastGelu")} <= kept


ACTIVATIONS = [
    {},
    {"activation": "Relu"},
    {"activation": "Sigmoid"},
    {"activation": "Tanh"},
    {"activation": "LeakyRelu", "activation_params": [0.25]},
    {"activation": "Clip", "activation_params": [-20.0, 30.0]},
    {"activation": "HardSigmoid", "activation_params": [0.01, 0.5]},
]
WINDOWS = [
    {"pads": [1, 0, 0, 1], "strides": [2, 2]},
    {"auto_pad": "SAME_UPPER"},
    {"pads": [1, 2, 1, 2], "dilations": [1, 2], "group": 2},
]


def fused_convolution(activation: dict, window: dict, *, with_sum: bool, with_bias: bool) -> onnx.ModelProto:
    group = window.get("group", 1)
    constants = [weights("w", CHANNELS, CHANNELS // group, 3, 3), weights("w0", CHANNELS, CHANNELS // group, 3, 3)]
    inputs = ["a", "w", "v" if with_bias else "", "z"][: 4 if with_sum else 3 if with_bias else 2]
    nodes = [own("FusedConv", inputs, ["b"], kernel_shape=[3, 3], **window, **activation)]
    if with_sum:
        nodes.insert(0, N("Conv", ["a", "w0"], ["z"], **window))
    return network(nodes, [*constants, weights("v", CHANNELS)])


FUSED = list(itertools.product(ACTIVATIONS, WINDOWS, (False, True), (False, True)))


@pytest.mark.parametrize("case", range(0, len(FUSED), 9))
def test_a_fused_convolution_is_right(tmp_path, case):
    activation, window, with_sum, with_bias = FUSED[case]
    check(fused_convolution(activation, window, with_sum=with_sum, with_bias=with_bias), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", FUSED)
def test_every_fused_convolution_is_right(tmp_path, case):
    activation, window, with_sum, with_bias = case
    check(fused_convolution(activation, window, with_sum=with_sum, with_bias=with_bias), tmp_path)


def of_two(op: str) -> list[onnx.NodeProto]:
    """Of a map and its neighbourhood's largest value."""
    return [
        N("MaxPool", ["qa"], ["qc"], kernel_shape=[3, 3], pads=[1] * 4),
        own(op, ["qa", "as", "az", "qc", "as", "az", "bs", "bz"], ["qb"]),
    ]


def joined(*inputs: str, axis=1) -> list[onnx.NodeProto]:
    operands = [name for value in inputs for name in (value, "as", "az")]
    return [own("QLinearConcat", ["bs", "bz", *operands], ["qb"], axis=axis)]


ONE = ["qa", "as", "az", "bs", "bz"]
LAST = ["l", "as", "az", "bs", "bz"]
CONVOLVED = ["w", "ws", "wz", "bs", "bz", "w0"]
FILTER = [
    weights("w", CHANNELS, CHANNELS, 3, 3, dtype=np.uint8),
    constant("ws", 0.05),
    constant("wz", 1, np.uint8),
    weights("w0", CHANNELS, dtype=np.int32),
]
POOLS = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1},
    {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
]
QUANTIZED = {
    "QLinearAdd": (of_two("QLinearAdd"), []),
    "QLinearMul": (of_two("QLinearMul"), []),
    "QLinearAdd of a constant for each channel": (
        [own("QLinearAdd", ["qa", "as", "az", "w", "cs", "cz", "bs", "bz"], ["qb"])],
        [weights("w", CHANNELS, 1, 1, dtype=np.uint8)],
    ),
    "QLinearMul of one constant": (
        [own("QLinearMul", ["w", "cs", "cz", "qa", "as", "az", "bs", "bz"], ["qb"])],
        [constant("w", 101, np.uint8)],
    ),
    "QLinearWhere": (
        [
            N("Greater", ["a", "as"], ["wide"]),
            N("MaxPool", ["qa"], ["qc"], kernel_shape=[3, 3], pads=[1] * 4),
            own("QLinearWhere", ["wide", "qa", "as", "az", "qc", "cs", "cz", "bs", "bz"], ["qb"]),
        ],
        [],
    ),
    "QLinearLeakyRelu": ([own("QLinearLeakyRelu", ONE, ["qb"], alpha=0.2)], []),
    "QLinearSigmoid": ([own("QLinearSigmoid", ONE, ["qb"])], []),
    "QLinearSoftmax": ([own("QLinearSoftmax", ["qa", "as", "az", "s", "z"], ["qb"], axis=1, opset=13)],
                       [constant("s", 1 / 256), constant("z", 0, np.uint8)]),
    "MaxPool with channels last": (
        quantized_last(own("NhwcMaxPool", ["l"], ["m"], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])),
        [],
    ),
    "QLinearConv with channels last": (
        quantized_last(own("QLinearConv", ["l", "as", "az", *CONVOLVED], ["m"], channels_last=1, pads=[1] * 4)),
        FILTER,
    ),
    "QLinearConv of ONNX Runtime's domain": (
        [own("QLinearConv", ["qa", "as", "az", *CONVOLVED], ["qb"], strides=[2, 2], pads=[1, 1, 0, 0])], FILTER
    ),
    "QLinearMatMul": (
        quantized_last(N("QLinearMatMul", ["l", "as", "az", "w", "ws", "wz", "bs", "bz"], ["m"])),
        [weights("w", CHANNELS, CHANNELS, dtype=np.uint8), constant("ws", 0.4), constant("wz", 1, np.uint8)],
    ),
    **{
        f"QLinearAveragePool {n}": ([own("QLinearAveragePool", ONE, ["qb"], **pool)], [])
        for n, pool in enumerate(POOLS)
    },
    **{
        f"QLinearAveragePool with channels last {n}": (
            quantized_last(own("QLinearAveragePool", LAST, ["m"], channels_last=1, **pool)), []
        )
        for n, pool in enumerate(POOLS[:3])
    },
}  # fmt: skip


@pytest.mark.parametrize("case", QUANTIZED)
def test_an_operator_of_quantised_maps_is_right(tmp_path, case):
    nodes, constants = QUANTIZED[case]
    check(quantized(nodes, constants), tmp_path)


@pytest.mark.parametrize("axis", [1, -3])
def test_joined_quantised_maps_are_right(tmp_path, axis):
    nodes = [N("MaxPool", ["qa"], ["qc"], kernel_shape=[3, 3], pads=[1] * 4), *joined("qa", "qc", "qa", axis=axis)]
    check(quantized(nodes, channels=3 * CHANNELS), tmp_path)


REFUSED = {
    "QLinearGlobalAveragePool": (
        [
            own("QLinearGlobalAveragePool", ONE, ["qg"]),
            own("QLinearMul", ["qa", "as", "az", "qg", "bs", "bz", "bs", "bz"], ["qb"]),
        ],
        [],
        "pools over the whole image",
    ),
    "QLinearSoftmax over columns": (
        [own("QLinearSoftmax", ONE, ["qb"], axis=3, opset=13)],
        [],
        "normalises over x",
    ),
    "QLinearSoftmax of old over channels and space": (
        [own("QLinearSoftmax", ONE, ["qb"], axis=1, opset=11)],
        [],
        "normalises over y and x",
    ),
    "QLinearConcat of a constant map": (
        joined("qa", "w"),
        [weights("w", 1, 1, *SIZE, dtype=np.uint8)],
        "combines a map with a constant of shape",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_tile_would_compute_otherwise_is_refused_by_name(tmp_path, case):
    nodes, constants, reason = REFUSED[case]
    model = quantized(nodes, constants, channels=3 if "Concat" in case else CHANNELS)
    assert runs_in_onnx_runtime(model, SIZE)
    refused = judge(model, tmp_path).refused
    assert case.split()[0] in refused
    assert reason in refused
