"""Small networks with obstacles to exact tiling, each a serialised ONNX model with an input ``image`` of 3 channels."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SEED = 11
RANDOM = np.random.default_rng(SEED)
ALL_SIDES = {"pads": [1] * 4}
MS = "com.microsoft"


def floats(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.4, shape).astype(np.float32)


def model_of(nodes, constants, *, image=("n", 3, "h", "w"), rank=4, kind=TensorProto.FLOAT, opset=17, domains=()):
    """``nodes``: (operator, inputs, outputs, attributes), an operator of another domain as ``domain:operator``.

    The weights of a network are the same whatever was made before it: `RANDOM` starts anew after each.
    """
    RANDOM.bit_generator.state = np.random.default_rng(SEED).bit_generator.state
    made = []
    for op, inputs, outputs, attributes in nodes:
        domain, _, name = op.rpartition(":")
        made.append(helper.make_node(name, inputs, outputs, name=f"{name}_{outputs[0]}", domain=domain, **attributes))
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("out", kind, [f"o{i}" for i in range(rank)])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9 if opset < 22 else 10).SerializeToString()


FIRST = ("Conv", ["image", "w0"], ["a"], ALL_SIDES)
LAST = ("Conv", ["b", "w1"], ["out"], ALL_SIDES)
WEIGHTS = {"w0": floats(16, 3, 3, 3), "w1": floats(5, 16, 3, 3)}
RANDOM.bit_generator.state = np.random.default_rng(SEED).bit_generator.state


def between(*nodes, **options) -> bytes:
    """A convolution from the image to ``a`` (16 channels), ``nodes`` from there to ``b``, and one to 5 channels."""
    constants = {**WEIGHTS, **options.pop("constants", {})}
    return model_of([FIRST, *nodes, LAST], constants, **options)


def pooled() -> bytes:
    """Global average pooling, broadcast over the image."""
    return between(("GlobalAveragePool", ["a"], ["g"], {}), ("Add", ["a", "g"], ["b"], {}))


def squeeze_and_excitation() -> bytes:
    return between(
        ("GlobalAveragePool", ["a"], ["g"], {}),
        ("Conv", ["g", "down"], ["d"], {}),
        ("Relu", ["d"], ["r"], {}),
        ("Conv", ["r", "up"], ["u"], {}),
        ("Sigmoid", ["u"], ["s"], {}),
        ("Mul", ["a", "s"], ["b"], {}),
        constants={"down": floats(4, 16, 1, 1), "up": floats(16, 4, 1, 1)},
    )


def instance_norm() -> bytes:
    return between(
        ("InstanceNormalization", ["a", "gain", "bias"], ["b"], {}), constants={"gain": floats(16), "bias": floats(16)}
    )


def group_norm() -> bytes:
    """As PyTorch exports it: groups become channels, are normalised, and come apart again."""
    return between(
        ("Reshape", ["a", "groups"], ["r"], {}),
        ("InstanceNormalization", ["r", "gain", "bias"], ["i"], {}),
        ("Shape", ["a"], ["shape"], {}),
        ("Reshape", ["i", "shape"], ["j"], {}),
        ("Mul", ["j", "scale"], ["b"], {}),
        constants={
            "groups": np.array([0, 4, -1]),
            "gain": np.ones(4, np.float32),
            "bias": np.zeros(4, np.float32),
            "scale": floats(16, 1, 1),
        },
    )


def group_norm_operator() -> bytes:
    return between(
        ("GroupNormalization", ["a", "gain", "bias"], ["b"], {"num_groups": 4}),
        constants={"gain": floats(16), "bias": floats(16)},
        opset=21,
    )


def attention() -> bytes:
    """Every position looks at every other one."""
    return between(
        ("Reshape", ["a", "flat"], ["k"], {}),
        ("Transpose", ["k"], ["q"], {"perm": [0, 2, 1]}),
        ("MatMul", ["q", "k"], ["scores"], {}),
        ("Softmax", ["scores"], ["p"], {"axis": -1}),
        ("MatMul", ["p", "q"], ["v"], {}),
        ("Transpose", ["v"], ["t"], {"perm": [0, 2, 1]}),
        ("Shape", ["a"], ["shape"], {}),
        ("Reshape", ["t", "shape"], ["b"], {}),
        constants={"flat": np.array([0, 16, -1])},
    )


def attention_by_einsum() -> bytes:
    return between(
        ("Reshape", ["a", "flat"], ["k"], {}),
        ("Einsum", ["k", "k"], ["scores"], {"equation": "bci,bcj->bij"}),
        ("Softmax", ["scores"], ["p"], {"axis": -1}),
        ("Einsum", ["p", "k"], ["v"], {"equation": "bij,bcj->bci"}),
        ("Shape", ["a"], ["shape"], {}),
        ("Reshape", ["v", "shape"], ["b"], {}),
        constants={"flat": np.array([0, 16, -1])},
    )


def attention_operator() -> bytes:
    return between(
        ("Reshape", ["a", "flat"], ["k"], {}),
        ("Transpose", ["k"], ["q"], {"perm": [0, 2, 1]}),
        ("Attention", ["q", "q", "q"], ["v"], {"q_num_heads": 4, "kv_num_heads": 4}),
        ("Transpose", ["v"], ["t"], {"perm": [0, 2, 1]}),
        ("Shape", ["a"], ["shape"], {}),
        ("Reshape", ["t", "shape"], ["b"], {}),
        constants={"flat": np.array([0, 16, -1])},
        opset=23,
    )


def resized_to_given_size() -> bytes:
    """To 40 x 40 whatever the image, and back to its size."""
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return between(
        ("Resize", ["a", "", "", "given"], ["small"], linear),
        ("Relu", ["small"], ["r"], {}),
        ("Shape", ["a"], ["shape"], {}),
        ("Resize", ["r", "", "", "shape"], ["b"], linear),
        constants={"given": np.array([1, 16, 40, 40])},
    )


def reduced() -> bytes:
    """A result of half the size, rounded up."""
    nodes = [
        FIRST,
        ("GlobalMaxPool", ["a"], ["g"], {}),
        ("Sub", ["a", "g"], ["b"], {}),
        ("Conv", ["b", "w1"], ["out"], {**ALL_SIDES, "strides": [2, 2]}),
    ]
    return model_of(nodes, WEIGHTS)


def enlarged() -> bytes:
    """A result of twice the size."""
    nodes = [
        FIRST,
        ("GlobalMaxPool", ["a"], ["g"], {}),
        ("Sub", ["a", "g"], ["b"], {}),
        ("ConvTranspose", ["b", "up"], ["out"], {"strides": [2, 2]}),
    ]
    return model_of(nodes, {**WEIGHTS, "up": floats(16, 5, 2, 2)})


def channels_last() -> bytes:
    """(N, H, W, C) outside, as TensorFlow exports, and a softmax at the end."""
    nodes = [
        ("Transpose", ["image"], ["nchw"], {"perm": [0, 3, 1, 2]}),
        ("Conv", ["nchw", "w0"], ["a"], {"auto_pad": "SAME_UPPER"}),
        ("ReduceMean", ["a"], ["g"], {"axes": [2, 3]}),
        ("Mul", ["a", "g"], ["b"], {}),
        ("Conv", ["b", "w1"], ["c"], ALL_SIDES),
        ("Transpose", ["c"], ["nhwc"], {"perm": [0, 2, 3, 1]}),
        ("Softmax", ["nhwc"], ["out"], {"axis": -1}),
    ]
    return model_of(nodes, WEIGHTS, image=("n", "h", "w", 3))


def labelled() -> bytes:
    """Labels of its own: (N, H, W) int64."""
    nodes = [
        FIRST,
        ("GlobalAveragePool", ["a"], ["g"], {}),
        ("Add", ["a", "g"], ["b"], {}),
        ("Conv", ["b", "w1"], ["scores"], ALL_SIDES),
        ("ArgMax", ["scores"], ["out"], {"axis": 1, "keepdims": 0}),
    ]
    return model_of(nodes, WEIGHTS, kind=TensorProto.INT64, rank=3)


def other_domain() -> bytes:
    """Operators of ONNX Runtime's own, of which ONNX's shape inference knows nothing, and shapes that follow."""
    return between(
        ("GlobalAveragePool", ["a"], ["g"], {}),
        ("Add", ["a", "g"], ["c"], {}),
        (f"{MS}:Gelu", ["c"], ["d"], {}),
        ("Shape", ["d"], ["shape"], {}),
        ("Reshape", ["d", "flat"], ["e"], {}),
        (f"{MS}:QuickGelu", ["e"], ["f"], {}),
        ("Reshape", ["f", "shape"], ["b"], {}),
        constants={"flat": np.array([0, 16, -1])},
        domains=(MS,),
    )


def _branch(name: str, factor: float) -> onnx.GraphProto:
    nodes = [
        helper.make_node("Constant", [], [f"{name}_factor"], value=numpy_helper.from_array(np.float32(factor))),
        helper.make_node("Mul", ["c", f"{name}_factor"], [f"{name}_out"]),
    ]
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)])


def branching() -> bytes:
    """What is computed depends on whether the image has more than 50 rows."""
    return between(
        ("GlobalAveragePool", ["a"], ["g"], {}),
        ("Add", ["a", "g"], ["c"], {}),
        ("Shape", ["a"], ["shape"], {}),
        ("Gather", ["shape", "two"], ["rows"], {}),
        ("Greater", ["rows", "fifty"], ["high"], {}),
        ("If", ["high"], ["b"], {"then_branch": _branch("then", 2.0), "else_branch": _branch("else", -1.0)}),
        constants={"two": np.array(2), "fifty": np.array(50)},
    )


def looping() -> bytes:
    """How often is decided by the image's pixels."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still_on"]), helper.make_node("Relu", ["x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    return between(
        ("ReduceMax", ["a"], ["top"], {"keepdims": 0}),
        ("Cast", ["top"], ["times"], {"to": TensorProto.INT64}),
        ("Loop", ["times", "", "a"], ["b"], {"body": body}),
    )


