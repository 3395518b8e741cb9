"""The main graph while nodes in it are replaced."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.constant_flow.steady import Shapes, Steady

Attributes = Mapping[str, int]


class WritingOut:
    """The state of a graph being unrolled. ``sequences`` are the values that hold sequences, with their entries.

    ``rounds`` are the loops of which some rounds are unrolled, by name: for each round, the values that it lists. Those
    in ``left`` are kept.
    """

    def __init__(self, model: ir.Model, image: ir.Value, shapes: Shapes, left: Collection[str] = ()) -> None:
        self.graph = model.graph
        self.known = Steady(model, image, shapes)
        self.sequences: dict[ir.Value, tuple[ir.Value, ...]] = {}
        self.rounds: dict[str, list[list[ir.Value]]] = {}
        self.left = left
        self._replaced: dict[ir.Value, ir.Value] = {}
        self._taken = {value.name for node in model.graph.all_nodes() for value in node.outputs}
        self._taken |= {value.name for value in model.graph.inputs} | set(model.graph.initializers)

    def current(self, value: ir.Value) -> ir.Value:
        """Return the current replacement of ``value``."""
        while value in self._replaced:
            value = self._replaced[value]
        return value

    def entries(self, sequence: ir.Value | None) -> tuple[ir.Value, ...] | None:
        """Return the entries of a sequence; None where they are unknown."""
        found = self.sequences.get(sequence) if sequence is not None else None
        return tuple(map(self.current, found)) if found is not None else None

    def fresh(self, name: str) -> str:
        """Return a name that no value of the main graph has."""
        count, found = 0, name
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._taken.add(found)
        return found

    def constant(self, array: NDArray[np.generic], hint: str) -> ir.Value:
        name = self.fresh(hint)
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        self._keep(value)
        return value

    def add(
        self, before: ir.Node, op: str, inputs: Sequence[ir.Value], attributes: Attributes, outputs: int = 1
    ) -> ir.Node:
        """Add an ONNX node before another one."""
        made = ir.node(op, inputs, attributes=dict(attributes), num_outputs=outputs)
        made.name = self.fresh(f"{before.name}_{op}")
        for value in made.outputs:
            value.name = self.fresh(made.name)
        self.graph.insert_before(before, made)
        return made

    def inline(
        self, before: ir.Node, subgraph: ir.Graph, arguments: Sequence[ir.Value]
    ) -> tuple[list[ir.Node], list[ir.Value]]:
        """Copy the nodes of ``subgraph`` before a node, with ``arguments`` as inputs; return them and their results."""
        copy = subgraph.clone(allow_outer_scope_values=True)
        for name, constant in list(copy.initializers.items()):
            del copy.initializers[name]
            constant.name = self.fresh(name)
            self._keep(constant)
        results = list(copy.outputs)
        copy.outputs.clear()
        for formal, actual in zip(list(copy.inputs), arguments, strict=True):
            formal.replace_all_uses_with(actual)
            results = [actual if result is formal else result for result in results]
        nodes = list(copy)
        for node in nodes:
            copy.remove(node)
            node.name = self.fresh(node.name or node.op_type)
            for value in node.outputs:
                value.name = self.fresh(value.name) if value.name else value.name
            self.graph.insert_before(before, node)
        return nodes, results

    def replace(self, node: ir.Node, results: Sequence[ir.Value]) -> list[ir.Node]:
        """Replace the node's outputs by ``results``, and remove the node; return the nodes that this adds."""
        made = []
        for old, new in zip(node.outputs, results, strict=True):
            self._replaced[old] = new
            if new in self.sequences:
                self.sequences[old] = self.sequences[new]
            if old.is_graph_output():
                made.append(self._as_output(node, old, new))
            else:
                old.replace_all_uses_with(new)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _forget(attribute.as_graph())
        self.graph.remove(node, safe=True)
        return made

    def _as_output(self, node: ir.Node, old: ir.Value, new: ir.Value) -> ir.Node:
        """Keep the name of the graph's output."""
        name, old.name = old.name, self.fresh(f"{old.name}_before")
        same = ir.node("Identity", [new])
        same.outputs[0].name = name
        same.outputs[0].type, same.outputs[0].shape = old.type, old.shape
        self.graph.insert_before(node, same)
        for place, output in enumerate(self.graph.outputs):
            if output is old:
                self.graph.outputs[place] = same.outputs[0]
        old.replace_all_uses_with(same.outputs[0])
        return same

    def _keep(self, constant: ir.Value) -> None:
        self.graph.register_initializer(constant)
        self.known.learn(constant)


def _forget(subgraph: ir.Graph) -> None:
    """Disconnect the nodes of ``subgraph`` from values outside."""
    subgraph.outputs.clear()
    for inner in subgraph.all_nodes():
        for place in range(len(inner.inputs)):
            inner.replace_input_with(place, None)
