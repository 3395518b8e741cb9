"""``If`` whose condition is always the same: its branch takes its place, as ONNX Runtime does it.

Exporters write ``If`` where the model asked for a rank or a number of channels, which are known. A condition that
follows from the image's height or width stays.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from exactile_converters.geometry.feature_maps import image_shape
from exactile_converters.geometry.node_view import Labels
from exactile_converters.geometry.probe import Probe

SIZES = ((997, 1481), (1999, 3001))
"""Two images whose heights and widths have nothing in common."""

MOVES = {
    "Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
"""Operators that only move numbers: what they give is free of the image's size if it is the same at two sizes."""

MOST_BRANCHES = 1000


def take_constant_branches(model: ir.Model, image: ir.Value, labels: Labels, channels: int) -> int:
    """Replace every ``If`` whose condition is constant; how many there were."""
    taken = 0
    while taken < MOST_BRANCHES:
        conditions = [node for node in model.graph if node.op_type == "If" and not node.domain]
        if not conditions:
            break
        probes = [Probe(model, image.name or "", image_shape(labels, channels, size)) for size in SIZES]
        node = next((node for node in conditions if _decision(node, probes) is not None), None)
        if node is None:
            break
        _take(model.graph, node, chosen=bool(_decision(node, probes)))
        taken += 1
    return taken


def take_branches_at(model: ir.Model, image: ir.Value, shape: tuple[int, ...]) -> int:
    """Replace every ``If`` whose condition is known where the image has this ``shape``; how many there were.

    The graph is then for images of this size alone.
    """
    for taken in range(MOST_BRANCHES):
        conditions = [node for node in model.graph if node.op_type == "If" and not node.domain]
        facts = Probe(model, image.name or "", shape) if conditions else None
        for node in conditions:
            fact = facts.of(node.inputs[0]) if facts is not None else None
            if fact is not None and fact.value is not None:
                _take(model.graph, node, chosen=bool(np.asarray(fact.value).ravel()[0]))
                break
        else:
            return taken
    return MOST_BRANCHES


def _decision(node: ir.Node, probes: list[Probe]) -> bool | None:
    condition = node.inputs[0]
    if condition is None or not _is_steady(condition, probes):
        return None
    fact = probes[0].of(condition)
    return None if fact is None or fact.value is None else bool(np.asarray(fact.value).ravel()[0])


def _is_steady(value: ir.Value, probes: list[Probe]) -> bool:
    """Whether ``value`` is a constant that does not follow the image's size."""
    waiting, seen = [value], set[ir.Value]()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        facts = [probe.of(current) for probe in probes]
        values = [fact.value for fact in facts if fact is not None and fact.value is not None]
        if len(values) < len(probes) or not np.array_equal(values[0], values[1]):
            return False
        maker = current.producer()
        if maker is not None and maker.op_type not in MOVES:
            waiting += [operand for operand in maker.inputs if operand is not None]
    return True


def _take(graph: ir.Graph, node: ir.Node, *, chosen: bool) -> None:
    """Move the nodes of a branch to where ``node`` stands, and give its results the branch's."""
    branch = node.attributes["then_branch" if chosen else "else_branch"].as_graph()
    results = list(branch.outputs)
    for name, constant in list(branch.initializers.items()):
        del branch.initializers[name]
        constant.name = _free(name, graph.initializers)
        graph.register_initializer(constant)
    moved = list(branch)
    branch.outputs.clear()
    for inner in moved:
        branch.remove(inner)
        graph.insert_before(node, inner)
    for old, new in zip(node.outputs, results, strict=True):
        _replace(graph, node, old, new)
    _forget(node.attributes["else_branch" if chosen else "then_branch"].as_graph())
    graph.remove(node, safe=True)


def _forget(branch: ir.Graph) -> None:
    """Values outside are no longer used by the nodes of ``branch``."""
    for inner in branch.all_nodes():
        for place in range(len(inner.inputs)):
            inner.replace_input_with(place, None)


def _replace(graph: ir.Graph, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return
    name, old.name = old.name, f"{old.name}_before"
    same = ir.node("Identity", [new])
    same.outputs[0].name = name
    same.outputs[0].type, same.outputs[0].shape = old.type, old.shape
    graph.insert_before(node, same)
    for place, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[place] = same.outputs[0]
    old.replace_all_uses_with(same.outputs[0])


def _free(name: str, taken: Iterable[str]) -> str:
    known = set(taken)
    while name in known:
        name += "_"
    return name
