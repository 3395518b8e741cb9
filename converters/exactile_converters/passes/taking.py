"""What an operator takes of a whole feature map, and what is put in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from exactile.passes.statistic import StatisticKind
from exactile_converters.geometry.node_view import Labels

Shape = tuple[int, ...]
ShapeOf = Callable[[ir.Value], "tuple[Shape, Shape] | None"]
After = Callable[[tuple[ir.Value, ...]], "tuple[list[ir.Node], ir.Value]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """What an operator takes of the map ``of``: ``result`` is to be what ``after`` makes of placeholders of ``shapes``.

    ``names`` are those of placeholders. ``before`` are nodes that make ``of``. The ``variance`` is one about a ``mean``
    that is known.
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


class Written:
    """Nodes that stand for ``node``, in their order; names begin with that of its first result."""

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

    def constant(self, array: Any, dtype: Any = np.float32) -> ir.Value:
        graph = self._node.graph
        assert isinstance(graph, ir.Graph)
        name = f"{self._name}_constant_{len(graph.initializers)}"
        value = ir.Value(name=name, const_value=ir.tensor(np.asarray(array, dtype), name=name))
        graph.register_initializer(value)
        return value
