"""Infer the shapes of all that a graph computes, at one image size.

ONNX's shape inference knows most of ONNX's operators. For others, ONNX Runtime infers them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx
import onnx_ir as ir
import onnxruntime as ort

from exactile_converters.geometry.fact import Fact
from exactile_converters.geometry.probe import Probe, not_regrouped
from exactile_converters.geometry.rules.barriers import CONTROL_FLOW
from exactile_converters.one_pass.refusal import OnePassError
from exactile_converters.onnx_files.untrusted import one_line

OWN_DOMAINS = ("", "ai.onnx")
TYPES = {
    f"tensor({name})": int(onnx.TensorProto.DataType.Value(name.upper()))
    for name in "float double float16 bfloat16 bool int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()
}
"""Element types as ONNX Runtime names them."""


SAME_SHAPE = {"GroupNormalization", "MeanVarianceNormalization", "RMSNormalization"}
"""Operators whose result has the shape of their input, which ONNX's shape inference does not infer."""


def shapes_at(model: ir.Model, image: ir.Value, shape: tuple[int, ...], nodes: Sequence[ir.Node]) -> Probe:
    """Return facts of the results of ``nodes``, in order, for an ``image`` of ``shape``, without what is unknown.

    Raises OnePassError where ONNX Runtime is used and does not open the graph.
    """
    probe = Probe(model, image.name or "", shape, visits=False)
    _visit(probe, nodes, {})
    unknown = first_unknown(probe, nodes)
    if unknown is not None and not unknown[1]:
        _visit(probe, nodes, _asked(model, image, probe, nodes))
    return probe


def _visit(probe: Probe, nodes: Sequence[ir.Node], known: Mapping[str, Fact]) -> None:
    """Find the facts of the results of ``nodes``; those not found are taken from ``known``."""
    for node in nodes:
        probe.visit(node)
        source = probe.of(node.inputs[0]) if node.inputs and node.op_type in SAME_SHAPE else None
        for value in _used(node):
            fact = probe.of(value)
            other = known.get(value.name or "", source)
            if other is not None and (fact is None or fact.shape is None):
                probe.facts[value.name or ""] = Fact(other.dtype, other.shape)
                probe.failures.pop(node, None)


def first_unknown(probe: Probe, nodes: Sequence[ir.Node]) -> tuple[ir.Node, str] | None:
    """Return the first node with an unknown result, and the error of shape inference, if any."""
    for node in nodes:
        if node in probe.failures:
            guessed = node.domain not in OWN_DOMAINS or node.op_type in CONTROL_FLOW
            return node, "" if guessed else probe.failures[node]
        for value in _used(node):
            fact = probe.of(value)
            if fact is None or fact.shape is None:
                return node, ""
            if min(fact.shape, default=0) < 0:
                return node, f"it would give {list(fact.shape)}"
        if refused := not_regrouped(node, probe):
            return node, refused
    return None


def node_label(node: ir.Node) -> str:
    """Describe a node."""
    return f"{node.op_type} {(node.name or node.outputs[0].name or '?')!r}"


def _used(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in node.outputs if value.name and (value.uses() or value.is_graph_output()))


def _declared(name: str, fact: Fact) -> onnx.ValueInfoProto:
    known = fact.shape is not None and fact.dtype
    return onnx.helper.make_tensor_value_info(name, fact.dtype, fact.shape) if known else onnx.ValueInfoProto(name=name)


def _asked(model: ir.Model, image: ir.Value, probe: Probe, nodes: Sequence[ir.Node]) -> dict[str, Fact]:
    """Return what ONNX Runtime adds to the facts of ``probe`` about all results of ``nodes``, by name.

    It opens the graph without optimisation, so that it computes nothing, and does not run it.

    Raises OnePassError with its error about the graph.
    """
    proto = ir.to_proto(model)
    wanted = {value.name or "" for node in nodes for value in _used(node)}
    del proto.graph.value_info[:]
    del proto.graph.output[:]
    for name in sorted(wanted):
        fact = probe.facts.get(name)
        proto.graph.output.append(_declared(name, fact) if fact is not None else onnx.ValueInfoProto(name=name))
    for value in proto.graph.input:
        if value.name == image.name:
            value.CopyFrom(_declared(value.name, probe.facts[value.name]))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise OnePassError(f"ONNX Runtime does not open it: {one_line(error)}") from error
    return {
        output.name: Fact(TYPES[output.type], tuple(output.shape))
        for output in session.get_outputs()
        if output.type in TYPES and output.shape and all(isinstance(dim, int) for dim in output.shape)
    }
