"""The graph and the geometry of a pass that begins at kept maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from exactile.geometry import AxisGeometry
from exactile.passes.kept_map import KeptMap
from exactile_converters.geometry.feature_maps import FeatureMap, ForwardWalk
from exactile_converters.geometry.node_view import SPATIAL, Label
from exactile_converters.geometry.trace import FAR_PX, Traced, ancestors, has_placed, margins, needed_spans
from exactile_converters.graphs.builder import Builder
from exactile_converters.passes.keeping import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class AtSize:
    """A traced network at one image size, (height, width): what holds along each axis there."""

    size: tuple[int, int]
    walks: Mapping[Label, ForwardWalk]

    @classmethod
    def of(cls, traced: Traced, size: tuple[int, int]) -> AtSize | None:
        """None where images of this size are extended, or cannot be cut."""
        assert traced.geometry is not None
        walks: dict[Label, ForwardWalk] = {}
        for axis, base, px in zip(SPATIAL, (traced.geometry.y, traced.geometry.x), size, strict=True):
            found = base.of_size(px)
            walk = traced.walk if found.remainder == base.remainder else traced.own.get((axis, found.remainder))
            if walk is None or found.one_pass or not base.takes(px):
                return None
            walks[axis] = walk
        return cls(size=size, walks=walks)

    def pixels(self, axis: Label) -> int:
        return self.size[SPATIAL.index(axis)]

    def feature(self, name: str, axis: Label) -> FeatureMap:
        return self.walks[axis].features[name]

    def kept(self, name: str, index: int) -> KeptMap:
        """The map ``name``, kept as the ``index``-th."""
        feature = self.feature(name, "y")
        return KeptMap(
            output=name,
            input=f"exactile_kept_{index}",
            dtype=ir.DataType(feature.dtype).numpy().name,
            shape=tuple(
                None if label in SPATIAL else size for label, size in zip(feature.labels, feature.shape, strict=True)
            ),
            rows_first=feature.labels.index("y") < feature.labels.index("x"),
            scale=(self.feature(name, "y").scale["y"], self.feature(name, "x").scale["x"]),
            constant=(self.feature(name, "y").constant["y"], self.feature(name, "x").constant["x"]),
        )


def pass_geometry(at: AtSize, segment: Segment, targets: Iterable[str], image: str, axis: Label) -> AxisGeometry:
    """How far zones of the image look in what a pass reads, for its ``targets``; of the stride of its own maps."""
    walk, nodes = at.walks[axis], list(segment.nodes)
    names = [*segment.reads, *(value.name or "" for node in nodes for value in node.outputs), image]
    own = ForwardWalk(
        features={name: walk.features[name] for name in names if name in walk.features},
        transfers={node: walk.transfers[node] for node in nodes if node in walk.transfers},
        period=walk.period,
    )
    stride = own.stride(axis)
    before = after = 0
    for name in targets:
        result = own.features[name]
        _, behind = margins(own, needed_spans(own, nodes, result, axis, last_px=FAR_PX), axis)
        ahead, _ = margins(own, needed_spans(own, nodes, result, axis, last_px=stride + behind), axis)
        before, after = max(before, ahead), max(after, behind)
    return AxisGeometry(
        stride=stride,
        before=before,
        after=after,
        scale=Fraction(1),
        size_constant=Fraction(stride),  # zones are to reach the end of every map
        remainder=at.pixels(axis) % stride,
        placed=has_placed(own, nodes, axis),
        others=(),
    )


def begin_at(model: ir.Model, reads: Sequence[KeptMap], writes: Sequence[KeptMap], at: AtSize, image: str) -> None:
    """Have a wrapped graph take the maps that it ``reads`` by inputs, and give those that it ``writes``, in place.

    ``image`` is the name of the image's map in the network.
    """
    graph = model.graph
    values = {value.name: value for node in graph for value in node.outputs}
    for one in reads:
        old = values[one.output]
        new = ir.Value(name=one.input, type=ir.TensorType(_type(one)), shape=ir.Shape(one.dims))
        old.replace_all_uses_with(new)
        graph.inputs.append(new)
    made_here = set(_computed(model, writes))
    _write_sizes(model, at, made_here, {one.output for one in reads}, image)
    for one in writes:
        value = values[one.output]
        value.type = ir.TensorType(_type(one))
        graph.outputs.append(value)
    kept = set(ancestors(model, *graph.outputs))
    graph.remove([node for node in graph if node not in kept], safe=True)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]
    graph.sort()


def _type(one: KeptMap) -> ir.DataType:
    return ir.DataType.from_numpy(np.dtype(one.dtype))


def _computed(model: ir.Model, writes: Sequence[KeptMap]) -> Iterable[ir.Node]:
    """What results and kept maps are computed from, whose sizes alone are asked for left out."""
    wanted = {one.output for one in writes}
    stack = [value.producer() for value in model.graph.outputs]
    stack += [node for node in model.graph if any(value.name in wanted for value in node.outputs)]
    found: set[ir.Node] = set()
    while stack:
        node = stack.pop()
        if node is None or node in found:
            continue
        found.add(node)
        if node.op_type not in {"Shape", "Size"}:
            stack.extend(value.producer() for value in node.inputs if value is not None)
    return found


def _write_sizes(model: ir.Model, at: AtSize, made: set[ir.Node], read: set[str], image: str) -> None:
    """Where a pass asks for the size of a map that it does not compute, the size follows from the tile's."""
    graph = model.graph
    build = Builder(graph, "exactile_size")
    lengths = None
    for node in [node for node in graph if node.op_type == "Shape" and node in made]:
        value = node.inputs[0]
        name = (value.name or "") if value is not None else ""
        maker = value.producer() if value is not None else None
        if maker is None or maker in made or name in read or name not in at.walks["y"].features or name == image:
            continue
        lengths = lengths or build.add("Shape", graph.inputs[0])
        feature = at.feature(name, "y")
        entries = []
        for label, size in zip(feature.labels, feature.shape, strict=True):
            if label not in SPATIAL:
                entries.append(build.constant(np.array([size], np.int64)))
                continue
            own = at.feature(name, label)
            scale, constant = own.scale[label], own.constant[label]
            length = build.add("Gather", lengths, build.constant(np.array([SPATIAL.index(label)], np.int64)), axis=0)
            length = build.add("Mul", length, build.constant(np.array([scale.numerator], np.int64)))
            more = int(constant * scale.denominator)
            length = build.add("Add", length, build.constant(np.array([more], np.int64)))
            entries.append(build.add("Div", length, build.constant(np.array([scale.denominator], np.int64))))
        wanted = entries[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(entries))]
        node.outputs[0].replace_all_uses_with(build.add("Concat", *wanted, axis=0))
