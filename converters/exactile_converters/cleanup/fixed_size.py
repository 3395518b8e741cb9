"""Release a model that was exported at one image size: sizes baked into it follow the image again.

An exporter writes what it computes from a fixed size as numbers: targets of Reshape and Expand, ends of Slice, sizes of
Resize, output shapes of transposed convolutions. At the exported size the model computes the same as before.

Shape arithmetic at three sizes (the exported one, one with more rows, one with more columns) shows which numbers follow
the image. It is run node by node, and each node is released before the next is examined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.cleanup.regrouping import Target, targets
from exactile_converters.geometry.node_view import Labels
from exactile_converters.geometry.probe import Probe
from exactile_converters.geometry.rules.slicing import UNBOUNDED

MORE_PX = 40320
"""Additional rows or columns: a multiple of all usual strides, so that an accepted size stays accepted."""

LARGEST_LOCAL_WINDOW = 3
"""Pooling windows up to this size may cover a map only because it was exported small."""


def release_fixed_size(model: ir.Model, image: ir.Value, labels: Labels) -> None:
    """Let height and width of a model exported at one size vary. What cannot be released safely is left unchanged."""
    dims = list(image.shape) if image.shape is not None else []
    sizes = [1 if label == "n" else dim for dim, label in zip(dims, labels, strict=True)]
    if not all(isinstance(size, int) for size in sizes):
        return
    if any(node.op_type in _RELEASES for node in model.graph):
        _Release(model, image, tuple(cast("int", size) for size in sizes), labels).run()


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Shape of a value at the exported size, with more rows, and with more columns."""

    exported: tuple[int, ...]
    taller: tuple[int, ...]
    wider: tuple[int, ...]

    def follows(self, dim: int) -> bool:
        return len({sizes[dim] for sizes in (self.exported, self.taller, self.wider)}) > 1

    @property
    def following(self) -> list[int]:
        """Return the dimensions that follow the image's size."""
        return [dim for dim in range(len(self.exported)) if self.follows(dim)]


