"""Unroll ``Loop`` with the same number of rounds for every image, and ``SequenceMap``."""

from __future__ import annotations

from math import inf

import numpy as np
import onnx_ir as ir

from exactile_converters.constant_flow.writing_out import WritingOut

MOST_ROUNDS = 256
"""Loops with more rounds are kept."""

MOST_NODES = 50_000
"""Most nodes of all rounds together."""

FIXED = 2
"""The body takes the round and the condition before what it carries, and returns the condition first."""


def loop(node: ir.Node, at: WritingOut) -> list[ir.Node] | None:
    """Return new nodes of the main graph: one round, and a loop of the others; None if their number may change."""
    body, name = node.attributes["body"].as_graph(), node.name or ""
    if len(node.inputs) < FIXED or name in at.left:
        return None
    limit, going = _limit(node, at), _going(node, at)
    if limit is None or going is None or not (name in at.rounds or _is_decided(node, at)):
        return None
    rounds = at.rounds.get(name, [])
    if len(rounds) >= limit or not going:
        return _finish(node, rounds, at)
    most = min(MOST_ROUNDS, MOST_NODES // _size(body))
    if len(rounds) >= most or (_counts(node) and limit > most):
        return None
    round_number = at.constant(np.array(len(rounds), np.int64), f"{name}_round")
    still = at.constant(np.array(going), f"{name}_going")
    carried = [value for value in node.inputs[FIXED:] if value is not None]
    nodes, results = at.inline(node, body, (round_number, still, *carried))
    node.replace_input_with(1, results[0])
    for place in range(len(carried)):
        node.replace_input_with(FIXED + place, results[1 + place])
    at.rounds[name] = [*rounds, results[1 + len(carried) :]]
    return [*nodes, node]


def _limit(node: ir.Node, at: WritingOut) -> float | None:
    given = node.inputs[0]
    return at.known.number(given) if given is not None else inf


def _going(node: ir.Node, at: WritingOut) -> bool | None:
    given = node.inputs[1]
    if given is None:
        return True
    found = at.known.number(given)
    return bool(found) if found is not None else None


def _size(body: ir.Graph) -> int:
    return 1 + sum(1 for _ in body.all_nodes())


def _counts(node: ir.Node) -> bool:
    """Return whether the loop runs for its full trip count, since its body never ends it."""
    body = node.attributes["body"].as_graph()
    last: ir.Value | None = body.outputs[0]
    while last is not None and (maker := last.producer()) is not None and maker.op_type == "Identity":
        last = maker.inputs[0]
    return last is body.inputs[1] or (last is not None and last.const_value is not None)


def _is_decided(node: ir.Node, at: WritingOut) -> bool:
    """Return whether every round's condition follows from constants and the round alone."""
    body = node.attributes["body"].as_graph()
    inner = set(body.all_nodes())
    carried = list(zip(body.inputs[FIXED:], node.inputs[FIXED:], body.outputs[1:], strict=False))
    steady = {formal: made for formal, given, made in carried if at.known.value(given) is not None}

    def follows(value: ir.Value) -> bool:
        waiting, seen = [value], set[ir.Value]()
        while waiting:
            current = waiting.pop()
            maker = current.producer()
            if current in seen or current in steady or current.const_value is not None:
                continue
            seen.add(current)
            if maker is not None and maker in inner:
                waiting += [operand for operand in maker.inputs if operand is not None]
            elif current not in body.inputs[:FIXED] and (current in body.inputs or at.known.value(current) is None):
                return False
        return True

    while gone := [formal for formal, made in steady.items() if not follows(made)]:
        for formal in gone:
            del steady[formal]
    return follows(body.outputs[0])


def _finish(node: ir.Node, rounds: list[list[ir.Value]], at: WritingOut) -> list[ir.Node] | None:
    carried = [value for value in node.inputs[FIXED:] if value is not None]
    listed = node.outputs[len(carried) :]
    if listed and not rounds:
        return None  # empty tensors, whose shape is unknown
    made: list[ir.Node] = []
    front = at.constant(np.array([0], np.int64), f"{node.name}_front")
    for place in range(len(listed)):
        parts = []
        for results in rounds:
            made.append(at.add(node, "Unsqueeze", [at.current(results[place]), front], {}))
            parts.append(made[-1].outputs[0])
        made.append(at.add(node, "Concat", parts, {"axis": 0}))
        carried.append(made[-1].outputs[0])
    at.rounds.pop(node.name or "", None)
    return made + at.replace(node, carried)


def sequence_map(node: ir.Node, at: WritingOut) -> list[ir.Node] | None:
    """Write out the body for each entry of the sequences."""
    body = node.attributes["body"].as_graph()
    given = [value for value in node.inputs if value is not None]
    entries = {value: found for value in given if (found := at.entries(value)) is not None}
    lengths = {len(found) for found in entries.values()}
    if len(lengths) != 1 or given[0] not in entries:
        return None
    length = lengths.pop()
    if length * _size(body) > MOST_NODES:
        return None
    made: list[ir.Node] = []
    results: list[list[ir.Value]] = []
    for place in range(length):
        arguments = [entries[value][place] if value in entries else value for value in given]
        nodes, made_here = at.inline(node, body, arguments)
        made += nodes
        results.append(made_here)
    for number, output in enumerate(node.outputs):
        at.sequences[output] = tuple(made_here[number] for made_here in results)
    return made
