"""Predict the cost of a strip, to choose what to carry.

Costs are in multiply-accumulates of a convolution, for each image column. A node costs what it computes, for every row
that it computes; memory-bound operators cost the bytes they move. A map costs the copies that strips (and changes of
layout, which a whole pass has, too) make of it::

    carried rows | new rows          joined: one copy of both; the last rows passed on: one copy of them
                 |==========|        a reader that needs only new rows takes them without a copy
            |===============|        a reader that needs less than everything takes a copy of its part
            |==========|             and so does one that waits for another map: a skip connection

Copies are in plain layout, so a map whose kernels pass it on in blocks of channels is also copied out of its blocks,
and each part into them again where a kernel reads blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import onnx_ir as ir

from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.reach import Same
from exactile_converters.graphs.computing import (
    COPY,
    MAC_PER_BYTE,
    bytes_per_pixel,
    in_one_kernel,
    node_mac,
    result_of,
)
from exactile_converters.graphs.kernels import BLOCK_CHANNELS
from exactile_converters.strips.demand import demand, produced_from
from exactile_converters.strips.frontier import Reading
from exactile_converters.strips.source import StripSource


@dataclass(frozen=True, slots=True, kw_only=True)
class _MapCost:
    """What determines the copies of one map, whatever is carried.

    ``late`` are, for each reader, the rows at the end of the map that it leaves for the next strip; None where a reader
    takes all. ``in_blocks`` says which readers want blocks.
    """

    row_cost: float
    scale: float
    blocked: bool
    late: tuple[int, ...]
    in_blocks: tuple[bool, ...]

    def copies(self, carried: int, before: Sequence[int], most: int, rows: float) -> float:
        """Return the cost for ``rows`` new rows.

        ``before`` are the rows before them with which each reader starts, ``most`` the rows before them in memory.
        """
        parts: dict[tuple[int, int], bool] = {}
        for first, late, in_blocks in zip(before, self.late, self.in_blocks, strict=True):
            parts[first, late] = parts.get((first, late), False) or in_blocks
        made = (0 if carried else most, 0)
        plain = carried > 0 or not all(self.in_blocks) or any(part != made for part in parts)
        copied = made[0] + rows if plain and self.blocked else 0.0
        if carried:
            copied += carried + rows + carried
        for part, in_blocks in parts.items():
            length = rows + part[0] - part[1]
            uncut = part in (made, (most, 0))
            copied += 0.0 if uncut else length
            copied += length if in_blocks and (part != made or not self.blocked) else 0.0
        return copied * self.row_cost


class StripCosts:
    """Costs of strips of one source, in multiply-accumulates per image column."""

    def __init__(self, source: StripSource) -> None:
        self._frontiers = source.frontiers
        maps = source.frontiers.maps()
        self.readers: dict[str, list[tuple[ir.Node, Reading]]] = {name: [] for name in maps}
        for node in source.frontiers.nodes:
            for reading in source.frontiers.readings[node]:
                self.readers[reading.name].append((node, reading))
        makers = {value.name or "": node for node in source.frontiers.nodes for value in node.outputs}
        self._scale = {node: float(result_of(node, maps).scale["y"]) for node in source.frontiers.nodes}
        self._per_row = {node: self._node_cost(node, maps, makers) for node in source.frontiers.nodes}
        self._maps = {name: self._map_cost(source, name) for name in maps}

    def whole(self, rows: int) -> float:
        """Return the cost of a whole pass over ``rows`` image rows."""
        total = sum(self.computing(node, 0, rows) for node in self._frontiers.nodes)
        for cost in self._maps.values():
            uncut = _MapCost(
                row_cost=cost.row_cost,
                scale=cost.scale,
                blocked=cost.blocked,
                late=(0,) * len(cost.late),
                in_blocks=cost.in_blocks,
            )
            total += uncut.copies(0, (0,) * len(cost.late), 0, cost.scale * rows)
        return total

    def strip(self, carry: AbstractSet[str], rows: int) -> float:
        """Return the cost of a body strip of ``rows`` image rows if the maps in ``carry`` and the image are carried."""
        need, frontiers = demand(self._frontiers, carry), self._frontiers
        again = {
            node: frontiers.at_reference[result_of(node, frontiers.maps()).name]
            - produced_from(frontiers, node, need.recomputed)
            for node in frontiers.nodes
        }
        total = sum(self.computing(node, again[node], rows) for node in frontiers.nodes)
        for name, readers in self.readers.items():
            before = [self.rows_before(reading, node, again[node]) for node, reading in readers]
            total += self.copying(name, need.carried.get(name, 0), before, need.before(name), rows)
        return total

    def parts(self, carry: AbstractSet[str], rows: int) -> tuple[float, float]:
        """Return what ``strip`` costs beyond ``whole``: the part for each row of the strip, and the constant part."""
        low, high = (self.strip(carry, count) - self.whole(count) for count in (rows, 2 * rows))
        growing = (high - low) / rows
        return growing, low - growing * rows

    def computing(self, node: ir.Node, again: int, rows: int) -> float:
        """Return the cost of a node that recomputes ``again`` rows of its result."""
        return self._per_row[node] * (self._scale[node] * rows + again)

    def copying(self, name: str, carried: int, before: Sequence[int], most: int, rows: int) -> float:
        """Return the cost of copies of a map whose readers start ``before`` rows above the new ones."""
        cost = self._maps[name]
        return cost.copies(carried, before, most, cost.scale * rows)

    def rows_before(self, reading: Reading, node: ir.Node, again: int) -> int:
        """Return the rows above the new ones that a node reads which recomputes ``again`` rows of its result."""
        known = self._frontiers.at_reference
        start = known[result_of(node, self._frontiers.maps()).name] - again
        return known[reading.name] - self._frontiers.first_read(reading, start)

    def _map_cost(self, source: StripSource, name: str) -> _MapCost:
        feature, known = self._frontiers.feature(name), self._frontiers.at_reference
        late = [
            known[name] - known[result_of(node, self._frontiers.maps()).name] if isinstance(reading.reach, Same) else 0
            for node, reading in self.readers[name]
        ]
        return _MapCost(
            row_cost=float(bytes_per_pixel(feature) / feature.scale["y"]) * COPY * MAC_PER_BYTE,
            scale=float(feature.scale["y"]),
            blocked=source.blocked.get(name) == BLOCK_CHANNELS,
            late=tuple(max(0, rows) for rows in late),
            in_blocks=tuple(_reads_blocks(source, node) for node, _reading in self.readers[name]),
        )

    def _node_cost(self, node: ir.Node, maps: Mapping[str, FeatureMap], makers: Mapping[str, ir.Node]) -> float:
        """Return the cost for one row of the result, which stands for 1 / scale rows of the image."""
        if self._in_one_kernel(node, makers):
            return 0.0
        return node_mac(node, maps) / float(result_of(node, maps).scale["y"])

    def _in_one_kernel(self, node: ir.Node, makers: Mapping[str, ir.Node]) -> bool:
        """Return whether the kernel of the previous node computes this one, too."""
        source = node.inputs[0].name or "" if node.inputs and node.inputs[0] is not None else ""
        return len(self.readers.get(source, ())) == 1 and in_one_kernel(node, makers.get(source))


def _reads_blocks(source: StripSource, node: ir.Node) -> bool:
    """Return whether a node's kernel reads blocks; convolutions of few channels read plain and write blocks."""
    if source.blocked.get(result_of(node, source.frontiers.maps()).name) != BLOCK_CHANNELS:
        return False
    weight = node.inputs[1].const_value if node.op_type == "Conv" and node.inputs[1] is not None else None
    if weight is None:
        return True
    return int(str(weight.shape[1])) >= BLOCK_CHANNELS or node.attributes.get_int("group", 1) > 1
