"""Choose the set of maps whose carrying makes a strip cheapest.

Carrying a map costs copies in every strip; not carrying it costs recomputing its last rows, and with them rows of
everything before it. The cheapest choice lies between carrying everywhere and nowhere (the tile plan). The search
switches single maps, and pairs of neighbours, as long as that helps, from several starts.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import pairwise

import onnx_ir as ir

from exactile_converters.geometry.reach import Same
from exactile_converters.strips.candidates import candidates
from exactile_converters.strips.cost import StripCosts
from exactile_converters.strips.source import StripSource

MOST_ROUNDS = 12


def place(source: StripSource, *, strip_rows: int) -> frozenset[str]:
    """Return the names of the maps to carry in strips of ``strip_rows`` image rows. The image is always carried.

    The result is the same for all widths, to which every cost is proportional.
    """
    costs = StripCosts(source)
    names = candidates(source.frontiers)
    moves = [(name,) for name in names]
    pairs = [*moves, *pairwise(names), *_side_by_side(source, names)]
    found = []
    for start in (set[str](), set(names), _waits(source, names), _pooled(source, names)):
        carrying = Carrying(source, costs, strip_rows)
        carrying.switch(sorted(start))
        _descend(carrying, moves)
        found.append(carrying)
    best = min(found, key=lambda carrying: carrying.cost)
    _descend(best, pairs)
    return frozenset(best.carry)


class Carrying:
    """A set of carried maps, and the cost of a body strip with it, updated as maps are switched.

    Switching a map changes what is computed of the maps before it, up to the next carried ones: only these are updated.
    Switching back restores everything.
    """

    def __init__(self, source: StripSource, costs: StripCosts, rows: int) -> None:
        self.carry: set[str] = set()
        self._frontiers, self._costs, self._rows = source.frontiers, costs, rows
        self._image = next(iter(source.frontiers.maps()))
        nodes = source.frontiers.nodes
        self._position = {node: index for index, node in enumerate(nodes)}
        self._maker = {value.name or "": node for node in nodes for value in node.outputs}
        self._results = {
            node: [value.name or "" for value in node.outputs if value.name in source.frontiers.maps()]
            for node in nodes
        }
        self._slots: dict[ir.Node, list[tuple[str, int]]] = {node: [] for node in nodes}
        for name, readers in costs.readers.items():
            for slot, (node, _reading) in enumerate(readers):
                self._slots[node].append((name, slot))
        self._again = dict.fromkeys(nodes, -1)
        self._before = {name: [0] * len(readers) for name, readers in costs.readers.items()}
        self._wanted = dict.fromkeys(costs.readers, 0)
        self._computing = dict.fromkeys(nodes, 0.0)
        self._copying = dict.fromkeys(costs.readers, 0.0)
        self._known: dict[tuple[str, int, int], int] = {}
        self._update(nodes, set(costs.readers))

    @property
    def cost(self) -> float:
        return sum(self._computing.values()) + sum(self._copying.values())

    def switch(self, names: Sequence[str]) -> None:
        """Carry those of ``names`` that are not carried, and stop carrying those that are."""
        self.carry.symmetric_difference_update(names)
        self._update([self._maker[name] for name in names], set(names))

    def _update(self, nodes: Sequence[ir.Node], changed: set[str]) -> None:
        """Update upwards from ``nodes``: what each recomputes, what it therefore reads, and the costs of both."""
        waiting = sorted({-self._position[node] for node in nodes})
        queued = set(waiting)
        while waiting:
            node = self._frontiers.nodes[-heapq.heappop(waiting)]
            again = max(0 if self._is_carried(name) else self._wanted[name] for name in self._results[node])
            if again == self._again[node]:
                continue
            self._again[node] = again
            self._computing[node] = self._costs.computing(node, again, self._rows)
            for name, slot in self._slots[node]:
                before = self._rows_before(name, slot, again)
                if before == self._before[name][slot]:
                    continue
                self._before[name][slot] = before
                self._wanted[name] = max(0, *self._before[name])
                changed.add(name)
                maker = self._maker.get(name)
                if maker is not None and -self._position[maker] not in queued:
                    queued.add(-self._position[maker])
                    heapq.heappush(waiting, -self._position[maker])
        for name in changed:
            wanted = self._wanted[name]
            carried = wanted if self._is_carried(name) else 0
            self._copying[name] = self._costs.copying(name, carried, self._before[name], wanted, self._rows)

    def _is_carried(self, name: str) -> bool:
        return name in self.carry or name == self._image

    def _rows_before(self, name: str, slot: int, again: int) -> int:
        key = name, slot, again
        if key not in self._known:
            node, reading = self._costs.readers[name][slot]
            self._known[key] = self._costs.rows_before(reading, node, again)
        return self._known[key]


def _descend(carrying: Carrying, moves: Sequence[tuple[str, ...]]) -> None:
    """Switch maps, in the order of the graph and back, while that makes the strip cheaper."""
    best = carrying.cost
    for turn in range(MOST_ROUNDS):
        before = best
        for move in reversed(moves) if turn % 2 else moves:
            carrying.switch(move)
            cost = carrying.cost
            if cost < best * (1 - 1e-12):  # rounding of the sum is not a gain
                best = cost
            else:
                carrying.switch(move)
        if best == before:
            break


def _waits(source: StripSource, names: Sequence[str]) -> set[str]:
    """Return the maps that wait for others where branches meet: the skip connections."""
    frontiers = source.frontiers
    found = set()
    for node in frontiers.nodes:
        readings = frontiers.readings[node]
        if len(readings) > 1:
            last = max(frontiers.lag[reading.name] / frontiers.scale(reading.name) for reading in readings)
            found |= {
                reading.name
                for reading in readings
                if isinstance(reading.reach, Same)
                and frontiers.lag[reading.name] / frontiers.scale(reading.name) < last
            }
    return found & set(names)


def _pooled(source: StripSource, names: Sequence[str]) -> set[str]:
    """Return the maps with fewer rows than the image: cheap to copy, and without carrying much is recomputed."""
    image = source.image.name or ""
    return {name for name in names if source.frontiers.scale(name) < source.frontiers.scale(image)}


def _side_by_side(source: StripSource, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the maps that meet in one node: carrying only one of them rarely pays off."""
    chosen, found = set(names), list[tuple[str, ...]]()
    for node in source.frontiers.nodes:
        together = sorted({reading.name for reading in source.frontiers.readings[node]} & chosen)
        found += list(pairwise(together))
    return found
