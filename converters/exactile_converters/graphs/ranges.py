"""Compute the range of every number in a graph, from that of the image's samples: one rule for each operator.

The result of an operator without a rule may have any value of its type.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.graphs.interval import UNKNOWN, Interval, of_array, of_type
from exactile_converters.graphs.node_ranges import NodeRanges, NoRangeError, constant_of, dtype_of
from exactile_converters.graphs.range_rules import RULES, SAME

SUMMED = {"Conv": 1, "ConvTranspose": 1}
"""The operand that rules read only as an array: the range of its many numbers is not computed."""


def find_ranges(
    nodes: list[ir.Node], known: Mapping[str, Interval], features: Mapping[str, FeatureMap]
) -> dict[str, Interval]:
    """Return ranges by name of all that ``nodes``, in order, compute from what is ``known`` by name.

    ``features`` are the traced feature maps, which give types and numbers of channels.
    """
    found = dict(known)

    def of(value: ir.Value | None) -> Interval | None:
        if value is None:
            return None
        name = value.name or ""
        if name not in found:
            array = constant_of(value)
            found[name] = of_array(array) if array is not None else of_type(dtype_of(value, features))
        return found[name]

    for node in nodes:
        unread = SUMMED.get(node.op_type)
        inputs = (of(value) if index != unread else UNKNOWN for index, value in enumerate(node.inputs))
        view = NodeRanges(node, tuple(inputs), features)
        outputs = _outputs(view)
        for index, value in enumerate(node.outputs):
            if value.name in known:
                continue
            dtype = dtype_of(value, features)
            ranges = outputs[index] if index < len(outputs) else None
            found[value.name or ""] = ranges.limited(dtype) if ranges is not None else of_type(dtype)
    return found


def _outputs(view: NodeRanges) -> tuple[Interval | None, ...]:
    node = view.node
    try:
        if node.domain not in ("", "ai.onnx", "com.microsoft"):
            return ()
        if node.op_type in SAME:
            return tuple(view.of(0) for _ in node.outputs)
        rule = RULES.get(node.op_type)
        return (rule(view),) if rule is not None else ()
    except (NoRangeError, ValueError, IndexError, OverflowError, ArithmeticError):
        # A graph that contradicts itself is refused elsewhere; here it has no range.
        return (UNKNOWN,) if dtype_of(node.outputs[0], view.features).kind == "f" else ()
