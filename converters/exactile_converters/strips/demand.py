"""Compute which rows of each feature map a strip computes, recomputes and carries, for a choice of carried maps."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import onnx_ir as ir

from exactile_converters.strips.frontier import Frontiers


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Rows before the frontier, by feature map.

    ``carried`` rows come from the previous strip; ``recomputed`` rows are computed again. A map has either.
    """

    carried: dict[str, int]
    recomputed: dict[str, int]

    def before(self, name: str) -> int:
        """Return the rows before the frontier that are available while a strip is computed."""
        return max(self.carried.get(name, 0), self.recomputed.get(name, 0))


def demand(frontiers: Frontiers, carry: AbstractSet[str]) -> Demand:
    """Return the rows needed if the maps in ``carry`` are carried; the image, which cannot be recomputed, always is."""
    image = next(iter(frontiers.maps()))
    wanted: dict[str, int] = {}
    carried: dict[str, int] = {}
    recomputed: dict[str, int] = {}

    def settle(name: str) -> None:
        rows = wanted.get(name, 0)
        if rows > 0:
            (carried if name in carry or name == image else recomputed)[name] = rows

    for node in reversed(frontiers.nodes):
        results = [value.name for value in node.outputs if value.name in frontiers.maps()]
        for name in results:
            settle(name or "")
        start = produced_from(frontiers, node, recomputed)
        for reading in frontiers.readings[node]:
            rows = frontiers.at_reference[reading.name] - frontiers.first_read(reading, start)
            wanted[reading.name] = max(wanted.get(reading.name, 0), rows)
    settle(image)
    return Demand(carried=carried, recomputed=recomputed)


def produced_from(frontiers: Frontiers, node: ir.Node, recomputed: dict[str, int]) -> int:
    """Return the first row that a node computes in a strip that begins at the reference height."""
    results = [value.name or "" for value in node.outputs if value.name in frontiers.maps()]
    return min(frontiers.at_reference[name] - recomputed.get(name, 0) for name in results)


def may_carry(frontiers: Frontiers, node: ir.Node, name: str) -> bool:
    """Return whether the rows of a node's result can be carried: it has an axis of rows, and is the only result."""
    results = [value for value in node.outputs if value.name in frontiers.maps()]
    return len(results) == 1 and "y" in frontiers.feature(name).labels
