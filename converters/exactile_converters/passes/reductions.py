"""Find where a network reduces a whole feature map to a few numbers, and take these reductions out of its graph.

Statistics may depend on others. A walk over the graph stops at the first operator that reads the whole image; the
results of such operators are replaced by placeholder constants, and the graph is walked again, until nothing new is
found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm

import numpy as np
import onnx_ir as ir

from exactile.contract.statistic import PREFIX, WHOLE_MAP, Grid, StatisticKind
from exactile_converters.geometry.feature_maps import ForwardWalk, image_shape, walk_forward
from exactile_converters.geometry.node_view import Labels
from exactile_converters.geometry.probe import Memory, Probe
from exactile_converters.geometry.rules.barriers import CONTROL_FLOW
from exactile_converters.geometry.steps import stride_by_operators, written_steps
from exactile_converters.geometry.trace import FIRST_BASE_PX, LARGEST_STRIDE, ancestors, probed_sizes
from exactile_converters.networks.network import Network
from exactile_converters.passes.bins import binned
from exactile_converters.passes.decomposition import decomposed
from exactile_converters.passes.matching import global_operator
from exactile_converters.passes.taking import Shape, Taking, shape_of

MOST_LEVELS = 400
"""A network with more levels of dependent statistics is not examined further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """A statistic of the whole map ``of``, whose axes are ``labels``.

    ``groups`` is the number of its entries: one for each channel, one for each group of neighbouring channels, or 1 for
    all. ``placeholders`` represent it in the graph: float32 constants, named like the inputs of graphs that take it.
    They are the number, or for ``moments`` the mean and the biased variance. ``grid`` are the bins of adaptive pooling:
    the entries are then those of each bin.
    """

    kind: StatisticKind
    of: ir.Value
    labels: Labels
    groups: int
    placeholders: tuple[ir.Value, ...]
    grid: Grid = WHOLE_MAP


def take_out(network: Network) -> tuple[Network, tuple[Reduction, ...]]:
    """Replace the results of whole-image operators by placeholders, in place, in the order in which they are found.

    What cannot be replaced is unchanged.
    """
    return _Search(network).run()


