"""A Resize or an Upsample on a piece of its operand: taps and weights from the position, then gathers and sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto, helper

from exactile_converters.placed.formula import Formula
from exactile_converters.placed.place import Nodes, Place
from exactile_converters.placed.positions import Positions, positions
from exactile_converters.placed.resampling import Resampling
from exactile_converters.placed.taps import Tap, cubic, linear, nearest
from exactile_converters.placed.windows import Windows, windows

REAL_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)


def placed_resize(
    nodes: Nodes,
    operand: str,
    rank: int,
    places: Sequence[Place],
    how: Resampling,
    *,
    element_type: int = TensorProto.FLOAT,
) -> str:
    """Add nodes that compute a piece of the result of a Resize; return the name of the piece.

    ``operand`` is a tensor of ``rank`` dimensions that holds a part of the whole operand. Only the axes in ``places``
    are resized. The part must contain everything that the piece reads: taps outside of it are moved to its ends. Taps
    outside of the whole operand are treated as by ONNX Runtime, and positions and weights are computed in float32 in
    its order: nearest picks the pixels that its Resize picks from the whole map, the weights of linear and cubic are
    the same to the last bit, and no value depends on how the result is cut into pieces.

    Axes are resized one after the other, the last first. Nearest takes any element type. Others take float32, or
    float16, which is computed in float32. Raises ValueError for other types, and where ``places`` has no axis or one
    twice.
    """
    dims = [place.dim for place in places]
    if not dims or len(set(dims)) < len(dims) or not all(0 <= dim < rank for dim in dims):
        raise ValueError(f"dimensions {dims} of a tensor of rank {rank} cannot be resized: name each once")
    if how.kind == "nearest":
        return _each_axis(nodes, operand, rank, places, how, element_type)
    if element_type not in REAL_TYPES:
        raise ValueError(f"{how.kind} of {TensorProto.DataType.Name(element_type)}: only float32 and float16 are taken")
    if element_type == TensorProto.FLOAT:
        return _each_axis(nodes, operand, rank, places, how, element_type)
    found = _each_axis(nodes, nodes.add("Cast", [operand], to=TensorProto.FLOAT), rank, places, how, TensorProto.FLOAT)
    return nodes.add("Cast", [found], to=element_type)


def _each_axis(
    nodes: Nodes, operand: str, rank: int, places: Sequence[Place], how: Resampling, element_type: int
) -> str:
    formula = Formula(nodes)
    outside = []
    for place in sorted(places, key=lambda place: -place.dim):
        at = positions(formula, place, places, how)
        axis = _Axis(formula=formula, operand=operand, rank=rank, place=place)
        operand = axis.resized(at, how)
        if at.outside:
            outside.append(axis.along(at.outside))
    if not outside:
        return operand
    value = nodes.constant(np.array([how.extrapolation]).astype(helper.tensor_dtype_to_np_dtype(element_type)))
    for entries in outside:
        operand = formula.choose(entries, value, operand)
    return operand


@dataclass(slots=True, kw_only=True)
class _Axis:
    """One axis of a tensor that holds a part of the whole."""

    formula: Formula
    operand: str
    rank: int
    place: Place
    outer: int = field(init=False)
    """The dimension along which it gathers: the last one is moved there first, so that blocks are copied."""

    def __post_init__(self) -> None:
        is_last = self.place.dim == self.rank - 1
        self.outer = min(1, self.rank - 2) if is_last and self.rank > 1 else self.place.dim

    def resized(self, at: Positions, how: Resampling) -> str:
        if how.kind == "nearest":
            return self._moved_back(self._gathered(self._moved(), self._local(nearest(self.formula, at, how))))
        if how.antialias:
            return self._moved_back(self._windowed(windows(self.formula, at, how, self.place.most_taps)))
        taps = linear(self.formula, at) if how.kind == "linear" else cubic(self.formula, at, how)
        return self._moved_back(self._weighted(taps))

    def _moved(self) -> str:
        if self.outer == self.place.dim:
            return self.operand
        return self.formula.nodes.add("Transpose", [self.operand], perm=self._order())

    def _moved_back(self, name: str) -> str:
        if self.outer == self.place.dim:
            return name
        return self.formula.nodes.add("Transpose", [name], perm=np.argsort(self._order()).tolist())

    def _order(self) -> list[int]:
        rest = [dim for dim in range(self.rank) if dim != self.place.dim]
        return [*rest[: self.outer], self.place.dim, *rest[self.outer :]]

    def _local(self, index: str) -> str:
        """Convert indices in the whole operand to indices in the given part."""
        nodes, formula = self.formula.nodes, self.formula
        length = nodes.add("Gather", [nodes.add("Shape", [self.operand]), formula.whole(self.place.dim)], axis=0)
        last = formula.minus(length, formula.whole(1))
        return formula.between(formula.minus(index, self.place.source), formula.whole(0), last)

    def _gathered(self, operand: str, index: str) -> str:
        return self.formula.nodes.add("Gather", [operand, index], axis=self.outer)

    def along(self, entries: str) -> str:
        """Reshape a vector of (n,) so that it broadcasts over all other dimensions."""
        shape = [-1] + [1] * (self.rank - 1 - self.place.dim)
        return self.formula.nodes.add("Reshape", [entries, self.formula.nodes.constant(np.array(shape, np.int64))])

    def _broadcast(self, weight: str) -> str:
        """Reshape weights so that they multiply along the axis."""
        shape = [-1] + [1] * (self.rank - 1 - self.outer)
        return self.formula.nodes.add("Reshape", [weight, self.formula.nodes.constant(np.array(shape, np.int64))])

    def _weighted(self, taps: Sequence[Tap]) -> str:
        """Sum the taps in their order. Each is gathered after the ones before are added, which saves memory."""
        operand, total = self._moved(), ""
        for tap in taps:
            index = self._local(tap.index)
            entries = self._gathered(operand, self._after(total, index) if len(taps) > 2 and total else index)
            product = self.formula.times(entries, self._broadcast(tap.weight))
            total = self.formula.plus(total, product) if total else product
        return total

    def _after(self, total: str, index: str) -> str:
        """Delay ``index`` until ``total`` is computed: ONNX Runtime otherwise gathers all taps first."""
        nodes, formula = self.formula.nodes, self.formula
        length = nodes.add("Gather", [nodes.add("Shape", [total]), formula.whole(0)], axis=0)
        return formula.plus(index, formula.times(length, formula.whole(0)))

    def _windowed(self, found: Windows) -> str:
        """Sum taps that are rows of tensors, and that some windows lack."""
        nodes, formula = self.formula.nodes, self.formula
        operand, index, zero, total = self._moved(), self._local(found.index), formula.real(0), ""
        for tap in range(self.place.most_taps):
            row = formula.scalar(formula.whole(tap))
            at, weight, counts = (
                nodes.add("Gather", [rows, row], axis=0) for rows in (index, found.weight, found.counts)
            )
            kept = formula.choose(self._broadcast(counts), self._gathered(operand, at), zero)
            product = formula.times(kept, self._broadcast(weight))
            total = formula.plus(total, product) if total else product
        return total
