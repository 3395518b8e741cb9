"""Cyclic shifts of a map: what leaves it at one edge enters at the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exactile_converters.geometry.node_view import NodeView, is_spatial
from exactile_converters.geometry.obstacle import ObstacleError
from exactile_converters.geometry.reach import Window
from exactile_converters.geometry.registry import Flow, Transfer


def cyclic_shift(node: NodeView) -> Transfer | None:
    """Return the transfer of a Gather of consecutive rows or columns with another start; None for any other Gather.

    Its reach is that of a crop; ``shifted_windows`` handles entries that come from the other edge.
    """
    operand, found = node.operand(0), node.operand(1)
    if operand is None or operand.labels is None or found is None or found.is_feature or found.rank != 1:
        return None
    axis = operand.axis(node.integer("axis", 0))
    label = operand.labels[axis]
    if not is_spatial(label) or not found.varies or found.unsure:
        return None
    sizes = operand.sizes(axis)
    starts = [_start(fact.value, size) for fact, size in zip((found.small, found.large), sizes, strict=True)]
    if None in starts:
        return None
    first, second = (start for start in starts if start is not None)
    if first != second:
        first, second = first - sizes[0], second - sizes[1]
    if first != second or label == "yx":
        raise ObstacleError(
            f"it shifts the image cyclically along {label} by a number of pixels that follows its size",
            "Shift by a constant number of rows and columns",
        )
    flow = Flow(operand=0, reach={label: Window(pad=-first)})
    return Transfer(labels=(operand.labels,), flows=(flow,), shift=(label, first) if first else None)


def _start(indices: NDArray[np.generic] | None, size: int) -> int | None:
    """Return the first of indices that count all entries cyclically; None for others."""
    if indices is None or indices.shape != (size,):
        return None
    start = int(indices[0]) % size
    return start if np.array_equal(indices % size, (np.arange(size) + start) % size) else None