def deciding() -> bytes:
    """What is computed depends on the image's pixels."""
    return between(
        ("GlobalAveragePool", ["a"], ["g"], {}),
        ("Add", ["a", "g"], ["c"], {}),
        ("ReduceMax", ["a"], ["top"], {"keepdims": 0}),
        ("Greater", ["top", "zero"], ["high"], {}),
        ("If", ["high"], ["b"], {"then_branch": _branch("then", 2.0), "else_branch": _branch("else", -1.0)}),
        constants={"zero": np.float32(0)},
    )


def mean_variance_norm() -> bytes:
    return between(("MeanVarianceNormalization", ["a"], ["b"], {"axes": [0, 2, 3]}))


def skipping() -> bytes:
    """A skip connection around a way down and up: multiples of 4 only."""
    return between(
        ("GlobalAveragePool", ["a"], ["g"], {}),
        ("Add", ["a", "g"], ["c"], {}),
        ("MaxPool", ["c"], ["d"], {"kernel_shape": [4, 4], "strides": [4, 4]}),
        ("Resize", ["d", "", "scales"], ["u"], {"mode": "nearest"}),
        ("Add", ["u", "a"], ["b"], {}),
        constants={"scales": np.array([1, 1, 4, 4], np.float32)},
    )


def floored() -> bytes:
    """Reduced by 4, rounded down, and enlarged again: the result loses up to three rows and columns."""
    nodes = [
        FIRST,
        ("GlobalAveragePool", ["a"], ["g"], {}),
        ("Add", ["a", "g"], ["c"], {}),
        ("MaxPool", ["c"], ["b"], {"kernel_shape": [4, 4], "strides": [4, 4]}),
        ("Conv", ["b", "w1"], ["d"], ALL_SIDES),
        ("Resize", ["d", "", "scales"], ["out"], {"mode": "nearest"}),
    ]
    return model_of(nodes, {**WEIGHTS, "scales": np.array([1, 1, 4, 4], np.float32)})


