"""Find the node at which a shape stops being known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

import onnx_ir as ir

from exactile_converters.geometry.fact import Fact
from exactile_converters.geometry.obstacle import ObstacleError, ShapesDoNotFitError
from exactile_converters.geometry.probe import Probe

STORED = (
    "Compute it from the image's size inside the network (not from .data, numpy or numbers of Python), or resize it"
)


def unknown_since(
    value: ir.Value, probes: Sequence[Probe], maps: AbstractSet[ir.Value]
) -> tuple[ir.Node, ObstacleError] | None:
    """Return the node at which the shape of ``value`` is lost, and why; None where nothing is found.

    ``maps`` are computed from the image's pixels.
    """
    node = value.producer()
    while node is not None:
        failure = next((probe.failures[node] for probe in probes if node in probe.failures), None)
        if failure is not None:
            return node, stored_for_one_size(node, probes) or ShapesDoNotFitError(failure)
        earlier = _first(node.inputs, lambda fact: fact.shape is None, probes)
        if earlier is None or earlier.producer() is None:
            return node, _undecided(node, probes, maps)
        node = earlier.producer()
    return None


def stored_for_one_size(node: ir.Node, probes: Sequence[Probe]) -> ObstacleError | None:
    """Return the error if an operand is a constant stored for one size, and another operand grows with the image."""
    stored = [value for value in node.inputs if value is not None and value.const_value is not None]
    for constant in stored:
        shape = tuple(constant.const_value.shape.numpy()) if constant.const_value is not None else ()
        for value in node.inputs:
            if value is None or value in stored:
                continue
            shapes = [fact.shape for probe in probes if (fact := probe.of(value)) is not None and fact.shape]
            if len(shapes) == len(probes) and _is_of_one_size(shape, shapes):
                return ObstacleError(
                    f"it combines a map with a constant of shape {shape}, which was stored for one image size (a "
                    "position embedding, or an array that the export took for a constant)",
                    STORED,
                )
    return None


def _is_of_one_size(stored: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> bool:
    """Return whether some dimension of a constant is neither 1 nor follows that of a map at two sizes."""
    aligned = zip(reversed(stored), *(reversed(shape) for shape in shapes), strict=False)
    return any(size != 1 and len(set(others)) > 1 for size, *others in aligned)


def _undecided(node: ir.Node, probes: Sequence[Probe], maps: AbstractSet[ir.Value]) -> ObstacleError:
    """Return the error for a node with inputs of known shapes, whose result's shape depends on an unknown value."""
    source = _first(node.inputs[1:] or node.inputs, lambda fact: fact.value is None, probes)
    origin = source
    while origin is not None and origin not in maps:
        maker = origin.producer()
        earlier = _first(maker.inputs, lambda fact: fact.value is None, probes) if maker is not None else None
        if earlier is None:
            break
        origin = earlier
    if origin is not None and origin in maps and source is not None and source not in node.inputs[:1]:
        return ObstacleError(
            "the size of its result is computed from pixel values, not from the image's size alone",
            "Do such processing outside the network, on the finished result",
        )
    maker = origin.producer() if origin is not None else None
    by = f" (by {maker.op_type} {maker.name!r})" if maker is not None and maker is not node else ""
    return ObstacleError(
        f"the shape of its result is not known before it runs{by}", "Make it depend on the image's size alone"
    )


def _first(
    values: Iterable[ir.Value | None], lacks: Callable[[Fact], bool], probes: Sequence[Probe]
) -> ir.Value | None:
    """Return the first value that lacks something at some size."""
    unknown = Fact(0, None)
    return next(
        (
            value
            for value in values
            if value is not None and value.name and any(lacks(probe.of(value) or unknown) for probe in probes)
        ),
        None,
    )
