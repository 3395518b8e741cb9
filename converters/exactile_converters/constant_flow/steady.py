"""Facts of values that are the same for all examined images: of two sizes, or of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.geometry.feature_maps import image_shape
from exactile_converters.geometry.node_view import Labels
from exactile_converters.geometry.probe import Probe

SIZES = ((997, 1481), (1999, 3001))
"""Two images whose heights and widths have nothing in common."""

MOVES = {
    "Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators that only move numbers: their result does not depend on the image's size if it is the same at two sizes."""


Shapes = Sequence[tuple[int, ...]]


def two_shapes(labels: Labels, channels: int) -> Shapes:
    """Return two shapes: what is the same for both of these images is so for all."""
    return [image_shape(labels, channels, size) for size in SIZES]


class Steady:
    """Facts for images of each of some shapes, of the nodes visited so far."""

    def __init__(self, model: ir.Model, image: ir.Value, shapes: Shapes) -> None:
        self._probes = [Probe(model, image.name or "", shape, visits=False) for shape in shapes]

    def visit(self, node: ir.Node) -> None:
        for probe in self._probes:
            probe.visit(node)

    def learn(self, constant: ir.Value) -> None:
        for probe in self._probes:
            probe.learn(constant.name or "", constant)

    def value(self, value: ir.Value | None) -> NDArray[Any] | None:
        """Return ``value`` if it is the same constant for every image."""
        if value is None or not self._holds(value):
            return None
        fact = self._probes[0].of(value)
        return fact.value if fact is not None else None

    def number(self, value: ir.Value | None) -> int | None:
        """Return its single number."""
        found = self.value(value)
        return int(found.reshape(-1)[0]) if found is not None and found.size == 1 else None

    def size(self, value: ir.Value | None, axis: int) -> int | None:
        """Return the length of a dimension that is the same for every image."""
        shapes = {fact.shape for probe in self._probes if (fact := probe.of(value)) is not None}
        if value is None or not shapes or None in shapes:
            return None
        sizes = {shape[axis] for shape in shapes if shape is not None and -len(shape) <= axis < len(shape)}
        return sizes.pop() if len(sizes) == 1 else None

    def _holds(self, value: ir.Value) -> bool:
        waiting, seen = [value], set[ir.Value]()
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            facts = [probe.of(current) for probe in self._probes]
            values = [fact.value for fact in facts if fact is not None and fact.value is not None]
            if len(values) < len(self._probes) or not all(np.array_equal(values[0], other) for other in values[1:]):
                return False
            maker = current.producer()
            if maker is not None and maker.op_type not in MOVES:
                waiting += [operand for operand in maker.inputs if operand is not None]
        return True
