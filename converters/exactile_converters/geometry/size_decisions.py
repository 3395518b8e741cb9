"""Find decisions of a graph by the image's size: a tile, whose size is another one, would decide differently.

Exported graphs compute with sizes: ``Shape``, ``Max(0, pad)``, ``Where(size > 200, a, b)``. Where a compared value
grows steadily with the image, three sizes show where a decision changes: a difference of ``alpha * height + beta *
width + gamma`` must keep its sign for every image of at least one stride.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.geometry.edge_masks import made_for_masks
from exactile_converters.geometry.feature_maps import ForwardWalk
from exactile_converters.geometry.obstacle import ObstacleError, obstacle_at
from exactile_converters.geometry.probe import Probe

COMPARISONS = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
CHOICES = {"Max", "Min", "Clip", "Relu", "Abs", "Sign", "ReduceMax", "ReduceMin"}
DECIDING = COMPARISONS | CHOICES | {"Equal"}
MOST_REDUCED = 16
TINY = 1e-9

Place = tuple[int, int]
ProbeAt = Callable[[Place], Probe]


def check_size_decisions(
    walk: ForwardWalk, nodes: Sequence[ir.Node], probe_at: ProbeAt, *, base: int, smallest: Place
) -> None:
    """Add an obstacle for every node that decides differently for different images of at least ``smallest``.

    Sizes ``base`` and multiples of it are probed.
    """
    suspects = [
        node
        for node in nodes
        if node.op_type in DECIDING
        and not node.domain
        and any(value is not None and value.name in walk.varying for value in node.inputs)
        and not any(value is not None and value.name in walk.features for value in node.inputs)
    ]
    if not suspects or walk.obstacles:
        return
    y, x = smallest[0] % base, smallest[1] % base
    places = [(2 * base + y, 2 * base + x), (3 * base + y, 2 * base + x), (2 * base + y, 3 * base + x)]
    probes = [probe_at(place) for place in places]
    for_masks = made_for_masks(walk, nodes)
    for node in suspects:
        if not (node in for_masks and _grows(node, probes)) and _turns(node, probes, places, smallest):
            walk.obstacles.append(
                obstacle_at(
                    node,
                    ObstacleError(
                        "it decides by the image's size, and a tile, which has another size, would decide differently",
                        "Export the network without a case for small or large images",
                    ),
                )
            )


def _grows(node: ir.Node, probes: Sequence[Probe]) -> bool:
    """Return whether the node decides for each row, column or window: masks are checked by their results."""
    shapes = [fact.shape if (fact := probe.of(node.outputs[0])) is not None else None for probe in probes]
    return None not in shapes and len(set(shapes)) > 1


def _turns(node: ir.Node, probes: Sequence[Probe], places: Sequence[Place], smallest: Place) -> bool:
    """Return whether some difference by which ``node`` decides changes its sign between images."""
    found = [list(_differences(node, probe)) for probe in probes]
    if any(differences is None for each in found for differences in each) or len({len(each) for each in found}) != 1:
        return True
    (y0, x0), (y1, _), (_, x2) = places
    for at_first, taller, wider in zip(*found, strict=True):
        assert at_first is not None
        assert taller is not None
        assert wider is not None
        if not at_first.shape == taller.shape == wider.shape:
            return True
        alpha, beta = (taller - at_first) / (y1 - y0), (wider - at_first) / (x2 - x0)
        least = at_first - alpha * (y0 - smallest[0]) - beta * (x0 - smallest[1])
        if _some_turn(node.op_type, alpha, beta, least):
            return True
    return False


def _some_turn(op: str, alpha: NDArray[Any], beta: NDArray[Any], least: NDArray[Any]) -> bool:
    """Return whether some difference changes sign; ``least`` is the difference for the smallest image."""
    rises, falls = (alpha >= -TINY) & (beta >= -TINY), (alpha <= TINY) & (beta <= TINY)
    still = rises & falls
    # For equal values, at the smallest size itself, a maximum is either one; a comparison is not.
    margin = -TINY if op in CHOICES else TINY
    steady = still | (rises & (least >= margin)) | (falls & (least <= -margin))
    return not bool(np.all(steady))


def _differences(node: ir.Node, probe: Probe) -> Iterator[NDArray[Any] | None]:
    """Yield the differences by whose sign the node decides; None where one is unknown."""
    facts = [probe.of(value) for value in node.inputs if value is not None and value.name]
    values = [None if fact is None or fact.value is None else np.asarray(fact.value, np.float64) for fact in facts]
    if any(value is None for value in values):
        yield None
        return
    known = [value for value in values if value is not None]
    if node.op_type in {"Relu", "Abs", "Sign"}:
        yield known[0]
    elif node.op_type == "Clip":
        for limit in known[1:]:
            yield known[0] - limit
    elif node.op_type in {"ReduceMax", "ReduceMin"}:
        entries = known[0].ravel()
        yield None if entries.size > MOST_REDUCED else np.array([a - b for a, b in combinations(entries, 2)])
    else:
        for first, second in combinations(known, 2):
            yield first - second
