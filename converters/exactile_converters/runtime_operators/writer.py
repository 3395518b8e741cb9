"""Replace one node by new nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Attribute = int | float | str | Sequence[int] | Sequence[float]


class Writer:
    """Inserts new nodes before ``node``, named after it."""

    def __init__(self, node: ir.Node) -> None:
        graph = node.graph
        if not isinstance(graph, ir.Graph):
            raise TypeError(f"{node.op_type} is in no graph")
        self._node, self._graph = node, graph
        self._count = 0

    def add(self, op: str, *inputs: ir.Value | None, **attributes: Attribute) -> ir.Value:
        """Add a node; return its first output."""
        return self.copy(op, inputs, ir.node(op, [], attributes=attributes).attributes)

    def copy(
        self, op: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, ir.Attr], domain: str = ""
    ) -> ir.Value:
        """Add a node with attributes copied from another one."""
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        made = ir.Node(domain, op, given, attributes.values(), num_outputs=1, name=self._fresh(op))
        made.outputs[0].name = self._fresh("value")
        self._graph.insert_before(self._node, made)
        return made.outputs[0]

    def constant(self, array: NDArray[np.generic]) -> ir.Value:
        name = self._fresh("constant")
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        self._graph.register_initializer(value)
        return value

    def replace(self, value: ir.Value) -> None:
        """Replace the node's only used output by ``value``, and remove the node."""
        old = self._node.outputs[0]
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        value.name, old.name = old.name, value.name
        value.type, value.shape = old.type, old.shape
        self._graph.remove(self._node, safe=True)

    def _fresh(self, what: str) -> str:
        self._count += 1
        return f"{self._node.outputs[0].name}_{self._count}_{what}"
