"""The statistic that an operator computes of a whole feature map, and what replaces the operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from exactile.contract.statistic import WHOLE_MAP, Grid, StatisticKind
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import Labels, is_spatial

FLOAT = ir.DataType.FLOAT
AXES_BY_INPUT = 18
"""From this opset on, all reductions have their axes as an input."""

Shape = tuple[int, ...]
ShapeOf = Callable[[ir.Value], "tuple[Shape, Shape] | None"]
After = Callable[[tuple[ir.Value, ...]], "tuple[list[ir.Node], ir.Value]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """A statistic of the map ``of``: ``after`` computes ``result`` from placeholders of ``shapes``.

    ``names`` are those of placeholders. ``before`` are nodes that compute ``of``. ``variance`` is about a known
    ``mean``; ``otherwise`` is used where that mean is one of something else. ``grid`` are the bins into which the map
    is divided.
    """

    kind: StatisticKind | Literal["variance"]
    of: ir.Value
    labels: Labels
    groups: int
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    result: ir.Value
    after: After
    before: Sequence[ir.Node] = field(default_factory=tuple)
    mean: ir.Value | None = None
    grid: Grid = WHOLE_MAP
    otherwise: Callable[[], Taking | None] = lambda: None


def moments(of: ir.Value, labels: Labels, shape: Shape, result: ir.Value, after: After) -> Taking:
    """Return mean and variance, each of ``shape``."""
    return Taking(
        kind="moments",
        of=of,
        labels=labels,
        groups=prod(shape),
        names=("mean", "variance"),
        shapes=(shape, shape),
        result=result,
        after=after,
    )


def kept_shape(feature: FeatureMap, axes: AbstractSet[int]) -> Shape | None:
    """Return the shape of a map that is reduced over ``axes``, which keep size 1.

    None where rows or columns are left, or where the remaining entries are not groups of neighbouring channels:
    channels in several axes are counted one axis after the other, and those of the first ones must remain.
    """
    labels, sizes = feature.labels, feature.shape
    if any(is_spatial(label) and dim not in axes for dim, label in enumerate(labels)):
        return None
    shape = tuple(1 if dim in axes or label == "n" else sizes[dim] for dim, label in enumerate(labels))
    gone = [dim in axes for dim, label in enumerate(labels) if label == "c" and sizes[dim] > 1]
    return shape if gone == sorted(gone) else None


def reduced_axes(node: ir.Node, labels: Labels) -> tuple[int, ...] | None:
    """Return the axes of a reduction; None where they are unknown, or there are none."""
    given: Sequence[int] | None = node.attributes.get_ints("axes", None) if "axes" in node.attributes else None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        constant = node.inputs[1].const_value
        if constant is None:
            return None
        given = [int(axis) for axis in constant.numpy().ravel()]
    if not given:
        if node.attributes.get_int("noop_with_empty_axes", 0):
            return None
        given = range(len(labels))
    return tuple(sorted(axis % len(labels) for axis in given))


def shape_of(placeholder: ir.Value) -> Shape:
    """Return the shape of the value that replaces a placeholder."""
    assert placeholder.const_value is not None
    return tuple(int(str(dim)) for dim in placeholder.const_value.shape)


class Written:
    """Nodes that replace ``node``, in order; their names begin with that of its first result."""

    def __init__(self, node: ir.Node) -> None:
        self.nodes: list[ir.Node] = []
        self._node = node
        self._name = f"{node.outputs[0].name}_by_statistics"

    def add(self, op: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        name = f"{self._name}_{len(self.nodes)}"
        made = ir.node(op, inputs, attributes=attributes, name=name)
        made.outputs[0].name = name
        self.nodes.append(made)
        return made.outputs[0]

    def reduced(self, op: str, value: ir.Value, axes: Sequence[int], *, keep: int = 1) -> ir.Value:
        graph = self._node.graph
        assert isinstance(graph, ir.Graph)
        if op == "ReduceSum" or int(graph.opset_imports.get("", 0)) >= AXES_BY_INPUT:
            return self.add(op, value, self.constant(axes, np.int64), keepdims=keep)
        return self.add(op, value, axes=list(axes), keepdims=keep)

    def constant(self, array: Any, dtype: Any = np.float32) -> ir.Value:
        graph = self._node.graph
        assert isinstance(graph, ir.Graph)
        name = f"{self._name}_constant_{len(graph.initializers)}"
        value = ir.Value(name=name, const_value=ir.tensor(np.asarray(array, dtype), name=name))
        graph.register_initializer(value)
        return value
