"""The state of a strip graph while it is built: where the rows of each map are, and copies of nodes."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.probe import Probe, without_repeats
from exactile_converters.geometry.reach import Reach, Window
from exactile_converters.placed.lines import Arithmetic
from exactile_converters.placed.told import Told
from exactile_converters.strips.chunks import Chunk, GraphBuilder, Role
from exactile_converters.strips.frontier import Frontiers
from exactile_converters.strips.refusal import StripError

ONE_ROW = Window()

LAYOUT_MATTERS = {"BatchNormalization", "Add", "Sum", "Mul", "Concat", "Resize", "Upsample"}
"""Operators whose kernel, and so its rounding or that of the next one, depends on the layout of its input."""


@dataclass(slots=True, kw_only=True)
class Rewriter:
    """The state of one graph while it is built: where each map's chunk is."""

    role: Role
    frontiers: Frontiers
    build: GraphBuilder
    probe: Probe
    chunks: dict[str, Chunk]
    constants: dict[str, onnx.TensorProto]
    blocked: Mapping[str, int]
    arithmetic: Arithmetic
    image: str
    opset: int
    told: Told
    makers: Mapping[str, onnx.NodeProto]
    wholes: dict[str, str]
    found: AbstractSet[str]
    """What is computed from statistics of the whole image, and so is not a constant of the graph."""
    image_width: str = ""

    def chunk(self, value: ir.Value | None) -> Chunk:
        if value is None or value.name not in self.chunks:
            raise StripError("an operand is not at hand")
        return self.chunks[value.name or ""]

    def rows(self, value: ir.Value | None, start: int, stop: int, work: Work) -> str:
        """Return the rows ``start`` to ``stop`` of an operand of ``work``, in the layout that a whole pass gives it."""
        chunk = self.chunk(value)
        name = self.build.rows(chunk, start, stop)
        if work.node.op_type in LAYOUT_MATTERS and work.result.name in self.blocked:
            return self.build.blocked(name, chunk.feature, self.blocked[work.result.name])
        return name

    def is_feature(self, value: ir.Value | None) -> bool:
        return value is not None and value.name in self.frontiers.maps()

    def feature(self, value: ir.Value | None) -> FeatureMap:
        return self.frontiers.feature(value.name or "" if value is not None else "")

    def value(self, value: ir.Value | None) -> NDArray[Any]:
        """Return a constant operand's value."""
        fact = self.probe.of(value)
        if fact is None or fact.value is None or (value is not None and value.name in self.found):
            raise StripError("a constant operand has no known value")
        return fact.value

    def parameter(self, value: ir.Value | None) -> str:
        """Return a constant operand unchanged."""
        if value is None or not value.name:
            return ""
        if value.name in self.constants:
            self.build.constants[value.name] = self.constants[value.name]
            return value.name
        if value.name in self.found or self._is_dequantized(value.name):
            return self._computed(value.name)
        return self.build.constant(without_repeats(self.value(value)))

    def _is_dequantized(self, name: str) -> bool:
        """Return whether it is a quantised weight of a floating-point operator.

        ONNX Runtime dequantises such weights in each run, and uses other kernels for weights that are constants.
        """
        maker = self.makers.get(name)
        return maker is not None and maker.op_type == "DequantizeLinear" and set(maker.input) <= self.constants.keys()

    def _computed(self, name: str) -> str:
        """Add what each strip computes again: what follows from statistics of the whole image; quantised weights."""
        if name not in self.wholes:
            node = self.makers[name]
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            inputs = [self.parameter(ir.Value(name=operand)) for operand in node.input]
            outputs = [self.build.fresh(output) if output else "" for output in node.output]
            copied.name = f"{outputs[0]}_node"
            del copied.input[:], copied.output[:]
            copied.input.extend(inputs)
            copied.output.extend(outputs)
            self.build.nodes.append(copied)
            self.wholes.update(zip(node.output, outputs, strict=True))
        return self.wholes[name]

    def uniform(self, value: ir.Value | None, result: FeatureMap) -> str:
        """Return a constant operand that is the same all over the image, with one entry along y and x."""
        name = value.name or "" if value is not None else ""
        fact = self.probe.of(value)
        if fact is None or fact.shape is None:
            raise StripError(f"the shape of {name} is not known")
        labels = result.labels[len(result.labels) - len(fact.shape) :] if fact.shape else ()
        spread = [dim for dim, label in enumerate(labels) if label in ("y", "x", "yx") and fact.shape[dim] != 1]
        if not spread:
            return self.parameter(value)
        maker = self.makers.get(name)
        if name in self.found and maker is not None and maker.op_type == "Expand":
            return self.uniform(ir.Value(name=maker.input[0]), result)
        index = tuple(slice(0, 1) if dim in spread else slice(None) for dim in range(len(fact.shape)))
        return self.build.constant(self.value(value)[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One node and the rows of its result to compute: ``start`` to ``stop``, at the reference height."""

    node: ir.Node
    start: int
    stop: int
    reaches: dict[int, Reach]
    widths: dict[int, Reach]
    result: FeatureMap

    def reach(self, operand: int = 0) -> Reach:
        return self.reaches[operand]

    @property
    def rows(self) -> int:
        return self.stop - self.start


def copy(work: Work, at: Rewriter, inputs: list[str], **changes: Any) -> list[str]:
    """Copy the node with other inputs and some attributes changed (None removes one)."""
    proto = ir.serde.serialize_node(work.node)
    names = [at.build.fresh(value.name) if value.name else "" for value in work.node.outputs]
    kept = [attribute for attribute in proto.attribute if attribute.name not in changes]
    copy = onnx.NodeProto(op_type=proto.op_type, domain=proto.domain, name=f"{names[0]}_node")
    copy.input.extend(inputs)
    copy.output.extend(names)
    copy.attribute.extend(kept)
    copy.attribute.extend(
        onnx.helper.make_attribute(name, value) for name, value in changes.items() if value is not None
    )
    at.build.nodes.append(copy)
    return names
