"""Half precision in a device form, which TensorRT follows exactly: it is strongly typed.

Convolutions and everything between them become float16. These stay float32: the normalisation, from the image to the
first node that is not plain arithmetic (16-bit samples would lose digits), and what follows the last such node, where
it computes the result (softmax, sigmoid). Carried rows have the type of their feature map.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from exactile.errors import ModelError
from exactile_converters.device.stored import outline

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
LARGEST_HALF = float(np.finfo(np.float16).max)

MOVING = frozenset("Transpose Unsqueeze Squeeze Slice Concat Identity".split())
HEAD = MOVING | frozenset("Cast Split Reshape Expand Pad Sub Div Add Mul ReduceSum Floor".split())
TAIL = MOVING | frozenset("Cast ArgMax Greater Softmax LogSoftmax Sigmoid HardSigmoid Exp Mul Sub Round Floor".split())
INDIFFERENT = MOVING | {"ArgMax", "Greater"}
"""Operators of the tail with the same result in half precision, if their input is of half precision."""

FLOAT_OPERANDS = {("Resize", 1), ("Resize", 2), ("Upsample", 1)}
"""Factors and regions, which are float32 in ONNX for any image type."""


def in_half_precision(model: onnx.ModelProto, result: str, carried: AbstractSet[str]) -> onnx.ModelProto:
    """Return a copy of ``model``, of float32 and with fixed or free shapes, in half precision except at its two ends.

    ``result`` is the output that keeps its type, others are carried rows; ``carried`` are the inputs for carried rows.

    Raises ModelError where a weight is beyond half precision's range.
    """
    return _Halving(model, result, carried).apply()


class _Halving:
    def __init__(self, model: onnx.ModelProto, result: str, carried: AbstractSet[str]) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._graph = self._model.graph
        self._result, self._carried = result, carried
        self._types = _types(model)
        self._constants = {tensor.name: tensor for tensor in self._graph.initializer}
        self._halves: dict[str, str] = {}
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def apply(self) -> onnx.ModelProto:
        head = self._head()
        self._tail_nodes = self._tail(head)
        kept_float = {name for index in head | self._tail_nodes for name in self._graph.node[index].output}
        carried = {
            value.name
            for value in self._graph.input
            if value.type.tensor_type.elem_type == FLOAT and value.name not in self._head_values
        }
        self._now_half = {
            name
            for name, kind in self._types.items()
            if kind == FLOAT
            and name not in kept_float
            and name not in self._constants
            and name not in self._head_values
        } | carried
        for index, node in enumerate(self._graph.node):
            in_half = index not in head and index not in self._tail_nodes
            self._convert(node, in_half=in_half)
        self._declare()
        self._graph.ClearField("node")
        self._graph.node.extend(self._nodes)
        return self._model

    def _head(self) -> set[int]:
        """Return the nodes that normalise the image: plain arithmetic on it and on constants."""
        values = {
            value.name
            for value in self._graph.input
            if value.type.tensor_type.elem_type != FLOAT or value.name not in self._carried
        }
        free = {value.name for value in self._graph.input} - values
        found = set()
        for index, node in enumerate(self._graph.node):
            read = [name for name in node.input if name and name not in self._constants]
            reached = [name for name in read if name in values]
            joined = node.op_type == "Concat" and reached and all(name in values | free for name in read)
            if node.op_type in HEAD and reached and (len(reached) == len(read) or joined):
                found.add(index)
                values |= {*node.output, *read}
        self._head_values = values
        return found

    def _tail(self, head: set[int]) -> set[int]:
        """Return the nodes that make labels or maps from the network's result, where half precision has an effect."""
        readers: dict[str, list[int]] = {}
        for index, node in enumerate(self._graph.node):
            for name in node.input:
                readers.setdefault(name, []).append(index)
        handed_on = {value.name for value in self._graph.output if value.name != self._result}
        found: set[int] = set()
        for index in range(len(self._graph.node) - 1, -1, -1):
            node = self._graph.node[index]
            used = [reader for name in node.output for reader in readers.get(name, ())]
            last = self._result in node.output or (used and all(reader in found for reader in used))
            if index not in head and node.op_type in TAIL and last and not handed_on & set(node.output):
                found.add(index)
        made_in_tail = {name for index in found for name in self._graph.node[index].output}
        for index in sorted(found):
            node = self._graph.node[index]
            if node.op_type in INDIFFERENT and not made_in_tail & set(node.input) and self._reads_float(node):
                found.discard(index)
                made_in_tail -= set(node.output)
        return found

    def _reads_float(self, node: onnx.NodeProto) -> bool:
        return self._types.get(node.input[0]) == FLOAT

    def _convert(self, node: onnx.NodeProto, *, in_half: bool) -> None:
        for index, name in enumerate(node.input):
            if not name or (node.op_type, index) in FLOAT_OPERANDS:
                continue
            if name in self._constants:
                if in_half and self._constants[name].data_type == FLOAT:
                    node.input[index] = self._half(name)
            elif in_half and self._types.get(name) == FLOAT and name not in self._now_half:
                node.input[index] = self._cast(name, HALF)
            elif not in_half and name in self._now_half and node.op_type != "Shape":
                node.input[index] = self._cast(name, FLOAT)
        if in_half:
            self._convert_attributes(node)
        self._nodes.append(node)

    def _convert_attributes(self, node: onnx.NodeProto) -> None:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = HALF
            elif attribute.HasField("t") and attribute.t.data_type == FLOAT:
                array = numpy_helper.to_array(attribute.t)
                attribute.t.CopyFrom(numpy_helper.from_array(array.astype(np.float16), attribute.t.name))

    def _half(self, name: str) -> str:
        """Return a constant in half precision."""
        if name not in self._halves:
            array = numpy_helper.to_array(self._constants[name])
            largest = float(np.abs(array).max(initial=0))
            if not largest <= LARGEST_HALF:
                raise ModelError(
                    f"the weight {name} holds values up to {largest:.3g}, half precision ends at {LARGEST_HALF:g}; "
                    "build the engine in fp32"
                )
            self._halves[name] = half = f"{name}_half"
            self._graph.initializer.append(numpy_helper.from_array(array.astype(np.float16), half))
        return self._halves[name]

    def _cast(self, name: str, to: int) -> str:
        if (name, to) not in self._casts:
            self._casts[name, to] = cast = f"{name}_{'half' if to == HALF else 'float'}"
            self._nodes.append(helper.make_node("Cast", [name], [cast], name=f"{cast}_node", to=to))
        return self._casts[name, to]

    def _declare(self) -> None:
        """Declare carried rows with their new type; cast the result back to its old one."""
        for value in (*self._graph.input, *self._graph.output):
            if value.name in self._now_half and value.name != self._result:
                value.type.tensor_type.elem_type = HALF
        if self._result in self._now_half:
            inside = f"{self._result}_half"
            for node in self._nodes:
                for names in (node.input, node.output):
                    for index, name in enumerate(names):
                        if name == self._result:
                            names[index] = inside
            self._nodes.append(helper.make_node("Cast", [inside], [self._result], to=FLOAT))
        del self._graph.value_info[:]


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every value."""
    inferred = shape_inference.infer_shapes(outline(model), strict_mode=False)
    graph = inferred.graph
    found = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}
