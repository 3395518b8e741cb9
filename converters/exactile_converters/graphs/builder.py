"""Add nodes at the end of a graph, with unique names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir


class Builder:
    """Adds nodes; their names start with ``prefix``."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix
        self._count = 0
        self._taken = set(_names_in(graph))

    def add(self, op: str, *inputs: ir.Value, name: str | None = None, **attributes: int | Sequence[int]) -> ir.Value:
        new = self._new_name()
        node = ir.node(op, inputs, attributes=attributes, name=f"{new}_{op}")
        node.outputs[0].name = name or new
        self._graph.append(node)
        return node.outputs[0]

    def constant(self, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ir.Value:
        value = ir.Value(name=self._new_name(), const_value=ir.tensor(array))
        self._graph.register_initializer(value)
        return value

    def named(self, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ir.Value:
        """Add a constant with its own name."""
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        self._graph.register_initializer(value)
        return value

    def axes(self, *axes: int) -> ir.Value:
        return self.constant(np.array(axes, np.int64))

    def _new_name(self) -> str:
        """Return the next name that the graph does not have: it may have been made by an earlier Builder."""
        while True:
            self._count += 1
            name = f"{self._prefix}_{self._count}"
            if name not in self._taken:
                return name


def _names_in(graph: ir.Graph) -> Iterator[str]:
    yield from graph.initializers
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        yield value.name or ""
