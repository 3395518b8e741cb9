"""The rows of maps that are computed from the image's size: coordinates, and numbers that follow the size."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import onnx
import onnx_ir as ir

from exactile.contract import POSITION
from exactile_converters.geometry.position_maps import Growth
from exactile_converters.placed.lines import MapLine
from exactile_converters.placed.pieces import Pieces
from exactile_converters.strips.refusal import StripError
from exactile_converters.strips.work import Rewriter, Work


def position_operands(work: Work, at: Rewriter) -> tuple[int, ...]:
    """Return the operands of a node that are computed from the image's size."""
    positions = at.told.positions
    return positions.operands.get(work.node.outputs[0].name or "", ()) if positions is not None else ()


def piece(name: str, work: Work, at: Rewriter) -> str:
    """Return the part of ``name`` that belongs to the rows of ``work``."""
    positions = at.told.positions
    assert positions is not None
    lines = [size for size in positions.sizes_of(work.result.name) if not isinstance(size, int)]
    pieces = Pieces(
        arithmetic=at.arithmetic,
        positions=positions,
        makers=at.makers,
        extent=_OfRows(work, at, {axis: line for size in lines for axis, line in size.items()}),
        constant=lambda one: _constant(one, at),
        opset=at.opset,
        whole=at.wholes,
    )
    return pieces.of(name)


def _constant(name: str, at: Rewriter) -> str:
    if name in at.constants:
        at.build.constants[name] = at.constants[name]
        return name
    if name in at.found:
        return at.parameter(ir.Value(name=name))
    fact = at.probe.facts.get(name)
    if fact is None or fact.value is None:
        raise StripError(f"{name} has no known value")
    return at.build.constant(fact.value)


@dataclass(frozen=True, slots=True)
class _OfRows:
    """Implements ``Extent``: the rows of ``work``, and all columns of the band."""

    work: Work
    at: Rewriter
    lines: dict[str, MapLine]

    def first(self, axis: str, scale: Fraction) -> str:
        sizes = self.at.arithmetic
        self._check(axis, scale)
        if axis == "x":
            return sizes.scaled(sizes.entry(POSITION, 2), scale)
        return sizes.plus(sizes.scaled(sizes.entry(POSITION, 0), scale), self.work.start - int(self._above * scale))

    def count(self, _node: onnx.NodeProto, growth: Growth, dim: int) -> str:
        axis, scale = growth.axes[dim]
        sizes, work, at = self.at.arithmetic, self.work, self.at
        self._check(axis, scale)
        if axis == "x":
            return sizes.size(sizes.length(at.image, 1), self.lines["x"])
        rows = sizes.length(at.image, 0)
        if at.role == "last":
            return sizes.plus(sizes.size(rows, self.lines["y"]), int(self._above * scale) - work.start)
        more = work.stop - work.start - int(at.frontiers.reference * scale)
        return sizes.plus(sizes.scaled(rows, scale), more)

    def shape(self, node: onnx.NodeProto, growth: Growth) -> str:
        fact = self.at.probe.facts.get(node.output[0])
        if fact is None or fact.shape is None:
            raise StripError(f"the shape of {node.output[0]} is not known")
        entries = [
            self.count(node, growth, dim) if dim in growth.axes else self.at.arithmetic.number(size)
            for dim, size in enumerate(fact.shape)
        ]
        return self.at.build.add("Concat", entries, axis=0)

    @property
    def _above(self) -> int:
        return 0 if self.at.role == "first" else self.at.frontiers.reference

    def _check(self, axis: str, scale: Fraction) -> None:
        if axis not in self.lines or scale != self.lines[axis].scale:
            raise StripError("it counts positions of another map than it uses them for")
