"""Attention in a graph: products of a map with itself, weighted by a softmax, by which another product takes a mean.

It is found by its operators, in the order product, softmax, product; what scales, masks and reorders the scores may lie
between them. The number of scores tells whether it is attention between all positions: it grows with the image, or is
that of a window, or of channels. Where the number is not known, nothing is said of it.
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
"""Between two products."""

ASKING = {"Shape", "Size"}


@dataclass(frozen=True, slots=True)
class Attention:
    """The product of positions with positions, the softmax over its scores, and the product by these weights."""

    scores: ir.Node
    softmax: ir.Node
    weighted: ir.Node

    def is_between_all(self, probes: Iterable[LenientProbe]) -> bool:
        """Whether a larger image is known to have more scores for each position: ``probes`` are of two sizes."""
        axis = self.softmax.attributes.get_int("axis", -1)
        shapes = [probe.sure_shape(self.softmax.inputs[0]) for probe in probes]
        sizes = {None if shape is None or not -len(shape) <= axis < len(shape) else shape[axis] for shape in shapes}
        return None not in sizes and len(sizes) > 1


def computed_from(image: ir.Value, nodes: Iterable[ir.Node]) -> set[ir.Value]:
    """The values that ``nodes``, in topological order, compute from the pixels of ``image``."""
    maps = {image}
    for node in nodes:
        if node.op_type not in ASKING and any(value in maps for value in node.inputs):
            maps.update(node.outputs)
    return maps


def attentions(nodes: Iterable[ir.Node], maps: AbstractSet[ir.Value]) -> Iterator[Attention]:
    """Each attention among ``nodes``; ``maps`` are computed from the image's pixels."""
    for node in nodes:
        if node.op_type in PRODUCTS and all(value in maps for value in node.inputs[:2]):
            softmax = _next(node, {"Softmax"})
            weighted = _next(softmax, PRODUCTS) if softmax is not None else None
            if softmax is not None and weighted is not None:
                yield Attention(node, softmax, weighted)


def _next(node: ir.Node, wanted: set[str]) -> ir.Node | None:
    """The nearest reader of what ``node`` makes that is one of the ``wanted``, past operators that reorder it."""
    waiting, seen = list(node.outputs), 0
    while waiting and seen < MOST_NODES:
        for reader, _ in waiting.pop(0).uses():
            seen += 1
            if reader.op_type in wanted:
                return reader
            if reader.op_type in BETWEEN:
                waiting += reader.outputs
    return None
