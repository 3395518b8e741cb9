"""Predicted cost of a strip, for choosing what to carry.

Counted in multiply-accumulates of a convolution. A node costs its own for every row it computes, plus what moving its
operands and results through memory costs; a carried map costs a copy to join it to the new rows and one to hand its
last rows on; a map that is cut costs a copy of what remains.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod

import onnx_ir as ir

from exactile_converters.geometry.cost import cost_per_pixel
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import is_spatial
from exactile_converters.strips.demand import Demand, demand, produced_from
from exactile_converters.strips.source import StripSource

MAC_PER_BYTE = 8.0
"""How many multiply-accumulates take as long as reading or writing one byte of a feature map.

Measured (benchmarks/carry_placement.py): 6 to 12 on the machine there; the best placement hardly depends on it.
"""

VIEWS = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Shape"}
REORDERED = 2
"""Copies between the blocked and the plain layout that a cut or joined map takes where kernels use blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _NodeCost:
    """Cost of one row of a node's result, for each image column."""

    node: ir.Node
    result: str
    per_row: float
    scale: float


class StripCosts:
    """Costs of strips of one source, in multiply-accumulates per image column."""

    def __init__(self, source: StripSource) -> None:
        self._source = source
        self._frontiers = source.frontiers
        self._nodes = [self._node_cost(node) for node in source.frontiers.nodes]
        self._scale = {name: float(feature.scale["y"]) for name, feature in source.frontiers.maps().items()}
        self._bytes = {name: _bytes_per_row(feature) for name, feature in source.frontiers.maps().items()}

    def whole(self, rows: int) -> float:
        """A whole pass over ``rows`` image rows."""
        return sum(cost.per_row * cost.scale for cost in self._nodes) * rows

    def strip(self, carry: frozenset[str] | set[str], rows: int) -> float:
        """A body strip of ``rows`` image rows."""
        need = demand(self._frontiers, carry)
        return self._computing(need, rows) + self._copying(need, rows)

    def parts(self, carry: frozenset[str], rows: int) -> tuple[float, float]:
        """What ``strip`` costs beyond ``whole``: the part that grows with the strip, for one row, and the other."""
        low, high = (self.strip(carry, count) - self.whole(count) for count in (rows, 2 * rows))
        growing = (high - low) / rows
        return growing, low - growing * rows

    def _computing(self, need: Demand, rows: int) -> float:
        total = 0.0
        for cost in self._nodes:
            known = self._frontiers.at_reference[cost.result]
            again = known - produced_from(self._frontiers, cost.node, need.recomputed)
            total += cost.per_row * (cost.scale * rows + again)
        return total

    def _copying(self, need: Demand, rows: int) -> float:
        """Copies at the seams: joining, handing on, cutting, and changes of layout."""
        total = 0.0
        for name in need.carried:
            copies = 2.0 * (1 + (REORDERED if name in self._source.blocked else 0))
            length = self._scale[name] * rows + need.carried[name]
            total += self._bytes[name] * MAC_PER_BYTE * (copies * length + 2.0 * need.carried[name])
        for node in self._frontiers.nodes:
            if len(self._frontiers.readings[node]) < 2:
                continue
            start = produced_from(self._frontiers, node, need.recomputed)
            for reading in self._frontiers.readings[node]:
                known = self._frontiers.at_reference[reading.name]
                have = known - need.before(reading.name)
                late = self._frontiers.at_reference[node.outputs[0].name or ""] < known
                if late or have < self._frontiers.first_read(reading, start):
                    copies = 2.0 * (1 + (REORDERED if reading.name in self._source.blocked else 0))
                    length = self._scale[reading.name] * rows
                    total += self._bytes[reading.name] * MAC_PER_BYTE * copies * length
        return total

    def _node_cost(self, node: ir.Node) -> _NodeCost:
        maps = self._frontiers.maps()
        result = next(maps[value.name or ""] for value in node.outputs if value.name in maps)
        macs = cost_per_pixel((node,), maps).mac_per_pixel or 0
        moved = 0.0
        if node.op_type not in VIEWS:
            names = {value.name or "" for value in (*node.inputs, *node.outputs) if value is not None}
            moved = sum(float(_bytes_per_pixel(maps[name])) for name in names if name in maps)
        # Both are counted for each image pixel; a row of the result stands for 1 / scale rows of the image.
        return _NodeCost(
            node=node,
            result=result.name,
            per_row=(float(macs) + moved * MAC_PER_BYTE) / float(result.scale["y"]),
            scale=float(result.scale["y"]),
        )


def _bytes_per_row(feature: FeatureMap) -> float:
    """Bytes of one row of a map, for each image column."""
    return float(_bytes_per_pixel(feature) / feature.scale["y"])


def _bytes_per_pixel(feature: FeatureMap) -> Fraction:
    """Bytes of a map for each image pixel."""
    others = prod(size for size, label in zip(feature.shape, feature.labels, strict=True) if not is_spatial(label))
    return Fraction(others * ir.DataType(feature.dtype).itemsize) * feature.scale["y"] * feature.scale["x"]
