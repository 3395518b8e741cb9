"""The graph and the geometry of a pass that begins at kept maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from exactile.contract.kept_map import KeptMap
from exactile.geometry import AxisGeometry
from exactile_converters.geometry.feature_maps import FeatureMap, ForwardWalk
from exactile_converters.geometry.node_view import SPATIAL, Label
from exactile_converters.geometry.trace import FAR_PX, ancestors, has_placed, margins, needed_spans
from exactile_converters.graphs.builder import Builder
from exactile_converters.passes.walks import Walks


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What one pass computes: ``nodes``, from the maps that it ``reads`` (and the ``image``); it ``writes`` others."""

    nodes: tuple[ir.Node, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    image: bool


def pass_geometry(
    walk: ForwardWalk, segment: Segment, targets: Iterable[str], image: str, axis: Label, remainder: int
) -> AxisGeometry:
    """Return the geometry of zones of the image in the maps that a pass reads, for its ``targets``.

    Its stride is that of the pass's own maps. ``walk`` is that for images of ``remainder`` modulo the network's stride.
    """
    nodes = list(segment.nodes)
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
        size_constant=Fraction(stride),  # zones must reach the end of every map
        remainder=remainder % stride,
        placed=has_placed(own, nodes, axis),
        others=(),
    )


def begin_at(
    model: ir.Model, reads: Sequence[KeptMap], writes: Sequence[KeptMap], walks: Walks, image: str
) -> set[str]:
    """Give a wrapped graph inputs for the maps that it ``reads``, and outputs for those that it ``writes``, in place.

    ``image`` is the name of the image's map in the network. Returns the maps whose size the graph uses without
    computing them: these sizes are written for images of the first remainder.
    """
    graph = model.graph
    values = {value.name: value for node in graph for value in node.outputs}
    for one in reads:
        old = values[one.output]
        new = ir.Value(name=one.input, type=ir.TensorType(_type(one)), shape=ir.Shape(one.dims))
        old.replace_all_uses_with(new)
        graph.inputs.append(new)
    made_here = set(_computed(model, writes))
    asked = _write_sizes(model, walks, made_here, {one.output for one in reads}, image)
    for one in writes:
        value = values[one.output]
        value.type = ir.TensorType(_type(one))
        graph.outputs.append(value)
    kept = set(ancestors(model, *graph.outputs))
    graph.remove([node for node in graph if node not in kept], safe=True)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]
    graph.sort()
    return asked


def _type(one: KeptMap) -> ir.DataType:
    return ir.DataType.from_numpy(np.dtype(one.dtype))


def _computed(model: ir.Model, writes: Sequence[KeptMap]) -> Iterable[ir.Node]:
    """Return the nodes that compute results and kept maps, without maps of which only the size is used."""
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


def _write_sizes(model: ir.Model, walks: Walks, made: set[ir.Node], read: set[str], image: str) -> set[str]:
    """Compute the size of maps that a pass does not compute from the tile's size.

    It keeps its name, by which what is computed from the whole image's size is found.
    """
    graph = model.graph
    build = Builder(graph, "exactile_size")
    lengths = None
    asked: set[str] = set()
    known = walks.along["y"][walks.first[0]].features
    for node in [node for node in graph if node.op_type == "Shape" and node in made]:
        value = node.inputs[0]
        name = (value.name or "") if value is not None else ""
        maker = value.producer() if value is not None else None
        if maker is None or maker in made or name in read or name not in known or name == image:
            continue
        lengths = lengths or build.add("Shape", graph.inputs[0])
        asked.add(name)
        feature = known[name]
        entries = []
        for label, size in zip(feature.labels, feature.shape, strict=True):
            along = [_length(build, lengths, walks.feature(name, axis), axis) for axis in SPATIAL if axis in label]
            entries.append(along[0] if along else build.constant(np.array([size], np.int64)))
            if len(along) > 1:
                entries[-1] = build.add("Mul", *along)
        wanted = entries[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(entries))]
        found = node.outputs[0]
        asked_as = found.name
        found.name = f"{asked_as}_of_tile"
        found.replace_all_uses_with(build.add("Concat", *wanted, name=asked_as, axis=0))
    return asked


def _length(build: Builder, lengths: ir.Value, feature: FeatureMap, axis: Label) -> ir.Value:
    """Return the rows or columns of a map, from those of the image."""
    scale, constant = feature.scale[axis], feature.constant[axis]
    length = build.add("Gather", lengths, build.constant(np.array([SPATIAL.index(axis)], np.int64)), axis=0)
    length = build.add("Mul", length, build.constant(np.array([scale.numerator], np.int64)))
    length = build.add("Add", length, build.constant(np.array([int(constant * scale.denominator)], np.int64)))
    return build.add("Div", length, build.constant(np.array([scale.denominator], np.int64)))