class _Search:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._graph = network.model.graph
        self._result = network.result
        self._found: list[Reduction] = []
        self._memory: Memory = {}
        self._base = FIRST_BASE_PX

    def run(self) -> tuple[Network, tuple[Reduction, ...]]:
        for _ in range(MOST_LEVELS):
            walk, nodes = self._walk()
            if not self._take(walk, nodes):
                break
            self._graph.sort()
        self._drop_unused()
        network = replace(self._network, result=self._result)
        return network, tuple(self._found)

    def _walk(self) -> tuple[ForwardWalk, list[ir.Node]]:
        network = self._network
        nodes = ancestors(network.model, self._result, *(one.of for one in self._found))
        self._base = lcm(self._base, written_steps(nodes, LARGEST_STRIDE))
        while True:
            sizes = probed_sizes(self._base, 0)
            walk = walk_forward(
                network.model, network.image, network.labels, network.channels, nodes, sizes, self._memory
            )
            stride = stride_by_operators(walk, nodes)
            if self._base % stride == 0 or stride > LARGEST_STRIDE:
                return walk, nodes
            self._base = lcm(self._base, stride)

    def _take(self, walk: ForwardWalk, nodes: Sequence[ir.Node]) -> bool:
        """Replace reductions of the feature maps of ``walk``; return whether there were any."""
        network, taken = self._network, False
        probe: Probe | None = None

        def shapes_of(value: ir.Value) -> tuple[Shape, Shape] | None:
            """Return the shapes at two image sizes."""
            nonlocal probe
            sizes = probed_sizes(self._base, 0)
            probes = [
                Probe(
                    network.model,
                    network.image.name or "",
                    image_shape(network.labels, network.channels, size),
                    memory=self._memory,
                )
                for size in (sizes.small, sizes.large)
            ]
            facts = [one.of(value) for one in probes]
            small, large = (fact.shape if fact is not None else None for fact in facts)
            return None if small is None or large is None else (small, large)

        for node in nodes:
            steps = decomposed(node, walk.features)
            if steps is not None:
                self._answer(node.outputs[0], steps, node)
                taken = True
                continue
            made = global_operator(node, walk.features, shapes_of)
            made = made or binned(node, walk.features, network.image, network.labels)
            if made is not None and self._replace(node, made):
                taken = True
        return taken

    def _replace(self, node: ir.Node, made: Taking) -> bool:
        earlier = self._mean_of(made)
        if made.kind == "variance":
            if earlier is not None and self._add_variance(node, made, earlier):
                return True
            other = made.otherwise()
            return other is not None and self._replace(node, other)
        known = self._found_before(made)
        if known is not None:
            self._answer(made.result, made.after(known), node)
            return True
        for one in made.before:
            self._graph.insert_before(node, one)
        placeholders = tuple(
            self._placeholder(f"{len(self._found)}_{name}", shape)
            for name, shape in zip(made.names, made.shapes, strict=True)
        )
        self._found.append(
            Reduction(
                kind=made.kind,
                of=made.of,
                labels=made.labels,
                groups=made.groups,
                placeholders=placeholders,
                grid=made.grid,
            )
        )
        self._answer(made.result, made.after(placeholders), node)
        return True

    def _found_before(self, made: Taking) -> tuple[ir.Value, ...] | None:
        """Return the placeholders of a statistic that was already found: of the same map, and of the same shapes."""
        for one in self._found:
            same = one.of is made.of and (one.labels, one.groups, one.grid) == (made.labels, made.groups, made.grid)
            mean = made.kind == "mean" and one.kind == "moments"
            known = one.placeholders[: len(made.shapes)]
            if same and (one.kind == made.kind or mean) and tuple(map(shape_of, known)) == made.shapes:
                return known
        return None

    def _mean_of(self, made: Taking) -> int | None:
        """Return the index of the reduction whose mean ``made`` subtracts."""
        for index, one in enumerate(self._found):
            same = one.placeholders[0] is made.mean and one.of is made.of and one.groups == made.groups
            if same and one.grid == WHOLE_MAP and one.kind in {"mean", "moments"}:
                return index
        return None

    def _add_variance(self, node: ir.Node, made: Taking, index: int) -> bool:
        """Add the mean of squared deviations from a known mean: one pass computes it with that mean."""
        one = self._found[index]
        if one.kind == "moments":
            variance = one.placeholders[1]
            if shape_of(variance) != made.shapes[0]:
                return False
        else:
            variance = self._placeholder(f"{index}_variance", made.shapes[0])
            self._found[index] = replace(one, kind="moments", placeholders=(*one.placeholders, variance))
        self._answer(made.result, ([], variance), node)
        return True

    def _placeholder(self, name: str, shape: Shape) -> ir.Value:
        full = PREFIX + name
        value = ir.Value(name=full, const_value=ir.tensor(np.ones(shape, np.float32), name=full))
        self._graph.register_initializer(value)
        return value

    def _answer(self, old: ir.Value, after: tuple[list[ir.Node], ir.Value], node: ir.Node) -> None:
        """Replace ``old`` by the value of ``after``, whose nodes are inserted before ``node``."""
        nodes, value = after
        for one in nodes:
            self._graph.insert_before(node, one)
        if not nodes and old is self._result:  # a result is made by a node
            identity = ir.node("Identity", [value], name=f"{old.name}_statistic")
            identity.outputs[0].name = f"{old.name}_statistic"
            self._graph.insert_before(node, identity)
            value = identity.outputs[0]
        value.type = value.type or old.type
        if old is self._result:
            self._result = value
        for user, _ in old.uses():
            self._memory.pop(("proto", user), None)  # it has another input from now on
        old.replace_all_uses_with(value, replace_graph_outputs=True)

    def _drop_unused(self) -> None:
        kept = set(ancestors(self._network.model, self._result, *(one.of for one in self._found)))
        outputs = list(dict.fromkeys([self._result, *(one.of for one in self._found)]))
        for value in outputs:
            value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
        self._graph.outputs[:] = [value for value in outputs if value.producer() is not None]
        if not any(node.op_type in CONTROL_FLOW for node in kept):  # subgraphs read values without naming them
            self._graph.remove([node for node in self._graph if node not in kept], safe=True)
        self._graph.sort()