UNPADDED = ("Conv", ["image", "w0"], ["a"], {})


def unpadded() -> bytes:
    """A pixel is lost at each edge."""
    nodes = [
        UNPADDED,
        ("InstanceNormalization", ["a", "gain", "bias"], ["c"], {}),
        ("GlobalAveragePool", ["c"], ["g"], {}),
        ("Add", ["c", "g"], ["b"], {}),
        LAST,
    ]
    return model_of(nodes, {**WEIGHTS, "gain": floats(16), "bias": floats(16)})


def shifted() -> bytes:
    """Three rows are lost at the top, where they are cropped, and two columns at the right."""
    nodes = [
        FIRST,
        ("Slice", ["a", "starts", "ends", "axes"], ["c"], {}),
        ("GlobalAveragePool", ["c"], ["g"], {}),
        ("Add", ["c", "g"], ["b"], {}),
        LAST,
    ]
    cut = {"starts": np.array([3, 0]), "ends": np.array([2**62, -2]), "axes": np.array([2, 3])}
    return model_of(nodes, {**WEIGHTS, **cut})


def unpadded_and_grouped() -> bytes:
    """A pixel is lost at each edge, before the axes of the map are given up for a while."""
    nodes = [
        UNPADDED,
        ("Reshape", ["a", "groups"], ["r"], {}),
        ("InstanceNormalization", ["r", "gain", "bias"], ["i"], {}),
        ("Shape", ["a"], ["shape"], {}),
        ("Reshape", ["i", "shape"], ["b"], {}),
        LAST,
    ]
    groups = {"groups": np.array([0, 4, -1]), "gain": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    return model_of(nodes, {**WEIGHTS, **groups})


def unpadded_and_flipped() -> bytes:
    nodes = [
        UNPADDED,
        ("Slice", ["a", "last", "first", "axes", "back"], ["b"], {}),
        LAST,
    ]
    back = {"last": np.array([-1]), "first": np.array([-(2**62)]), "axes": np.array([2]), "back": np.array([-1])}
    return model_of(nodes, {**WEIGHTS, **back})


def never() -> bytes:
    """Operands that fit each other at no size."""
    nodes = [
        ("Conv", ["image", "w0"], ["a"], {}),
        ("Conv", ["image", "w0"], ["c"], ALL_SIDES),
        ("GlobalAveragePool", ["a"], ["g"], {}),
        ("Mul", ["a", "g"], ["d"], {}),
        ("Add", ["d", "c"], ["b"], {}),
        LAST,
    ]
    return model_of(nodes, WEIGHTS)


def classifier() -> bytes:
    """One vector of scores for the whole image."""
    return model_of([FIRST, ("GlobalAveragePool", ["a"], ["out"], {})], {"w0": WEIGHTS["w0"]})


def counting() -> bytes:
    """The number of positive pixels is known only once they are computed."""
    return model_of([FIRST, ("NonZero", ["a"], ["out"], {})], {"w0": WEIGHTS["w0"]}, rank=2, kind=TensorProto.INT64)


def fixed(height: int, width: int) -> bytes:
    """Exported at one size, with weights for each position, as a fully connected layer has them."""
    nodes = [FIRST, ("Mul", ["a", "positions"], ["b"], {}), LAST]
    constants = {**WEIGHTS, "positions": floats(1, 16, height, width)}
    return model_of(nodes, constants, image=(1, 3, height, width))


MAPS = {
    make.__name__: make
    for make in (
        pooled, squeeze_and_excitation, instance_norm, group_norm, group_norm_operator, attention, attention_by_einsum,
        attention_operator, resized_to_given_size, reduced, enlarged, other_domain, branching,
        mean_variance_norm,
    )
}  # fmt: skip
"""Networks that give 5 channels, (N, C, H, W), for images of any size."""


def parsed(model: bytes) -> onnx.ModelProto:
    return onnx.load_from_string(model)
