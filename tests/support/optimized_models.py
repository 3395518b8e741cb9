"""Models as ONNX Runtime's optimiser and quantiser write them, made from small networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

N = helper.make_node
EXTENDED, ALL = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def random(name: str, *shape: int) -> onnx.TensorProto:
    generator = np.random.default_rng([*name.encode(), *shape])
    return numpy_helper.from_array((generator.standard_normal(shape) * 0.3).astype(np.float32), name)


def scalar(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.float32(value), name)


def conv(source: str, target: str, kernel: str) -> onnx.NodeProto:
    return N("Conv", [source, kernel], [target], pads=[1] * 4)


def network(
    nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto] = (), *, opset: int = 17, features: int = 4
) -> onnx.ModelProto:
    """Conv from "x" (3 channels) to "a", ``nodes``, Conv from "b" to "y" (4 channels); "a", "b" of ``features``."""
    graph = helper.make_graph(
        [conv("x", "a", "first"), *nodes, conv("b", "y", "last")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, "h2", "w2"])],
        [random("first", features, 3, 3, 3), random("last", 4, features, 3, 3), *constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def optimized(model: onnx.ModelProto, folder: Path, level: ort.GraphOptimizationLevel = EXTENDED) -> onnx.ModelProto:
    """What ONNX Runtime saves of ``model``."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


class _Noise(CalibrationDataReader):
    def __init__(self) -> None:
        generator = np.random.default_rng(5)
        self._images = iter([generator.standard_normal((1, 3, 32, 32)).astype(np.float32) for _ in range(3)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"x": image}


def quantized(
    model: onnx.ModelProto, folder: Path, form: QuantFormat = QuantFormat.QOperator, *, per_channel: bool = False
) -> onnx.ModelProto:
    """``model`` in 8 bits, by ONNX Runtime's own quantiser: as operators that compute with integers, or in pairs."""
    onnx.save(model, folder / "float.onnx")
    quantize_static(folder / "float.onnx", folder / "q.onnx", _Noise(), quant_format=form, per_channel=per_channel)
    return onnx.load(folder / "q.onnx")


def in_pairs(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """``model`` with a pair of QuantizeLinear and DequantizeLinear around everything, and a scale for each channel."""
    return quantized(model, folder, QuantFormat.QDQ, per_channel=True)


def without_dead_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` without what nothing reads, which would decide about what ONNX Runtime puts together."""
    wanted, kept = {value.name for value in model.graph.output}, []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            kept.insert(0, node)
            wanted |= set(node.input)
    constants = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    graph = helper.make_graph(kept, model.graph.name, model.graph.input, model.graph.output, constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def gelu(source: str, target: str) -> list[onnx.NodeProto]:
    """As exporters write it."""
    return [
        N("Div", [source, "root"], ["g1"]),
        N("Erf", ["g1"], ["g2"]),
        N("Add", ["g2", "one"], ["g3"]),
        N("Mul", [source, "g3"], ["g4"]),
        N("Mul", ["g4", "half"], [target]),
    ]


GELU = [scalar("root", 2**0.5), scalar("one", 1), scalar("half", 0.5)]


def convnext_block(features: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """From "a" to "b": layer normalisation over channels and two dense layers, channels last, as older exports have it.

    All of it becomes LayerNormalization (or SimplifiedLayerNormalization), MatMul and BiasGelu.
    """  # fmt: skip
    mean = {"axes": [-1], "keepdims": 1}
    nodes = [
        N("Transpose", ["a"], ["t"], perm=[0, 2, 3, 1]),
        N("ReduceMean", ["t"], ["mean"], **mean),
        N("Sub", ["t", "mean"], ["d"]),
        N("Pow", ["d", "two"], ["p"]),
        N("ReduceMean", ["p"], ["v"], **mean),
        N("Add", ["v", "eps"], ["e"]),
        N("Sqrt", ["e"], ["s"]),
        N("Div", ["d", "s"], ["n"]),
        N("Mul", ["n", "scale"], ["m"]),
        N("Add", ["m", "shift"], ["l"]),
        N("MatMul", ["l", "w1"], ["h0"]),
        N("Add", ["h0", "b1"], ["h"]),
        *gelu("h", "h1"),
        N("MatMul", ["h1", "w2"], ["o0"]),
        N("Add", ["o0", "b2"], ["o"]),
        N("Transpose", ["o"], ["o2"], perm=[0, 3, 1, 2]),
        N("Add", ["o2", "a"], ["b"]),
    ]
    constants = [
        *(scalar("two", 2), scalar("eps", 1e-6), *GELU),
        *(random(name, features) for name in ("scale", "shift", "b2")),
        *(random("w1", features, 4 * features), random("b1", 4 * features), random("w2", 4 * features, features)),
    ]
    return nodes, constants


def many_operators(features: int = 4) -> onnx.ModelProto:
    """A network whose quantised form has most operators that the quantiser knows."""
    nodes = [
        N("LeakyRelu", ["a"], ["l"], alpha=0.1),
        conv("l", "c", "second"),
        N("Sigmoid", ["c"], ["s"]),
        N("Mul", ["c", "s"], ["m"]),
        N("AveragePool", ["m"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        N("MaxPool", ["p"], ["q"], kernel_shape=[3, 3], pads=[1] * 4),
        N("Resize", ["q", "", "up"], ["u"], mode="nearest"),
        N("Concat", ["u", "m"], ["j"], axis=1),
        conv("j", "r", "third"),
        N("Add", ["r", "c"], ["d"]),
        N("Relu", ["d"], ["e"]),
        N("Softmax", ["e"], ["b"], axis=1),
    ]
    constants = [
        random("second", features, features, 3, 3),
        random("third", features, 2 * features, 3, 3),
        numpy_helper.from_array(np.float32([1, 1, 2, 2]), "up"),
    ]
    return network(nodes, constants, features=features)


def loop() -> onnx.ModelProto:
    """From "a" to "b": a loop of three rounds that inserts what it makes in a sequence."""
    body = helper.make_graph(
        [
            N("Identity", ["going"], ["go"]),
            conv("v", "w", "again"),
            N("SequenceInsert", ["s", "w"], ["t"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
            helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
            helper.make_tensor_sequence_value_info("t", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        N("SequenceEmpty", [], ["none"]),
        N("Loop", ["rounds", "yes", "a", "none"], ["c", "all"], body=body),
        N("SequenceAt", ["all", "place"], ["d"]),
        N("Add", ["c", "d"], ["b"]),
    ]
    numbers = {"rounds": np.int64(3), "yes": np.bool_(True), "place": np.int64(1)}
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in numbers.items()]
    return network(nodes, [random("again", 4, 4, 3, 3), *constants])


def written_by_runtime(folder: Path) -> dict[str, onnx.ModelProto]:
    """A network of each kind, by name; ``folder`` is written to on the way."""
    nodes = [N("Relu", ["a"], ["r"]), conv("r", "c", "k"), *gelu("c", "g"), N("Add", ["g", "a"], ["b"])]
    return {
        "quantised": quantized(many_operators(), folder),
        "fused": optimized(network(nodes, [random("k", 4, 4, 3, 3), *GELU]), folder),
        "loop": loop(),
    }
