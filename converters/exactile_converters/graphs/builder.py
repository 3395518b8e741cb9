"""Add nodes at the end of a graph, with unique names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir


class Builder:
    """Adds nodes; their names start with ``prefix``."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix
        self._count = 0

    def add(self, op: str, *inputs: ir.Value, name: str | None = None, **attributes: int | Sequence[int]) -> ir.Value:
        self._count += 1
        node = ir.node(op, inputs, attributes=attributes, name=f"{self._prefix}_{self._count}_{op}")
        node.outputs[0].name = name or f"{self._prefix}_{self._count}"
        self._graph.append(node)
        return node.outputs[0]

    def constant(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ir.Value:
        self._count += 1
        value = ir.Value(name=f"{self._prefix}_{self._count}", const_value=ir.tensor(array))
        self._graph.register_initializer(value)
        return value

    def named(self, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ir.Value:
        """Add a constant with its own name."""
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        self._graph.register_initializer(value)
        return value

    def axes(self, *axes: int) -> ir.Value:
        return self.constant(np.array(axes, np.int64))
