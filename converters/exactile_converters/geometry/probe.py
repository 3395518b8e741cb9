"""Shapes and shape arithmetic of a graph at one concrete input size.

Exported graphs compute sizes at run time (Shape, Gather, Mul, Concat, Resize ...). At a concrete input size all of that
folds to numbers. Two probes of different size then show what grows with the image and how.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TypeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from exactile_converters.geometry.fact import Fact
from exactile_converters.geometry.plain_facts import plain_fact, plain_signature, same_value
from exactile_converters.geometry.runtime_shapes import made_by_runtime
from exactile_converters.geometry.sliding import made_shape

FOLD_LIMIT_ELEMENTS = 1 << 20
"""Larger constants are not computed at conversion: no rule uses so many values."""

FOLD_LIMIT_BYTES = 1 << 27
"""Most bytes of all computed constants together; for later ones, only the shape is known."""

ELEMENTWISE = (
    "Abs Add And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Clip Div Equal Erf Exp Floor "
    "Greater GreaterOrEqual Identity IsInf IsNaN Less LessOrEqual Log Max Mean Min Mod Mul Neg Not Or Pow Reciprocal "
    "Relu Round Sigmoid Sign Sqrt Sub Sum Tanh Where Xor"
).split()

FOLDABLE = {
    *ELEMENTWISE,
    *(
        "Concat CumSum DequantizeLinear Flatten Gather GatherElements GatherND OneHot Pad QuantizeLinear Range "
        "ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Reshape ScatterElements "
        "ScatterND Slice Split Squeeze Tile Transpose Trilu Unsqueeze"
    ).split(),
}
"""Shape arithmetic and arithmetic on weights: operators whose cost is about the size of what they read and write."""

LARGE_CONSTANTS = 32
"""Where larger constants are computed, bytes of all together for each element of the largest."""

UNKNOWN_ELEMENTS = 1 << 62
"""Assumed number of elements of a value of unknown shape."""

SMALL_VALUE_ELEMENTS = 1 << 12
"""Values up to this size are passed to shape inference: sizes, starts, axes, scales, pads."""

LARGEST_RANK = 64


LEARNT = "constants"
"""The key under which a memory holds the constants of its graph and their facts."""

LARGEST_KEY_BYTES = 1 << 12
"""A node that reads a larger computed constant is visited again each time."""

Memory = dict[Hashable, Any]
"""Facts of nodes, by their inputs: at similar sizes, most of a graph is the same. Also holds the evaluators of
nodes."""


class Probe:
    """Facts of every value of ``graph`` for an input of ``input_shape``; failures by node.

    ``others`` are the shapes of further inputs, by name. Without ``visits``, the caller visits nodes one by one. Probes
    of one graph at several sizes may share a ``memory``. Constants of up to ``most_elements`` are computed.
    """

    def __init__(
        self,
        model: ir.Model,
        input_name: str,
        input_shape: tuple[int, ...],
        others: Mapping[str, tuple[int, ...]] | None = None,
        visits: bool = True,
        memory: Memory | None = None,
        most_elements: int = FOLD_LIMIT_ELEMENTS,
    ) -> None:
        self._memory = memory
        self._most_elements = most_elements
        self._constants = set(model.graph.initializers)
        self._opsets = [helper.make_opsetid(domain, version) for domain, version in model.graph.opset_imports.items()]
        self._versions = dict(model.graph.opset_imports)
        self.facts: dict[str, Fact] = {}
        self.failures: dict[ir.Node, str] = {}
        self._left_bytes = max(FOLD_LIMIT_BYTES, LARGE_CONSTANTS * most_elements)
        shapes = {input_name: input_shape, **(others or {})}
        for value in model.graph.inputs:
            if value.name in shapes and value.dtype is not None:
                self.facts[value.name] = Fact(value.dtype.value, shapes[value.name])
        self._learn_all(model.graph.initializers)
        for node in model.graph if visits else ():
            self.visit(node)

    def of(self, value: ir.Value | None) -> Fact | None:
        return self.facts.get(value.name or "") if value is not None else None

    def _learn_all(self, constants: Mapping[str, ir.Value]) -> None:
        """Add all constants of the graph; once for all probes that share a memory."""
        known = self._memory.get(LEARNT) if self._memory is not None else None
        held = tuple(constants.values())
        if known is not None and known[0] == held:
            self.facts.update(known[1])
            return
        for name, value in constants.items():
            self.learn(name, value)
        if self._memory is not None:
            self._memory[LEARNT] = held, {name: self.facts[name] for name in constants if name in self.facts}

    def learn(self, name: str, constant: ir.Value) -> None:
        """Add a constant of the graph. Its bytes are read once for all probes that share a memory."""
        if constant.const_value is None:
            return
        known = self._memory.get(constant) if self._memory is not None else None
        if isinstance(known, dict):
            self.facts[name] = known[name]
            return
        array = constant.const_value.numpy()
        self.facts[name] = Fact(constant.const_value.dtype.value, array.shape, array)
        if self._memory is not None:
            self._memory[constant] = {name: self.facts[name]}

    def visit(self, node: ir.Node) -> None:
        """Find the facts of the results of ``node``; those of its inputs must be known."""
        present = {value.name or "": self.of(value) for value in node.inputs if value is not None}
        inputs = {name: fact for name, fact in present.items() if fact is not None and fact.shape is not None}
        if len(inputs) < len(present):
            return  # behind a failure already recorded
        key = self._key(node, inputs) if self._memory is not None else None
        known = self._memory.get(key) if self._memory is not None and key is not None else None
        if isinstance(known, str):
            self.failures[node] = known
        elif known is not None:
            self.facts.update(known)
        else:
            self._visit(node, inputs)
            if self._memory is not None and key is not None:
                found = {value.name: self.facts[value.name] for value in node.outputs if value.name in self.facts}
                self._memory[key] = self.failures.get(node) or {name: fact for name, fact in found.items() if name}

    def _key(self, node: ir.Node, inputs: Mapping[str, Fact]) -> Hashable | None:
        """Return what determines the results of ``node``; None where that is too large."""
        read: list[Hashable] = [node, self._most_elements]
        for name, fact in inputs.items():
            value = None
            if fact.value is not None and name not in self._constants:
                if fact.value.nbytes > LARGEST_KEY_BYTES:
                    return None
                value = fact.value.tobytes()
            read.append((name, fact.dtype, fact.shape, value))
        return tuple(read)

    def _visit(self, node: ir.Node, inputs: Mapping[str, Fact]) -> None:
        if self._visit_plain(node):
            return
        proto = self._kept(("proto", node), lambda: ir.serde.serialize_node(node))
        try:
            types = self._of_runtime(node)
            if types is None:
                types = self._infer(node, proto, inputs)
                self._place_windows(node, types)
        except (shape_inference.InferenceError, onnx.defs.SchemaError, RuntimeError, ValueError, TypeError) as error:
            self.failures[node] = _first_line(error)
            return
        folded = self._fold(node, proto, inputs, types)
        for output in node.outputs:
            if output.name:
                self.facts[output.name] = folded.get(output.name) or _fact(types.get(output.name))
        self._leave_to_rules(node)

    def _visit_plain(self, node: ir.Node) -> bool:
        """Return whether rules for sizes gave the result of ``node``: they agreed with ONNX before."""
        facts = [self.of(value) for value in node.inputs]
        if self._memory is None or plain_signature(node, facts) not in self._memory:
            return False
        dtype: int = self._memory[plain_signature(node, facts)]
        fact = plain_fact(node, facts, dtype)
        if fact is None:
            return False
        self.facts[node.outputs[0].name or ""] = fact
        return True

    def _leave_to_rules(self, node: ir.Node) -> None:
        """Remember that the rules for sizes agree with the result of ``node``, if they do."""
        facts = [self.of(value) for value in node.inputs]
        made = [self.of(value) for value in node.outputs if value.name]
        found = made[0] if len(made) == 1 else None
        if self._memory is None or found is None or found.shape is None:
            return
        told = plain_fact(node, facts, found.dtype)
        if told is not None and told.shape == found.shape and same_value(told.value, found.value):
            self._memory[plain_signature(node, facts)] = found.dtype

    def _kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return a value that probes with a shared memory compute once."""
        if self._memory is None:
            return make()
        if key not in self._memory:
            self._memory[key] = make()
        return self._memory[key]

    def _of_runtime(self, node: ir.Node) -> dict[str, TypeProto] | None:
        """Return types of the results of an operator unknown to ONNX; None for others."""
        facts = [self.of(value) for value in node.inputs]
        given = [(fact.dtype, fact.shape) if fact is not None and fact.shape is not None else None for fact in facts]
        made = made_by_runtime(node, given, self._versions.get("", 0))
        if made is None:
            return None
        return {
            output.name or "": helper.make_tensor_type_proto(*known)
            for output, known in zip(node.outputs, made, strict=False)
        }

    def _infer(self, node: ir.Node, proto: onnx.NodeProto, inputs: Mapping[str, Fact]) -> dict[str, TypeProto]:
        version = self._versions.get(node.domain or "", 0)
        schema = onnx.defs.get_schema(node.op_type, version, node.domain or "")
        types = {name: helper.make_tensor_type_proto(fact.dtype, fact.shape) for name, fact in inputs.items()}
        data = {
            name: numpy_helper.from_array(np.asarray(fact.value, order="C"), name)
            for name, fact in inputs.items()
            if fact.value is not None and fact.value.size <= SMALL_VALUE_ELEMENTS
        }
        return shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=self._opsets)

    def _place_windows(self, node: ir.Node, types: dict[str, TypeProto]) -> None:
        """Replace the sizes of sliding windows that ONNX's shape inference claims by those of ONNX Runtime."""
        operands = {
            index: fact.shape for index, value in enumerate(node.inputs) if (fact := self.of(value)) is not None
        }
        shape = made_shape(node, operands) or self._unpooled(node)
        for output in node.outputs if shape is not None else ():
            if output.name in types:
                types[output.name] = helper.make_tensor_type_proto(types[output.name].tensor_type.elem_type, shape)

    def _unpooled(self, node: ir.Node) -> tuple[int, ...] | None:
        """Return the output shape that a MaxUnpool has as an input; ONNX's shape inference leaves it open."""
        told = self.of(node.inputs[2]) if node.op_type == "MaxUnpool" and len(node.inputs) > 2 else None
        return None if told is None or told.value is None else tuple(int(size) for size in told.value.ravel())

    def _fold(
        self, node: ir.Node, proto: onnx.NodeProto, inputs: Mapping[str, Fact], types: Mapping[str, TypeProto]
    ) -> dict[str, Fact]:
        names = [output.name or "" for output in node.outputs]
        if node.op_type == "Shape" and not node.domain:
            shape = next(iter(inputs.values())).shape or ()
            start, end = (node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape)))
            value = np.array(shape[start:end], np.int64)
            return {names[0]: Fact(onnx.TensorProto.INT64, value.shape, value)}
        if node.op_type == "Size" and not node.domain:
            size = np.array(math.prod(next(iter(inputs.values())).shape or ()), np.int64)
            return {names[0]: Fact(onnx.TensorProto.INT64, (), size)}
        values = {name: fact.value for name, fact in inputs.items() if fact.value is not None}
        if len(values) < len(inputs) or node.domain not in ("", "ai.onnx"):
            return {}
        try:
            return self._computed(node, proto, values, types)
        except Exception:  # noqa: BLE001 - what the reference cannot compute stays a non-constant, as before
            return {}

    def _computed(
        self, node: ir.Node, proto: onnx.NodeProto, values: Mapping[str, NDArray[Any]], types: Mapping[str, TypeProto]
    ) -> dict[str, Fact]:
        if node.op_type in {"ConstantOfShape", "Expand"}:
            return self._uniform(node)
        if node.op_type in ELEMENTWISE:
            return self._repeated(proto, values, types.get(node.outputs[0].name or ""))
        if node.op_type == "Range":  # shape inference leaves its length open
            first, limit, step = (float(values[name].ravel()[0]) for name in proto.input)
            return self._evaluate(proto, values) if (limit - first) / step <= self._most_elements else {}
        largest = max(_elements(types.get(output.name or "")) for output in node.outputs if output.name)
        return self._evaluate(proto, values) if node.op_type in FOLDABLE and largest <= self._most_elements else {}

    def _uniform(self, node: ir.Node) -> dict[str, Fact]:
        """Evaluate ConstantOfShape and Expand as views that take no memory, however large."""
        values = [self.facts[value.name or ""].value for value in node.inputs if value is not None]
        shape = tuple(int(size) for size in np.asarray(values[-1]).ravel()[:LARGEST_RANK])
        if node.op_type == "ConstantOfShape":
            fill = node.attributes.get("value")
            element = fill.as_tensor().numpy().ravel()[0] if fill is not None else np.float32(0)
            result = np.broadcast_to(element, shape)
        else:
            base = np.asarray(values[0])
            result = np.broadcast_to(base, np.broadcast_shapes(base.shape, shape))
        dtype = int(helper.np_dtype_to_tensor_dtype(result.dtype))
        return {node.outputs[0].name or "": Fact(dtype, result.shape, result)}

    def _repeated(
        self, proto: onnx.NodeProto, inputs: Mapping[str, NDArray[Any]], kind: TypeProto | None
    ) -> dict[str, Fact]:
        """Evaluate an element-wise operator once for all entries that such a view repeats."""
        shape = _fact(kind).shape
        small = {name: without_repeats(value) for name, value in inputs.items()}
        if shape is None or math.prod(np.broadcast_shapes(*(v.shape for v in small.values()))) > self._most_elements:
            return {}
        return {
            name: Fact(fact.dtype, shape, np.broadcast_to(fact.value, shape))
            for name, fact in self._evaluate(proto, small).items()
            if fact.value is not None
        }

    def _evaluate(self, proto: onnx.NodeProto, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Fact]:
        if self._left_bytes <= 0 or any(value.size > self._most_elements for value in inputs.values()):
            return {}
        dtypes = tuple((name, value.dtype) for name, value in inputs.items())
        evaluator = self._kept(("evaluator", *proto.output, dtypes), lambda: self._evaluator(proto, inputs))
        results = [np.asarray(result) for result in evaluator.run(None, dict(inputs))]
        self._left_bytes -= sum(array.nbytes for array in results)
        names = [name for name in proto.output if name]
        return {
            name: Fact(int(helper.np_dtype_to_tensor_dtype(array.dtype)), array.shape, array)
            for name, array in zip(names, results, strict=True)
        }

    def _evaluator(self, proto: onnx.NodeProto, inputs: Mapping[str, NDArray[Any]]) -> ReferenceEvaluator:
        graph = helper.make_graph(
            [proto],
            "fold",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
                for name, value in inputs.items()
            ],
            [helper.make_empty_tensor_value_info(name) for name in proto.output if name],
        )
        return ReferenceEvaluator(helper.make_model(graph, opset_imports=self._opsets))


