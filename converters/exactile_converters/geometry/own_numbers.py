"""Track which constants of a graph follow the image's size in their values, and which only in their shape.

The sizes of batch and channels are the same for every image. A statistic of the whole image is a number that is unknown
during the walk: the walk sees one of many values, and nothing follows from that value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from exactile.contract.statistic import FIXED, PREFIX
from exactile_converters.geometry.node_view import Labels, is_spatial
from exactile_converters.geometry.position_maps import SPREADING

SHAPED_BY = {**dict.fromkeys(SPREADING, 1), "ConstantOfShape": 0, "Tile": 1}
"""The operand that determines the shape of a result, and none of its values."""


@dataclass(slots=True)
class OwnNumbers:
    """What is known of values that are not feature maps, by name, in the order of the walk."""

    by_statistics: set[str] = field(default_factory=set)
    """Computed from a statistic of the whole image."""
    by_size: set[str] = field(default_factory=set)
    """Whose values, not only their shape, are computed from the image's size (or at random)."""

    def visit(self, node: ir.Node, *, asks: bool) -> None:
        """Visit a node that makes no feature map; with ``asks``, its results begin to follow the size, or chance."""
        names = [value.name if value is not None else None for value in node.inputs]
        made = [value.name for value in node.outputs if value.name]
        if any(name is not None and self.of_statistics(name) for name in names):
            self.by_statistics.update(made)
        shaping = SHAPED_BY.get(node.op_type) if not node.domain else None
        if asks or any(name in self.by_size for index, name in enumerate(names) if index != shaping):
            self.by_size.update(made)

    def of_statistics(self, name: str) -> bool:
        """Return whether it is a statistic, or computed from one; a fixed one also differs from the walk's sizes."""
        return name in self.by_statistics or name.startswith((PREFIX, FIXED))

    def of_both(self, name: str) -> bool:
        """Return whether its values follow size and statistics: those at two sizes say nothing of others."""
        return name in self.by_statistics and name in self.by_size


def asks_other_axes(node: ir.Node, labels_of: Mapping[str, Labels]) -> bool:
    """Return whether ``node`` returns only sizes of batch and channels of a map; ``labels_of`` has the axes of maps.

    It is a Shape of these, or a Gather or Slice by constants of the Shape of a map.
    """
    if node.domain or not node.inputs or node.inputs[0] is None:
        return False
    if node.op_type == "Shape":
        labels = labels_of.get(node.inputs[0].name or "")
        return labels is not None and not any(map(is_spatial, _asked(node, labels)))
    maker = node.inputs[0].producer()
    if maker is None or maker.op_type != "Shape" or maker.domain or maker.inputs[0] is None:
        return False
    labels = labels_of.get(maker.inputs[0].name or "")
    if labels is None:
        return False
    taken = _taken(node, _asked(maker, labels))
    return taken is not None and not any(map(is_spatial, taken))


def _asked(shape: ir.Node, labels: Labels) -> Labels:
    return labels[shape.attributes.get_int("start", 0) : shape.attributes.get_int("end", len(labels))]


def _taken(node: ir.Node, entries: Labels) -> Labels | None:
    """Return the entries of a vector that a Gather or Slice takes; None where that is unknown."""
    given = [_integers(value) for value in node.inputs[1:]]
    if any(one is None for one in given):
        return None
    numbers = [one for one in given if one is not None]
    if node.op_type == "Gather" and len(numbers) == 1:
        inside = [index for index in numbers[0] if -len(entries) <= index < len(entries)]
        return tuple(entries[index] for index in inside) if len(inside) == len(numbers[0]) else None
    if node.op_type != "Slice" or len(numbers) < 2 or any(len(one) != 1 for one in numbers):
        return None
    step = numbers[3][0] if len(numbers) > 3 else 1
    return entries[numbers[0][0] : numbers[1][0]] if step == 1 else None


def _integers(value: ir.Value | None) -> list[int] | None:
    constant = value.const_value if value is not None else None
    return None if constant is None else [int(one) for one in constant.numpy().ravel()]
