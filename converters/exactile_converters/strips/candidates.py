"""Find the feature maps that are worth carrying, and that may be carried.

Carrying right before an operator with a kernel is always as good as carrying earlier, before pixelwise operators.
Between operators that ONNX Runtime computes in one kernel (a convolution with the normalisation, sum or activation
after it) nothing may be carried: computed separately, they round differently.
"""

from __future__ import annotations

import onnx_ir as ir

from exactile_converters.geometry.reach import Same
from exactile_converters.strips.demand import may_carry
from exactile_converters.strips.frontier import Frontiers

COMPUTES_WITH_NEXT = {"Conv", "ConvTranspose"}


def candidates(frontiers: Frontiers) -> list[str]:
    """Return the names of maps, in the order of the graph."""
    readers: dict[str, list[ir.Node]] = {}
    for node in frontiers.nodes:
        for reading in frontiers.readings[node]:
            readers.setdefault(reading.name, []).append(node)
    return [
        value.name or ""
        for node in frontiers.nodes
        for value in node.outputs
        if value.name in frontiers.maps()
        and may_carry(frontiers, node, value.name or "")
        and _worth_it(frontiers, node, value.name or "", readers.get(value.name or "", []))
    ]


def _worth_it(frontiers: Frontiers, node: ir.Node, name: str, readers: list[ir.Node]) -> bool:
    if not any(_cuts_or_joins(frontiers, reader, name) for reader in readers):
        return False
    only = readers[0] if len(readers) == 1 else None
    pixelwise = only is not None and all(isinstance(reading.reach, Same) for reading in frontiers.readings[only])
    fused = node.op_type in COMPUTES_WITH_NEXT and pixelwise and only is not None and only.op_type != "Concat"
    return not fused


def _cuts_or_joins(frontiers: Frontiers, reader: ir.Node, name: str) -> bool:
    readings = frontiers.readings[reader]
    return len(readings) > 1 or any(
        reading.name == name and not isinstance(reading.reach, Same) for reading in readings
    )
