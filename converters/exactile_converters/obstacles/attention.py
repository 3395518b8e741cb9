"""Find attention in a graph: products of a map with itself, weighted by a softmax, by which another product averages.

It is recognised by its operators in the order product, softmax, product, with operators between them that scale, mask
and reorder the scores. Attention between all positions has a number of scores that grows with the image; attention
within a window, or between channels, does not. Where the number is unknown, nothing is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import onnx_ir as ir

from exactile_converters.obstacles.lenient_probe import LenientProbe

PRODUCTS = {"Einsum", "FusedMatMul", "MatMul"}
BETWEEN = frozenset(
    "Add Cast Clip Div Dropout Expand Flatten Identity Max Min Mul Reshape Squeeze Sub Tanh Transpose Unsqueeze "
    "Where".split()
)
"""Operators that scale, mask or reorder scores."""

MOST_NODES = 40
"""Most nodes between two products."""

ASKING = {"Shape", "Size"}


@dataclass(frozen=True, slots=True)
class Attention:
    """The product of positions with positions, the softmax over its scores, and the product with these weights."""

    scores: ir.Node
    softmax: ir.Node
    weighted: ir.Node

    def is_between_all(self, probes: Iterable[LenientProbe]) -> bool:
        """Return whether a larger image is known to have more scores for each position: ``probes`` are of two sizes."""
        axis = self.softmax.attributes.get_int("axis", -1)
        shapes = [probe.sure_shape(self.softmax.inputs[0]) for probe in probes]
        sizes = {None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis] for shape in shapes}
        return None not in sizes and len(sizes) > 1


def computed_from(image: ir.Value, nodes: Iterable[ir.Node]) -> set[ir.Value]:
    """Return the values that ``nodes``, in topological order, compute from the pixels of ``image``."""
    maps = {image}
    for node in nodes:
        if node.op_type not in ASKING and any(value in maps for value in node.inputs):
            maps.update(node.outputs)
    return maps


def attentions(nodes: Iterable[ir.Node], maps: AbstractSet[ir.Value]) -> Iterator[Attention]:
    """Yield each attention among ``nodes``; ``maps`` are computed from the image's pixels."""
    for node in nodes:
        if node.op_type in PRODUCTS and all(value in maps for value in node.inputs[:2]):
            softmax = _next(node, {"Softmax"})
            weighted = _next(softmax, PRODUCTS) if softmax is not None else None
            if softmax is not None and weighted is not None:
                yield Attention(node, softmax, weighted)


def _next(node: ir.Node, wanted: set[str]) -> ir.Node | None:
    """Return the nearest reader of the result of ``node`` that is ``wanted``, past operators that reorder it."""
    waiting, seen = list(node.outputs), 0
    while waiting and seen < MOST_NODES:
        for reader, _ in waiting.pop(0).uses():
            seen += 1
            if reader.op_type in wanted:
                return reader
            if reader.op_type in BETWEEN:
                waiting += reader.outputs
    return None
