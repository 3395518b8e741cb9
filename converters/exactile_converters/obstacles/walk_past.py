"""Walk the graph past obstacles: an obstacle's result is treated as the map that it appears to be.

The first of 18 normalisations would hide the others: its result is unknown, and so is all that follows. Here its axes
are inferred from its size: dimensions that grow like the rows and columns of some map are rows and columns, and what
does not grow is a number for the whole image. Behind an obstacle, only nodes count that read the whole image, or for
which there is no rule, whatever leads to them: a Reshape or Slice that does not fit may be a consequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from exactile_converters.geometry.feature_maps import ImageSizes, Walker
from exactile_converters.geometry.filled_maps import filled_maps
from exactile_converters.geometry.node_view import Label, Labels
from exactile_converters.geometry.obstacle import Obstacle, ObstacleError, obstacle_at
from exactile_converters.geometry.registry import find_rule
from exactile_converters.geometry.rules.barriers import barrier
from exactile_converters.geometry.rules.channels import REDUCTIONS
from exactile_converters.obstacles.lenient_probe import LenientProbe

ASKING = {"Shape", "Size"}
ALONG_AN_AXIS = frozenset(
    (*REDUCTIONS, "CumProd", "CumSum", "LayerNormalization", "LpNormalization", "MeanVarianceNormalization", "TopK")
)
"""Operators that are obstacles along rows or columns, whatever leads to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """Obstacles with their nodes: ``first`` are those that no other one leads to, ``behind`` the others.

    ``after`` are values computed from results of obstacles, by name. ``nodes`` are those visited, and the probes those
    of the walk, at two image sizes.
    """

    nodes: Sequence[ir.Node]
    first: dict[ir.Node, Obstacle]
    behind: dict[ir.Node, Obstacle]
    after: set[str]
    probes: tuple[LenientProbe, LenientProbe]


def walk_past(
    model: ir.Model, image: ir.Value, labels: Labels, channels: int, nodes: Sequence[ir.Node], sizes: ImageSizes
) -> Past:
    """Visit ``nodes``, in topological order, as ``walk_forward`` does."""
    walker = _PastWalker(model, image, labels, channels, sizes, {}, filled_maps(nodes, image))
    for node in nodes:
        walker.visit(node)
    return walker.past(nodes)


class _PastWalker(Walker):
    probe = LenientProbe

    def __init__(self, *walked: Any) -> None:
        super().__init__(*walked)
        self._first: dict[ir.Node, Obstacle] = {}
        self._behind: dict[ir.Node, Obstacle] = {}
        self._from_obstacles: set[str] = set()
        self._of_obstacles: set[str] = set()

    def past(self, nodes: Sequence[ir.Node]) -> Past:
        """Return what was found."""
        probes = self._small, self._large
        assert isinstance(probes[0], LenientProbe)
        assert isinstance(probes[1], LenientProbe)
        return Past(
            nodes=nodes,
            first=self._first,
            behind=self._behind,
            after=self._from_obstacles,
            probes=(probes[0], probes[1]),
        )

    def visit(self, node: ir.Node) -> None:
        names = {value.name for value in node.inputs if value is not None and value.name}
        if names & self._unknown and node.op_type in ASKING:
            self._ask(node)
            return
        if names & self._unknown and not names & self._of_obstacles:
            self._visit_lost(node)
        before = len(self.found.obstacles)
        super().visit(node)
        behind = bool(names & self._from_obstacles)
        for one in self.found.obstacles[before:]:
            if not behind:
                self._first[node] = one
            elif one.statistic or node.op_type in ALONG_AN_AXIS or _stands_alone(node):
                self._behind[node] = one
        made = {value.name for value in node.outputs if value.name}
        if len(self.found.obstacles) > before:
            self._of_obstacles |= made
        if behind or len(self.found.obstacles) > before:
            self._from_obstacles |= made
        for value in node.outputs:
            if value.name in self._unknown:
                self._presume(value)

    def _ask(self, node: ir.Node) -> None:
        """Mark the size of a value that is not known to be a map as one that follows the image's."""
        made = {value.name for value in node.outputs if value.name}
        self._varying |= made
        self._from_obstacles |= made
        self._numbers.visit(node, asks=True)

    def _visit_lost(self, node: ir.Node) -> None:
        """Visit a node whose operand is not known to be a map: an obstacle if it is one for any operand."""
        if _stands_alone(node):
            try:
                self._apply(node)
            except ObstacleError as error:
                self._behind[node] = obstacle_at(node, error)

    def _presume(self, value: ir.Value) -> None:
        name = value.name or ""
        shapes = [probe.sure_shape(value) for probe in (self._small, self._large) if isinstance(probe, LenientProbe)]
        small, large = shapes
        if small is None or large is None or len(small) != len(large):
            return
        if small == large:
            self._unknown.discard(name)
            return
        labels = self._labels_of(list(zip(small, large, strict=True)))
        if labels is None:
            return
        try:
            self._add(value, labels)
        except ObstacleError:
            return
        self._unknown.discard(name)

    def _labels_of(self, sizes: list[tuple[int, int]]) -> Labels | None:
        """Return the inferred axes; None where they are not those of one map."""
        rows = {y for y, _ in self._spaces.values()}
        columns = {x for _, x in self._spaces.values()}
        areas = {(y[0] * x[0], y[1] * x[1]) for y, x in self._spaces.values()}
        found: list[Label] = []
        for dim, size in enumerate(sizes):
            if size[0] == size[1]:
                found.append("n" if dim == 0 and size[0] == 1 else "c")
                continue
            meant = [label for label, known in (("y", rows), ("x", columns), ("yx", areas)) if size in known]
            if len(meant) != 1:
                return None
            found += meant  # type: ignore[arg-type]
        places = sorted(label for label in found if label in ("y", "x", "yx"))
        return tuple(found) if places in (["x", "y"], ["yx"]) else None


def _stands_alone(node: ir.Node) -> bool:
    """Return whether the operator is an obstacle for any operands."""
    rule = find_rule(node.domain, node.op_type)
    return rule is None or rule is barrier