class _Release:
    def __init__(self, model: ir.Model, image: ir.Value, sizes: tuple[int, ...], labels: Labels) -> None:
        self._graph = model.graph
        shapes = [
            tuple(size + MORE_PX * (label == longer) for size, label in zip(sizes, labels, strict=True))
            for longer in ("", "y", "x")
        ]
        self._probes = [Probe(model, image.name or "", shape, visits=False) for shape in shapes]
        self._count = 0

    def run(self) -> None:
        for node in list(self._graph):
            release = _RELEASES.get(node.op_type)
            operand = self.sizes(node.inputs[0]) if release is not None and node.inputs else None
            if release is not None and operand is not None and operand.following:
                with suppress(IndexError, TypeError, ValueError, ZeroDivisionError):  # the walk reports what is damaged
                    release(node, operand, self)
            self.visit(node)

    def visit(self, node: ir.Node) -> None:
        for probe in self._probes:
            probe.visit(node)

    def sizes(self, value: ir.Value | None) -> _Sizes | None:
        """Return the sizes of ``value``; None if they are unknown because something before it fixes the size."""
        shapes = [fact.shape if (fact := probe.of(value)) is not None else None for probe in self._probes]
        found = [shape for shape in shapes if shape is not None]
        return _Sizes(*found) if len(found) == len(shapes) and len({len(shape) for shape in found}) == 1 else None

    def made(self, node: ir.Node) -> _Sizes | None:
        """Return the sizes of the unchanged ``node``'s result."""
        self.visit(node)
        found = self.sizes(node.outputs[0])
        for probe in self._probes:
            probe.failures.pop(node, None)
        return found

    def exported_shape(self, node: ir.Node) -> tuple[int, ...] | None:
        """Return the shape of the result of ``node`` at the exported size."""
        probe = self._probes[0]
        probe.visit(node)
        fact = probe.of(node.outputs[0])
        return fact.shape if fact is not None else None

    def constant(self, value: ir.Value | None) -> NDArray[Any] | None:
        """Return the value of an input that is the same at all three sizes."""
        values = [fact.value if (fact := probe.of(value)) is not None else None for probe in self._probes]
        first = values[0]
        same = first is not None and all(other is not None and np.array_equal(first, other) for other in values[1:])
        return first if same else None

    def new_constant(self, node: ir.Node, array: NDArray[Any]) -> ir.Value:
        self._count += 1
        name = f"{node.outputs[0].name}_released_{self._count}"
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        self._graph.register_initializer(value)
        for probe in self._probes:
            probe.learn(name, value)
        return value

    def new_node(self, before: ir.Node, op: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        self._count += 1
        name = f"{before.outputs[0].name}_released_{self._count}"
        node = ir.node(op, inputs, attributes=attributes, name=f"{name}_{op}")
        node.outputs[0].name = name
        self._graph.insert_before(before, node)
        self.visit(node)
        return node.outputs[0]


def _reshape(node: ir.Node, operand: _Sizes, at: _Release) -> None:
    """Compute the target from the operand's shape, unless it already follows the image."""
    exported = at.exported_shape(node)
    wanted = targets(operand.exported, operand.following, exported) if exported is not None else None
    if wanted is None:
        return
    made = at.made(node)
    pairs = [(operand.taller, made.taller), (operand.wider, made.wider)] if made is not None else []
    holds = bool(pairs) and all(prod(before) == prod(after) for before, after in pairs)
    if holds and at.constant(node.inputs[1]) is None:
        return
    if not holds or any([target.size(before) for target in wanted] != list(after) for before, after in pairs):
        node.replace_input_with(1, _computed_shape(node, wanted, at))


def _computed_shape(node: ir.Node, wanted: Sequence[Target], at: _Release) -> ir.Value:
    source = node.inputs[0]
    if source is None:
        raise ValueError("Reshape has no operand")
    shape = at.new_node(node, "Shape", source)
    entries = []
    for target in wanted:
        numbers = [at.new_constant(node, np.array([value], np.int64)) for value in (target.times, target.over)]
        sizes = [
            at.new_node(node, "Gather", shape, at.new_constant(node, np.array([dim], np.int64)), axis=0)
            for dim in target.dims
        ]
        value = numbers[0]
        for size in sizes:
            value = at.new_node(node, "Mul", value, size)
        entries.append(at.new_node(node, "Div", value, numbers[1]) if target.over > 1 else value)
    return at.new_node(node, "Concat", *entries, axis=0)


def _expand(node: ir.Node, operand: _Sizes, at: _Release) -> None:
    """Replace dimensions that keep their size by 1."""
    target = at.constant(node.inputs[1])
    if target is None:
        return
    freed, rank = target.copy(), len(operand.exported)
    for dim in operand.following:
        back = dim - rank
        if -back <= len(freed) and freed[back] == operand.exported[dim]:
            freed[back] = 1
    if not np.array_equal(freed, target):
        node.replace_input_with(1, at.new_constant(node, freed))


def _slice(node: ir.Node, operand: _Sizes, at: _Release) -> None:
    """Count an end that crops less than half of the image from the image's end."""
    starts, ends = (at.constant(value) for value in node.inputs[1:3])
    given = [at.constant(value) for value in node.inputs[3:] if value is not None]
    if starts is None or ends is None or any(value is None for value in given):
        return
    steps = at.constant(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else None
    axes = at.constant(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    freed, rank = ends.copy(), len(operand.exported)
    for place, end in enumerate(int(end) for end in ends):
        axis = int(axes[place]) % rank if axes is not None else place
        size, start = operand.exported[axis], int(starts[place])
        forward = steps is None or steps[place] > 0
        if not operand.follows(axis) or not forward or end < 0 or end >= UNBOUNDED:
            continue
        if end >= size:
            freed[place] = np.iinfo(ends.dtype).max
        elif (end - (start + size if start < 0 else start)) * 2 > size:
            freed[place] = end - size
    if not np.array_equal(freed, ends):
        node.replace_input_with(2, at.new_constant(node, freed))


def _resize(node: ir.Node, operand: _Sizes, at: _Release) -> None:
    """Resize by factors instead of to sizes."""
    if len(node.inputs) <= 3:
        return
    grown = at.exported_shape(node)
    if grown is None:
        return
    factors = [out / size for out, size in zip(grown, operand.exported, strict=True)]
    node.replace_input_with(2, at.new_constant(node, np.array(factors, np.float32)))
    node.replace_input_with(3, None)


def _transposed(node: ir.Node, operand: _Sizes, at: _Release) -> None:
    """Replace an output shape by pads and output padding, by the formulas of the ONNX ConvTranspose operator."""
    shape = node.attributes.get_ints("output_shape", ())
    weight = at.constant(node.inputs[1])
    if not shape or weight is None:
        return
    axes = len(operand.exported) - 2
    strides = node.attributes.get_ints("strides", [1] * axes)
    dilations = node.attributes.get_ints("dilations", [1] * axes)
    extra = list(node.attributes.get_ints("output_padding", [0] * axes))
    before, after = [], []
    for axis in range(axes):
        extent = (weight.shape[axis + 2] - 1) * dilations[axis] + 1
        total = strides[axis] * (operand.exported[axis + 2] - 1) + extra[axis] + extent - shape[axis - axes]
        if total < 0:
            extra[axis], total = extra[axis] - total, 0
        upper = node.attributes.get_string("auto_pad", "NOTSET") == "SAME_UPPER"
        before.append(total // 2 if upper else total - total // 2)
        after.append(total - before[-1])
    for name in ("output_shape", "auto_pad"):
        node.attributes.pop(name, None)
    node.attributes.add(ir.AttrInt64s("pads", [*before, *after]))
    node.attributes.add(ir.AttrInt64s("output_padding", extra))


def _pool(node: ir.Node, operand: _Sizes, _at: _Release) -> None:
    """Replace a large window that covers the whole map by the global pooling that was meant, an obstacle."""
    kernel = tuple(node.attributes.get_ints("kernel_shape", ()))
    if (
        kernel != operand.exported[2:]
        or min(kernel) <= LARGEST_LOCAL_WINDOW
        or any(node.attributes.get_ints("pads", ()))
    ):
        return
    node.op_type = f"Global{node.op_type}"
    node.attributes.clear()


_RELEASES: dict[str, Callable[[ir.Node, _Sizes, _Release], None]] = {
    "Reshape": _reshape,
    "Expand": _expand,
    "Slice": _slice,
    "Resize": _resize,
    "ConvTranspose": _transposed,
    "AveragePool": _pool,
    "MaxPool": _pool,
}
