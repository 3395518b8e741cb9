"""Memory that ONNX Runtime uses within a node in addition to its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import onnx_ir as ir

from exactile_converters.geometry.fact import Fact

OWN_DOMAINS = ("", "ai.onnx")
SINGLE_BYTES = 4


def scratch_bytes(node: ir.Node, facts: Mapping[str, Fact]) -> float | None:
    """Return the most bytes in addition to inputs and results; None where the operator is unknown."""
    if node.domain not in OWN_DOMAINS:
        return None if "attention" in node.op_type.lower() else _results(node, facts)
    rule = _SCRATCH.get(node.op_type)
    return rule(node, facts) if rule is not None else 0.0


def _results(node: ir.Node, facts: Mapping[str, Fact]) -> float:
    return float(sum(_bytes(value, facts) for value in node.outputs))


def _bytes(value: ir.Value | None, facts: Mapping[str, Fact]) -> int:
    fact = facts.get(value.name or "") if value is not None else None
    if fact is None or fact.shape is None:
        return 0
    return prod(fact.shape) * max(1, int(ir.DataType(fact.dtype).itemsize))


def _einsum(node: ir.Node, facts: Mapping[str, Fact]) -> float:
    """Return the bytes of operands and result, transposed."""
    return 2 * (_results(node, facts) + sum(_bytes(value, facts) for value in node.inputs))


def _attention(node: ir.Node, facts: Mapping[str, Fact]) -> float:
    """Return the bytes of scores between all positions, for each head, and of operands by heads."""
    shapes = [facts[value.name or ""].shape or () for value in node.inputs[:2] if value is not None]
    if len(shapes) < 2:
        return 0.0
    query, key = shapes
    heads = query[1] if len(query) == 4 else node.attributes.get_int("q_num_heads", 1)
    scores = query[0] * heads * query[-2] * key[-2] * SINGLE_BYTES
    return scores + 2.0 * sum(_bytes(value, facts) for value in node.inputs)


def _deformed(node: ir.Node, facts: Mapping[str, Fact]) -> float:
    """Return the bytes of the pixels that are summed for each position of the result, side by side."""
    weight = facts[node.inputs[1].name or ""].shape or () if node.inputs[1] is not None else ()
    result = facts[node.outputs[0].name or ""].shape or ()
    return float(prod(weight[1:]) * prod(result[2:]) * SINGLE_BYTES)


def _recurrent(node: ir.Node, facts: Mapping[str, Fact]) -> float:
    """Return the bytes of the gates of all steps."""
    return 8 * (_results(node, facts) + _bytes(node.inputs[0], facts))


def _twice(node: ir.Node, facts: Mapping[str, Fact]) -> float:
    """Return one or two more copies of the map: normalisations without a kernel are expanded into other operators."""
    return 2 * _results(node, facts)


def _three_times(node: ir.Node, facts: Mapping[str, Fact]) -> float:
    return 3 * _results(node, facts)


_SCRATCH: Mapping[str, Callable[[ir.Node, Mapping[str, Fact]], float]] = {
    **dict.fromkeys(("GroupNormalization", "RMSNormalization"), _twice),
    "MeanVarianceNormalization": _three_times,
    "Attention": _attention,
    "DeformConv": _deformed,
    "Einsum": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("DFT", "STFT", "GridSample", "CenterCropPad"), _twice),
}
