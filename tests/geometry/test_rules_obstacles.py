"""Networks that must not be taken for tileable: one obstacle, at the node that ties pixels together."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from exactile_converters.prepare.from_onnx import prepare_network
from tests.converters.test_graph_io import weights
from tests.geometry.test_rules_tile import (
    SIZE_CONSTANTS,
    TO_CHANNELS_LAST,
    TOKENS,
    C,
    floats,
    ints,
    node,
    sizes_of,
    stem,
)

FLOAT = TensorProto.FLOAT
ONES = onnx.helper.make_tensor("v", FLOAT, [1], [1.0])
K3 = weights(C, C, 3, 3)

# (operators, constants, operator of the obstacle, words of its reason)
CASES: dict[str, tuple[list[tuple], dict, str, str]] = {
    "attention": (
        [
            *TOKENS,
            node("MatMul", "tokens rows", "scores"),
            node("Softmax", "scores", "weights", axis=-1),
            node("MatMul", "weights tokens", "out"),
        ],
        SIZE_CONSTANTS,
        "MatMul",
        "attention",
    ),
    "attention as an einsum": (
        [*TOKENS, node("Einsum", "tokens tokens", "out", equation="npc,nqc->npq")],
        SIZE_CONSTANTS,
        "Einsum",
        "attention",
    ),
    "attention over channels": (
        [*TOKENS, node("MatMul", "rows tokens", "out")],
        SIZE_CONSTANTS,
        "MatMul",
        "attention",
    ),
    "squeeze and excitation, twice": (
        [
            node("GlobalAveragePool", "a", "s1"),
            node("Sigmoid", "s1", "g1"),
            node("Mul", "a g1", "b"),
            node("GlobalAveragePool", "b", "s2"),
            node("Mul", "b s2", "out"),
        ],
        {},
        "GlobalAveragePool",
        "squeeze-and-excitation",
    ),
    "group normalisation": (
        [
            node("Reshape", "a groups", "g"),
            node("InstanceNormalization", "g s b", "i"),
            node("Shape", "a", "shape"),
            node("Reshape", "i shape", "out"),
        ],
        {"groups": ints(0, 2, -1), "s": floats(1, 1), "b": floats(0, 0)},
        "Reshape",
        "group normalisation",
    ),
    "layer normalisation over space": (
        [node("LayerNormalization", "a s", "out", axis=-1)],
        {"s": floats(1)},
        "LayerNormalization",
        "over x",
    ),
    "positions of the maximum": (
        [
            node("MaxPool", "a", "p where", kernel_shape=[2, 2], strides=[2, 2]),
            node("Cast", "where", "out", to=FLOAT),
        ],
        {},
        "Cast",
        "corner of a tile",
    ),
    "running sum over rows": ([node("CumSum", "a axis", "out")], {"axis": np.int64(-2)}, "CumSum", "along y"),
    "largest pixels": ([node("TopK", "a k", "out where", axis=-1)], {"k": ints(2)}, "TopK", "along x"),
    "non-zero pixels": (
        [node("NonZero", "a", "i"), node("Cast", "i", "out", to=FLOAT)],
        {},
        "NonZero",
        "depends on the",
    ),
    "dense layer over x": ([node("MatMul", "a m", "out")], {"m": weights(8, 8)}, "MatMul", "shapes do not fit"),
    "stacked rows": (
        [node("Reshape", "a flat", "b"), node("Relu", "b", "out")],
        {"flat": ints(1, 1, -1, 8)},
        "Reshape",
        "mixes channels and y and x",
    ),
    "positions and groups of channels merged": (
        [
            node("Reshape", "a grouped", "b"),
            node("Transpose", "b", "t", perm=[0, 3, 1, 2]),
            node("Reshape", "t flat", "f"),
            node("Relu", "f", "out"),
        ],
        {"grouped": ints(1, 2, C // 2, -1), "flat": ints(1, 1, 1, -1)},
        "Reshape",
        "it mixes y and x and channels in one axis",
    ),
    "rows and columns swapped by a reshape": (
        [*sizes_of("a"), node("Concat", "one four w_ h", "full", axis=0), node("Reshape", "a full", "out")],
        SIZE_CONSTANTS,
        "Reshape",
        "mixes y and x",
    ),
    "channels and rows merged": (
        [
            *sizes_of("a"),
            node("Concat", "one one minus w_", "full", axis=0),
            node("Reshape", "a full", "out"),
        ],
        SIZE_CONSTANTS,
        "Reshape",
        "mixes channels and y",
    ),
    "halves of the image interleaved": (
        [
            *sizes_of("a"),
            node("Div", "h two_", "half"),
            node("Concat", "one four two_ half w_", "full", axis=0),
            node("Reshape", "a full", "b"),
            node("ReduceMax", "b", "out", axes=[2], keepdims=0),
        ],
        {**SIZE_CONSTANTS, "two_": ints(2)},
        "Reshape",
        "mixes y",
    ),
    "a fully connected head": (
        [node("Flatten", "a", "f"), node("Gemm", "f m", "out")],
        {"m": weights(64, 3)},
        "Flatten",
        "fully connected",
    ),
    "sampled at computed positions": (
        [TO_CHANNELS_LAST, node("Slice", "last zero two_ axis", "grid"), node("GridSample", "a grid", "out")],
        {"zero": ints(0), "two_": ints(2), "axis": ints(3)},
        "GridSample",
        "samples at positions",
    ),
    "quantised by the image": (
        [node("DynamicQuantizeLinear", "a", "q s z"), node("DequantizeLinear", "q s z", "out")],
        {},
        "DynamicQuantizeLinear",
        "whole image",
    ),
    "noise": ([node("RandomNormalLike", "a", "r"), node("Add", "a r", "out")], {}, "RandomNormalLike", "random"),
    "a random number": (
        [node("RandomNormal", "", "r", shape=[1]), node("Add", "a r", "out")],
        {},
        "Add",
        "at random",
    ),
    "a crop as large as the largest image tried": (
        [node("Slice", "a zero end axis", "out")],
        {"zero": ints(0), "end": ints(100_000), "axis": ints(2)},
        "Slice",
        "not tied",
    ),
    "batch normalisation by rows": (
        [
            node("Transpose", "a", "t", perm=[0, 2, 1, 3]),
            node("BatchNormalization", "t s b m v", "out"),
        ],
        {name: np.ones(8, np.float32) for name in "sbmv"},
        "BatchNormalization",
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_ties_pixels_together_is_one_obstacle_at_its_node(case):
    nodes, constants, operator, words = CASES[case]
    model = stem(*nodes, constants=constants)
    traced = prepare_network(onnx.load_from_string(model), name=case).trace()
    assert traced.geometry is None
    assert [obstacle.op for obstacle in traced.obstacles] == [operator]
    assert words in traced.obstacles[0].reason
    assert traced.obstacles[0].remedy