def not_regrouped(node: ir.Node, probe: Probe) -> str:
    """Return why a Reshape fails where shape inference does not: it changes the number of values; empty where not."""
    if node.op_type != "Reshape" or node.domain not in ("", "ai.onnx"):
        return ""
    shapes = [
        fact.shape if (fact := probe.of(value)) is not None else None for value in (*node.inputs[:1], *node.outputs)
    ]
    before, after = shapes
    if before is None or after is None or math.prod(before) == math.prod(after):
        return ""
    return f"the values of {list(before)} cannot be regrouped as {list(after)}"


def without_repeats(array: NDArray[Any]) -> NDArray[Any]:
    """Return one entry along each dimension in which a broadcast view repeats the same values."""
    return array[tuple(slice(0, 1) if step == 0 else slice(None) for step in array.strides)]


def _fact(kind: TypeProto | None) -> Fact:
    if kind is None or not kind.HasField("tensor_type"):
        return Fact(0, None)
    tensor = kind.tensor_type
    dims = tensor.shape.dim if tensor.HasField("shape") else None
    if dims is None or not all(dim.HasField("dim_value") for dim in dims):
        return Fact(tensor.elem_type, None)
    return Fact(tensor.elem_type, tuple(dim.dim_value for dim in dims))


def _elements(kind: TypeProto | None) -> int:
    shape = _fact(kind).shape
    return math.prod(shape) if shape is not None else UNKNOWN_ELEMENTS


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
