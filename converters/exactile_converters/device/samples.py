"""Integer samples and labels in a device form: bytes at both ends of the graph, floating point in between.

TensorRT reads and writes uint8 at the ends of a graph, has no 16-bit unsigned type, and computes in neither. So uint8
and uint16 in the bundle's graph are float32 in the device form, where all of their values are exact:

- an input of uint8 is cast; one of uint16 arrives as pairs of bytes, low byte first, one more axis: ``lo + 256 * hi``;
- samples that are moved, cut or joined are moved, cut or joined as float32;
- an output of uint8 is cast at the end; one of uint16 is split into pairs of bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exactile.errors import ModelError

NARROW = {TensorProto.UINT8, TensorProto.UINT16}

MOVES = frozenset(
    "Transpose Unsqueeze Squeeze Reshape Flatten Slice Split Concat Identity Pad Expand Tile Gather "
    "DepthToSpace SpaceToDepth MaxPool".split()
)
"""Operators that do not change values, and that are the same for every type."""

WHOLE = frozenset(("Round", "Floor", "Ceil", "ArgMax", "ArgMin", "Greater", "Less", "Equal"))
"""Operators whose results have no fraction that a cast to integers would truncate."""


def bytes_at_both_ends(model: onnx.ModelProto) -> None:
    """Rewrite ``model`` in place; it has fixed or free shapes, and no subgraphs that hold samples.

    Raises ModelError naming a node that computes in uint8 or uint16.
    """
    _Lifting(model).apply()


class _Lifting:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._nodes: list[onnx.NodeProto] = []
        self._lifted: dict[str, int] = {}
        """Values that were integers of 8 or 16 bits, and their type then."""
        self._renamed: dict[str, str] = {}
        self._made_by: dict[str, str] = {}
        self._count = 0

    def apply(self) -> None:
        for value in self._graph.input:
            if _type(value) in NARROW:
                self._take(value)
        for tensor in self._graph.initializer:
            if tensor.data_type in NARROW:
                self._lifted[tensor.name] = tensor.data_type
        for node in self._graph.node:
            self._lift(node)
        constants = [tensor for tensor in self._graph.initializer if tensor.data_type in NARROW]
        for tensor in constants:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
        for value in self._graph.output:
            if value.name in self._lifted:
                self._give(value)
        del self._graph.value_info[:]
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _take(self, value: onnx.ValueInfoProto) -> None:
        """Declare an input as bytes, and convert it to float32."""
        kind = _type(value)
        tensor = value.type.tensor_type
        tensor.elem_type = TensorProto.UINT8
        inside = self._add("Cast", [value.name], to=TensorProto.FLOAT)
        if kind == TensorProto.UINT16:
            tensor.shape.dim.add().dim_value = 2
            weighted = self._add("Mul", [inside, self._constant(np.array([1, 256], np.float32))])
            inside = self._add("ReduceSum", [weighted, self._constant(np.array([-1], np.int64))], keepdims=0)
        self._renamed[value.name] = inside
        self._lifted[inside] = kind

    def _give(self, value: onnx.ValueInfoProto) -> None:
        """Declare an output as bytes, converted from float32."""
        kind, tensor = self._lifted[value.name], value.type.tensor_type
        inside = f"{value.name}_inside"
        for node in self._nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == value.name:
                        names[index] = inside
        if kind == TensorProto.UINT16:
            tensor.shape.dim.add().dim_value = 2
            share = self._constant(np.array(1 / 256, np.float32))
            high = self._add("Floor", [self._add("Mul", [inside, share])])
            low = self._add("Sub", [inside, self._add("Mul", [high, self._constant(np.array(256, np.float32))])])
            last = self._constant(np.array([-1], np.int64))
            inside = self._add("Concat", [self._add("Unsqueeze", [part, last]) for part in (low, high)], axis=-1)
        tensor.elem_type = TensorProto.UINT8
        self._nodes.append(helper.make_node("Cast", [inside], [value.name], to=TensorProto.UINT8))

    def _lift(self, node: onnx.NodeProto) -> None:
        for index, name in enumerate(node.input):
            node.input[index] = self._renamed.get(name, name)
        narrow = [name for name in node.input if name in self._lifted]
        if node.op_type == "Cast":
            self._cast(node)
        elif not narrow or node.op_type == "Shape":
            self._nodes.append(node)
        elif node.op_type in MOVES and self._lifted.get(node.input[0]) and len(node.output) >= 1:
            self._nodes.append(node)
            self._lifted[node.output[0]] = self._lifted[node.input[0]]
            if node.op_type == "Split":
                self._lifted.update(dict.fromkeys(node.output, self._lifted[node.input[0]]))
        else:
            kind = TensorProto.DataType.Name(self._lifted[narrow[0]]).lower()
            raise ModelError(
                f"TensorRT computes nothing in {kind}, and the node {node.name or node.output[0]} ({node.op_type}) "
                "does; convert the model in fp32 or fp16, or export it with this part in floating point"
            )
        self._made_by[node.output[0]] = node.op_type

    def _cast(self, node: onnx.NodeProto) -> None:
        """Replace casts to narrow integers by float32 without a fraction; casts of float32 become nothing."""
        to = next(attribute.i for attribute in node.attribute if attribute.name == "to")
        source = node.input[0]
        before = self._lifted.get(source)
        if to in NARROW:
            self._lifted[node.output[0]] = to
            if before == TensorProto.UINT16 and to == TensorProto.UINT8:
                raise ModelError(f"the node {node.name or node.output[0]} casts uint16 to uint8, which TensorRT cannot")
            if before is not None:
                self._nodes.append(helper.make_node("Identity", [source], node.output, name=node.name))
            elif self._made_by.get(source) in WHOLE:
                self._nodes.append(
                    helper.make_node("Cast", [source], node.output, name=node.name, to=TensorProto.FLOAT)
                )
            else:
                cast = self._add("Cast", [source], to=TensorProto.FLOAT)
                self._nodes.append(helper.make_node("Floor", [cast], node.output, name=node.name))
        elif before is not None and to == TensorProto.FLOAT:
            self._nodes.append(helper.make_node("Identity", [source], node.output, name=node.name))
        else:
            self._nodes.append(node)

    def _put(self, op: str, source: str, node: onnx.NodeProto, **attributes: Any) -> None:
        """Add a node in place of ``node``."""
        self._nodes.append(helper.make_node(op, [source], node.output, name=node.name, **attributes))

    def _add(self, op: str, inputs: list[str], **attributes: Any) -> str:
        self._count += 1
        name = f"exactile_bytes_{self._count}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=f"{name}_{op}", **attributes))
        return name

    def _constant(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        self._count += 1
        name = f"exactile_bytes_{self._count}"
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name


def _type(value: onnx.ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)
