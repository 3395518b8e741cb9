"""Replace ``max_unpool2d``, as PyTorch's dynamo exporter writes it, by the operator MaxUnpool.

MaxPool reports where it found a value as its place in the whole tensor, ``(n * C + c) * H * W + y * W + x``. PyTorch
counts within a plane. So the exporter subtracts the places of all planes' first pixels, which a MaxPool of a single
pixel yields; ``max_unpool2d`` adds them again, and the values are scattered over flat zeros::

    MaxPool -> values    ----------------------------------- Reshape (-1) --.
            -> indices - first pixels + planes * (H * W) --> Reshape (-1) --> ScatterND over zeros --> Reshape

What is subtracted and added must cancel, and there must be as many zeros as there were pixels before pooling, at image
sizes of several remainders: then the scattered tensor is what MaxUnpool computes from the indices themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.geometry.feature_maps import image_shape
from exactile_converters.geometry.node_view import Labels
from exactile_converters.geometry.probe import Memory, Probe

SIZES = ((1440, 2880), (2880, 4320), (1441, 2883), (2883, 4321))
"""Images for which places are compared: two that nearly every network takes, and two that it may refuse."""

MUST_BE_TAKEN = 2
"""The number of sizes, from the first, that the network must take."""

ADDING = {"Add": 1, "Sub": -1}


def write_unpooling(model: ir.Model, image: ir.Value, labels: Labels, channels: int) -> bool:
    """Change ``model`` in place, and return whether anything was changed."""
    scatters = [node for node in model.graph if node.op_type == "ScatterND" and not node.domain]
    found = [one for node in scatters if (one := _match(node)) is not None]
    if not found:
        return False
    memory: Memory = {}
    name = image.name or ""
    probes = [Probe(model, name, image_shape(labels, channels, size), memory=memory) for size in SIZES]
    proven = [one for one in found if one.cancels(probes)]
    for one in proven:
        one.rewrite()
    return bool(proven)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unpooling:
    """Values scattered over zeros of ``shape`` by ``index``, which is computed from the indices of ``pool``."""

    pool: ir.Node
    values: ir.Value
    index: ir.Value
    shape: ir.Value
    last: ir.Node

    def cancels(self, probes: Sequence[Probe]) -> bool:
        """Return whether nothing is added to the indices, and there is a zero for each pixel before pooling."""
        return all(self._cancels(probe) or (number >= MUST_BE_TAKEN and self._is_refused(probe))
                   for number, probe in enumerate(probes))  # fmt: skip

    def _cancels(self, probe: Probe) -> bool:
        pooled, made = (_shape(probe, value) for value in (self.pool.inputs[0], self.last.outputs[0]))
        zeros = probe.of(self.shape)
        if pooled is None or made != pooled or zeros is None or zeros.value is None:
            return False
        if tuple(int(size) for size in zeros.value.ravel()) != pooled:
            return False
        offset = np.zeros((), np.int64)
        for sign, leaf in _summands(self.index):
            if leaf is self.pool.outputs[1]:
                continue
            known = _number(leaf, probe)
            if known is None:
                return False
            offset = offset + sign * known
        return not offset.any()

    def _is_refused(self, probe: Probe) -> bool:
        return _shape(probe, self.last.outputs[0]) is None

    def rewrite(self) -> None:
        """Insert MaxUnpool. Nodes that are no longer read are left."""
        graph, made = self.last.graph, self.last.outputs[0]
        assert graph is not None
        windows = {name: list(self.pool.attributes.get_ints(name, ())) for name in ("kernel_shape", "strides")}
        inputs = [self.values, self.pool.outputs[1], self.shape]
        node = ir.node("MaxUnpool", inputs, attributes=windows, name=f"{made.name}_unpool")
        node.outputs[0].name, node.outputs[0].type = f"{made.name}_unpooled", made.type
        graph.insert_before(self.last, [node])
        is_output, name = made.is_graph_output(), made.name
        made.replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
        if is_output:
            made.name, node.outputs[0].name = node.outputs[0].name, name


def _match(scatter: ir.Node) -> _Unpooling | None:
    """Return the unpooling around a ScatterND; None where it is something else."""
    if scatter.attributes.get_string("reduction", "none") != "none":
        return None
    zeros, column, flat_values = (_made_by(value) for value in scatter.inputs)
    readers = [reader for reader, _ in scatter.outputs[0].uses()]
    if not _flattens(zeros) or not _flattens(flat_values) or column is None or column.op_type != "Unsqueeze":
        return None
    flat_index, fill = _made_by(column.inputs[0]), _made_by(zeros.inputs[0]) if zeros is not None else None
    shape = _zeros_of(fill)
    if not _flattens(flat_index) or shape is None or len(readers) != 1 or readers[0].op_type != "Reshape":
        return None
    assert flat_index is not None
    assert flat_values is not None
    index, values = flat_index.inputs[0], flat_values.inputs[0]
    pool = _pool_of(index)
    if pool is None or index is None or values is None or not _covers(pool):
        return None
    return _Unpooling(pool=pool, values=values, index=index, shape=shape, last=readers[0])


def _made_by(value: ir.Value | None) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and not node.domain else None


def _flattens(node: ir.Node | None) -> bool:
    """Return whether the node flattens all dimensions into one."""
    target = node.inputs[1] if node is not None and node.op_type == "Reshape" else None
    return target is not None and target.const_value is not None and target.const_value.numpy().tolist() == [-1]


def _zeros_of(fill: ir.Node | None) -> ir.Value | None:
    """Return the shape of a map of zeros."""
    if fill is None or fill.op_type != "ConstantOfShape":
        return None
    number = fill.attributes.get("value")
    return fill.inputs[0] if number is None or not number.as_tensor().numpy().any() else None


def _summands(value: ir.Value | None, sign: int = 1) -> Iterator[tuple[int, ir.Value | None]]:
    """Yield the summands of ``value``, each with its sign."""
    node = _made_by(value)
    if node is None or node.op_type not in ADDING:
        yield sign, value
        return
    yield from _summands(node.inputs[0], sign)
    yield from _summands(node.inputs[1], sign * ADDING[node.op_type])


def _pool_of(index: ir.Value | None) -> ir.Node | None:
    """Return the MaxPool whose indices are added once, where the other summands do not depend on pixels."""
    found = [
        (sign, node)
        for sign, leaf in _summands(index)
        if (node := _made_by(leaf)) is not None and node.op_type == "MaxPool" and leaf is node.outputs[1]
    ]
    return found[0][1] if len(found) == 1 and found[0][0] == 1 else None


def _covers(pool: ir.Node) -> bool:
    """Return whether windows do not overlap: no value comes from two."""
    kernel = pool.attributes.get_ints("kernel_shape", ())
    others = {name: pool.attributes.get_ints(name, ()) for name in ("pads", "dilations")}
    plain = not any(others["pads"]) and all(step == 1 for step in others["dilations"])
    automatic = pool.attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID", ""}
    counted = pool.attributes.get_int("storage_order", 0) or pool.attributes.get_int("ceil_mode", 0)
    return plain and not automatic and not counted and list(kernel) == list(pool.attributes.get_ints("strides", ()))


def _number(leaf: ir.Value | None, probe: Probe) -> NDArray[Any] | None:
    """Return a constant at the probe's size, including the places of the first pixels of all planes."""
    fact = probe.of(leaf)
    if fact is not None and fact.value is not None:
        return fact.value
    cut = _made_by(leaf)
    single = _made_by(cut.inputs[0]) if cut is not None and cut.op_type == "Slice" else None
    if cut is None or single is None or single.op_type != "MaxPool" or cut.inputs[0] is not single.outputs[1]:
        return None
    pooled = _shape(probe, single.inputs[0])
    if pooled is None or not _is_first_pixel(cut, probe) or set(single.attributes.get_ints("kernel_shape", ())) != {1}:
        return None
    planes = prod(pooled[:2])
    return np.arange(planes, dtype=np.int64).reshape(*pooled[:2], 1, 1) * prod(pooled[2:])


def _is_first_pixel(cut: ir.Node, probe: Probe) -> bool:
    wanted: Mapping[int, list[int]] = {1: [0, 0], 2: [1, 1], 3: [2, 3]}
    facts = {place: probe.of(cut.inputs[place]) for place in wanted if place < len(cut.inputs)}
    known = {place: fact.value.ravel().tolist() for place, fact in facts.items() if fact and fact.value is not None}
    return len(cut.inputs) == len(wanted) + 1 and known == wanted


def _shape(probe: Probe, value: ir.Value | None) -> tuple[int, ...] | None:
    fact = probe.of(value)
    return fact.shape if fact is not None else None
