"""Compute how much of each feature map is final when the rows above a line of the image are known.

After ``r`` rows of the image (a multiple of the stride), the first ``r * scale - lag`` rows of a feature map are final:
everything they read is known, and nothing below will change them. A node's result is final as far as the rows that it
reads are; where it reads several maps, the one furthest behind decides, and the others wait::

    image           |==============================|            r rows, lag 0
    after a 3x3     |=============================|             its last row waits for the row below: lag 1
    pooled by 2     |==============|                            (lag in its own rows)
    up again by 2   |============================|
    joined          |============================|··|           the skip connection waits, as a delay line

The next rows of a node's result read a map from some row before its own frontier on: the number of these rows is its
``demand``. Rows are half-open, counted from the top of each map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil, floor

import onnx_ir as ir

from exactile.geometry import Span
from exactile_converters.geometry.feature_maps import FeatureMap, ForwardWalk
from exactile_converters.geometry.reach import Blocks, Interpolation, Placed, Reach, TransposedWindow, Window
from exactile_converters.geometry.registry import Flow
from exactile_converters.strips.refusal import StripError

REFERENCE_STRIDES = 1 << 20
"""Rows are counted at an image height far larger than any halo; differences hold at all heights."""

MOST_ROWS_BEHIND = 1 << 16


@dataclass(frozen=True, slots=True)
class Reading:
    """One feature map that a node reads."""

    name: str
    flow: Flow

    @property
    def reach(self) -> Reach:
        return self.flow.along("y")


class Frontiers:
    """The frontier of every feature map of a walk along ``y``. ``nodes`` are in topological order.

    Raises StripError where rows cannot be processed in order.
    """

    def __init__(self, walk: ForwardWalk, nodes: Sequence[ir.Node], remainder: int) -> None:
        if walk.mirrored:
            raise StripError("it flips the image, and what a flip of all rows gives first comes from the last strip")
        self.walk = walk
        self.stride = walk.stride("y")
        self.remainder = remainder
        self.nodes = [node for node in nodes if node in walk.transfers]
        self.readings = {node: self._readings(node) for node in self.nodes}
        self._first_read: dict[tuple[int, int], int] = {}
        self.lag: dict[str, int] = dict.fromkeys(list(walk.features)[:1], 0)
        for node in self.nodes:
            known = min(self._known(reading, self.reference) for reading in self.readings[node])
            for value in node.outputs:
                if value.name and value.name in walk.features:
                    self.lag[value.name] = self._rows(value.name, self.reference) - known
        if max(map(abs, self.lag.values())) > MOST_ROWS_BEHIND:
            raise StripError("a feature map stays too far behind the image")

    @cached_property
    def reference(self) -> int:
        """Return a height in image rows, a multiple of the stride."""
        return self.stride * REFERENCE_STRIDES

    def known(self, name: str, rows: int) -> int:
        """Return the final rows of a map after ``rows`` rows of the image, a multiple of the stride."""
        return self._rows(name, rows) - self.lag[name]

    def size(self, name: str, height: int) -> int:
        """Return the rows of a map for a whole image of an accepted ``height``."""
        size = height * self.scale(name) + self.feature(name).constant["y"]
        if size.denominator != 1:
            raise StripError(f"the network does not accept {height} rows")
        return int(size)

    def feature(self, name: str) -> FeatureMap:
        return self.walk.features[name]

    def scale(self, name: str) -> Fraction:
        return self.feature(name).scale["y"]

    def first_read(self, reading: Reading, start: int) -> int:
        """Return the first row read of a map for results from row ``start`` on; may lie above the map's first row."""
        key = (id(reading), start)
        if key not in self._first_read:
            self._first_read[key] = self._find_first_read(reading, start)
        return self._first_read[key]

    @cached_property
    def at_reference(self) -> Mapping[str, int]:
        """Return the frontier of every map at the reference height."""
        return {name: self.known(name, self.reference) for name in self.lag}

    def _find_first_read(self, reading: Reading, start: int) -> int:
        first = reading.reach.needed(Span(start, start + 1)).start
        if isinstance(reading.reach, TransposedWindow):
            first = first_contributing(reading.reach, start)
        if isinstance(reading.reach, Interpolation):  # its result begins at the position of its first row
            first = min(first, floor(start / reading.reach.scale))
        factor = shrinking(reading.reach)
        return first // factor * factor

    def maps(self) -> Mapping[str, FeatureMap]:
        return self.walk.features

    def _rows(self, name: str, rows: int) -> int:
        return int(rows * self.scale(name))

    def _readings(self, node: ir.Node) -> tuple[Reading, ...]:
        found = []
        for flow in self.walk.transfers[node].flows:
            value = node.inputs[flow.operand]
            if value is not None and value.name and "y" in self.feature(value.name).scale:
                found.append(Reading(value.name, flow))
        if not found:
            raise StripError(f"{node.op_type} {node.name} makes rows and reads none of the image")
        return tuple(found)

    def _known(self, reading: Reading, rows: int) -> int:
        """Return the rows of a node's result that the known rows of one operand determine."""
        known = self.known(reading.name, rows)
        result = self._result_rows(reading, known) + 1
        # A dilated transposed window may reach further for one row than for the next: one stride of rows shows all.
        together = reading.reach.stride if isinstance(reading.reach, TransposedWindow) else 1
        while reading.reach.needed(Span(result - together, result)).stop > known:
            result -= 1
        if isinstance(reading.reach, Interpolation):  # it yields no more rows than their share, whatever they read
            return min(result, floor(known * reading.reach.scale))
        return result

    def _result_rows(self, reading: Reading, known: int) -> int:
        """Return no fewer rows than ``known`` rows of the operand can determine."""
        reach = reading.reach
        match reach:
            case Window(stride=stride, pad=pad):
                return ceil((known + pad) / Fraction(stride)) + 1
            case TransposedWindow(kernel=kernel, stride=stride, dilation=dilation, pad=pad):
                return known * stride + (kernel - 1) * dilation + stride - pad
            case Blocks(factor=factor):
                return known * factor
            case Interpolation(scale=scale):
                return floor(known * scale) + ceil(2 * scale) + 1
            case Placed(ratio=ratio, early=early):
                return ceil((known - early + 2) / ratio) + 1
        return known


def first_contributing(reach: TransposedWindow, start: int) -> int:
    """Return the first row of the operand whose own row of the result, or contribution, is ``start`` or later.

    Where the kernel is smaller than the stride, results from ``start`` on may begin with rows that nothing reaches.
    """
    return min(reach.needed(Span(start, start + reach.stride)).start, (start + reach.pad) // reach.stride)


def shrinking(reach: Reach) -> int:
    """Return the integer factor by which an interpolation shrinks; 1 for everything else.

    Such an operator counts its positions from the first row it is given, which must therefore be a multiple.
    """
    if isinstance(reach, Interpolation) and reach.scale < 1:
        return reach.scale.denominator
    return 1
