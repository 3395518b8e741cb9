"""Find the nodes of a graph that ONNX Runtime's CUDA provider would leave to the CPU, without a GPU.

Values computed only from constants and sizes do not matter: sizes are fixed where a graph is opened on a GPU, and ONNX
Runtime computes such values once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper, shape_inference

from exactile.contract import DeployedModel
from exactile.machine.architecture import GPU
from exactile_converters.cuda_kernels.doubts import doubt
from exactile_converters.cuda_kernels.table import OWN_DOMAIN, Kernel, kernel_table
from exactile_converters.device.stored import outline

SIZES = frozenset(("Shape", "Size"))
NAMES = {"float32": "float", "float64": "double"}
"""ONNX Runtime's names of types, where they differ from numpy's."""

INLINED = frozenset(("CastLike", "Mish", "Swish"))
"""Operators that ONNX Runtime replaces by others, which have kernels."""

MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingKernel:
    """A node without a kernel, and why."""

    op: str
    node: str
    reason: str


def missing_kernels(model: onnx.ModelProto) -> tuple[MissingKernel, ...]:
    """Return the nodes of ``model`` for which the provider has no kernel, in the graph's order."""
    return tuple(_Check(model).found())


def cuda_note(model: DeployedModel) -> str:
    """Return what ONNX Runtime on a GPU would refuse in a deployed model's graphs, and what runs it; "" if nothing."""
    model = model.on(GPU)
    graphs = [model.graph]
    if model.strips is not None:
        graphs += [strip.graph for strip in model.strips.graphs.values()]
    graphs += [level.on_device.graph for level in model.levels if level.on_device is not None]
    missing = {found.node: found for graph in graphs for found in missing_kernels(onnx.load_from_string(graph))}
    if not missing:
        doubts = filter(None, (doubt(onnx.load_from_string(graph)) for graph in graphs))
        return next(
            (f"ONNX Runtime on a GPU is refused: {said}; --engine tensorrt, or --device cpu" for said in doubts), ""
        )
    count = Counter(f"{found.op} ({found.reason})" if found.reason else found.op for found in missing.values())
    named, more = ", ".join(list(count)[:MOST_NAMED]), len(count) - MOST_NAMED
    return (
        f"the CUDA provider of {kernel_table().library} has no kernel for {named}"
        f"{f' and {more} more operators' if more > 0 else ''}: on a GPU it needs an engine (--engine tensorrt), or "
        "--device cpu"
    )


class _Check:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._opsets = {opset.domain or "": opset.version for opset in model.opset_import}
        graph = model.graph
        inferred = shape_inference.infer_shapes(outline(model), strict_mode=False).graph
        self._types = {
            value.name: _type(value.type.tensor_type.elem_type)
            for value in (*inferred.value_info, *inferred.input, *inferred.output)
        }
        self._types |= {tensor.name: _type(tensor.data_type) for tensor in graph.initializer}
        constants = {tensor.name for tensor in graph.initializer}
        self._live = {value.name for value in graph.input} - constants

    def found(self) -> Iterable[MissingKernel]:
        for node in self._model.graph.node:
            if node.op_type in SIZES or not self._live & set(node.input):
                continue
            self._live |= set(node.output)
            self._learn(node)
            if (reason := self._reason(node)) is not None:
                yield MissingKernel(op=node.op_type, node=node.name or node.output[0], reason=reason)

    def _reason(self, node: onnx.NodeProto) -> str | None:
        """Return why there is no kernel, "" where there is none for the operator at all; None where there is one."""
        kernels = kernel_table().of(node.domain, node.op_type)
        if not kernels:
            return None if node.op_type in INLINED and not node.domain else ""
        since, formals = self._definition(node)
        kernels = tuple(kernel for kernel in kernels if kernel.is_for(since))
        if not kernels:
            return f"of opset {self._opsets.get('', 0)}"
        if not any(self._takes(kernel, node, formals) for kernel in kernels):
            return "of " + ", ".join(dict.fromkeys(filter(None, map(self._known, node.input))))
        return _needs_cpu(node)

    def _definition(self, node: onnx.NodeProto) -> tuple[int, list[list[tuple[str, str]]]]:
        """Return the version that last defined the operator; (constraint, name) of its inputs, and of its outputs."""
        if node.domain == OWN_DOMAIN:
            taken, given = kernel_table().own.get(node.op_type, ((), ()))
            return 1, [[(kind, "") for kind in taken], [(kind, "") for kind in given]]
        version = max(self._opsets.get(domain, 1) for domain in ("", "ai.onnx"))
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, version, ""):
            return 1, [[], []]
        schema = onnx.defs.get_schema(node.op_type, version, "")
        return schema.since_version, [
            [(each.type_str, each.name) for each in parameters] for parameters in (schema.inputs, schema.outputs)
        ]

    def _learn(self, node: onnx.NodeProto) -> None:
        """Infer types of results where ONNX's inference stops: at operators that are not ONNX's."""
        taken, given = self._definition(node)[1]
        known = {
            taken[min(index, len(taken) - 1)][0]: self._known(name)
            for index, name in enumerate(node.input)
            if taken and self._known(name)
        }
        for index, name in enumerate(node.output):
            if name and given and not self._known(name):
                kind = given[min(index, len(given) - 1)][0]
                self._types[name] = known.get(kind, "")

    def _takes(self, kernel: Kernel, node: onnx.NodeProto, formals: Sequence[list[tuple[str, str]]]) -> bool:
        types = []
        for names, parameters in zip((node.input, node.output), formals, strict=True):
            for index, name in enumerate(names):
                if name and parameters:
                    types.append((parameters[min(index, len(parameters) - 1)], self._known(name)))
        return kernel.takes(types)

    def _known(self, name: str) -> str:
        return self._types.get(name, "")


def _needs_cpu(node: onnx.NodeProto) -> str | None:
    """Return what the provider leaves to the CPU although it has a kernel, as its GetCapability does."""
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "ConvTranspose" and not node.domain:
        pads = list(given.get("pads", ()))
        uneven = pads[: len(pads) // 2] != pads[len(pads) // 2 :]
        if uneven or given.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER"):
            return "with other padding on one side"
    if node.op_type in ("ArgMax", "ArgMin") and given.get("select_last_index", 0):
        return "of the last index"
    return None


def _type(kind: int) -> str:
    """Return ONNX Runtime's name of an element type; "" where it is unknown."""
    if not kind:
        return ""
    name = str(onnx.TensorProto.DataType.Name(kind)).lower()
    return NAMES.get(name, name)
