"""The three graphs of a strip plan: ``first``, ``body`` and ``last``.

All map rows of the image to rows of the result; ``body`` and ``last`` take the rows carried from the previous strip,
``first`` and ``body`` pass rows on. The image's true top is only in ``first``, its true bottom only in ``last``, so
that the network's own padding acts there and nowhere else. Dimension ``height`` is free in all three: any multiple of
the stride for ``first`` (from the start-up height on) and ``body``, the remaining rows for ``last``.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import onnx
import onnx_ir as ir
from onnx import helper

from exactile.contract import Carry
from exactile.contract.statistic import PREFIX
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import Label
from exactile_converters.geometry.probe import Probe
from exactile_converters.placed.lines import Arithmetic
from exactile_converters.placed.tile_graph import position_input
from exactile_converters.strips.chunks import Chunk, GraphBuilder, Role
from exactile_converters.strips.demand import Demand, demand, produced_from
from exactile_converters.strips.operators import rewrite
from exactile_converters.strips.outside import leave_outside
from exactile_converters.strips.refusal import StripError
from exactile_converters.strips.source import StripSource
from exactile_converters.strips.work import Rewriter, Work


def carries(source: StripSource, need: Demand) -> tuple[Carry, ...]:
    """Return the carried rows as tensors, in the order of the graph."""
    found = []
    for index, name in enumerate(name for name in source.frontiers.maps() if name in need.carried):
        feature = source.frontiers.feature(name)
        if "y" not in feature.labels:
            raise StripError(f"{name}: flattened rows cannot be carried")
        found.append(
            Carry(
                name=f"carry_{index}",
                of=name,
                dtype=ir.DataType(feature.dtype).numpy().name,
                shape=tuple(
                    need.carried[name] if label == "y" else None if label == "x" else size
                    for label, size in zip(feature.labels, feature.shape, strict=True)
                ),
                width_scale=feature.scale["x"],
                width_constant=feature.constant["x"],
            )
        )
    return tuple(found)


def strip_graph(source: StripSource, carry: AbstractSet[str], role: Role) -> onnx.ModelProto:
    """Build the graph of one role if the maps in ``carry`` are carried. Raises StripError."""
    return _Assembly(source, demand(source.frontiers, carry), role).assemble()


class _Assembly:
    def __init__(self, source: StripSource, need: Demand, role: Role) -> None:
        self._source, self._need, self._role = source, need, role
        self._frontiers = source.frontiers
        self._build = GraphBuilder()
        self._carries = {carry.of: carry for carry in carries(source, need)}
        height, width = source.sizes.small
        shape = tuple({"y": height, "x": width, "c": size, "n": 1}[label] for label, size in self._image_axes())
        constants = {
            name: _constant(name, value.const_value, outside=name in source.large)
            for name, value in source.model.graph.initializers.items()
            if value.const_value is not None
        }
        self._at = Rewriter(
            role=role,
            frontiers=self._frontiers,
            build=self._build,
            probe=Probe(source.model, source.image.name or "", shape, memory=source.memory),
            chunks={},
            constants=constants,
            blocked=source.blocked,
            arithmetic=Arithmetic(self._build),
            image=source.image.name or "",
            opset=int(source.model.graph.opset_imports.get("", 0)),
            told=source.told,
            makers={name: node for node in map(ir.serde.serialize_node, source.model.graph) for name in node.output},
            wholes={},
            found=_from_statistics(source.model.graph, set(self._frontiers.maps())),
        )
        self._outputs: list[onnx.ValueInfoProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []

    def assemble(self) -> onnx.ModelProto:
        name = self._source.image.name or ""
        self._declare_image(name)
        dim = self._frontiers.feature(name).labels.index("x")
        shape = self._build.add("Shape", [name])
        self._at.image_width = self._build.add(
            "Slice", [shape, self._build.integers([dim]), self._build.integers([dim + 1])]
        )
        self._arrive(name, name, self._start(name, 0))
        for node in self._frontiers.nodes:
            self._add(node)
        self._finish()
        return self._model()

    def _image_axes(self) -> list[tuple[Label, int]]:
        feature = self._frontiers.feature(self._source.image.name or "")
        return list(zip(feature.labels, feature.shape, strict=True))

    def _begin(self, name: str) -> int:
        """Return the frontier of a map before this strip."""
        return 0 if self._role == "first" else self._frontiers.known(name, self._frontiers.reference)

    def _end(self, name: str) -> int:
        """Return the frontier of a map after this strip."""
        reference = self._frontiers.reference
        if self._role == "last":
            return self._frontiers.size(name, 2 * reference + self._frontiers.remainder)
        return self._frontiers.known(name, reference if self._role == "first" else 2 * reference)

    def _start(self, name: str, rows: int) -> int:
        """Return the first row that this strip computes of a map whose last ``rows`` rows it recomputes."""
        return 0 if self._role == "first" else self._begin(name) - rows

    def _arrive(self, name: str, made: str, start: int) -> None:
        """Join new rows of a map, from ``start`` to its new frontier, to the carried ones, and carry the last ones."""
        feature, stop = self._frontiers.feature(name), self._end(name)
        chunk = Chunk(made, start, stop, feature)
        carry = self._carries.get(name)
        if carry is not None and self._role != "first":
            rows = self._need.carried[name]
            taken = f"{carry.name}_in"
            self._inputs.append(_info(taken, feature, carry))
            chunk = self._build.joined(taken, chunk, rows)
        self._at.chunks[name] = chunk
        if carry is not None and self._role != "last":
            handed = self._build.last_rows(chunk, self._need.carried[name])
            self._build.nodes.append(helper.make_node("Identity", [handed], [f"{carry.name}_out"]))
            self._outputs.append(_info(f"{carry.name}_out", feature, carry))

    def _add(self, node: ir.Node) -> None:
        results = [value.name or "" for value in node.outputs if value.name in self._frontiers.maps()]
        start = 0 if self._role == "first" else produced_from(self._frontiers, node, self._need.recomputed)
        reaches, widths = {}, {}
        for reading in self._frontiers.readings[node]:
            reaches[reading.flow.operand] = reading.reach
            widths[reading.flow.operand] = reading.flow.along("x")
        work = Work(
            node=node,
            start=start,
            stop=self._end(results[0]),
            reaches=reaches,
            widths=widths,
            result=self._frontiers.feature(results[0]),
        )
        made = rewrite(work, self._at)
        for value, name in zip(node.outputs, made, strict=True):
            if value.name in self._frontiers.maps():
                self._arrive(value.name or "", name, start)

    def _finish(self) -> None:
        name = self._source.result.name or ""
        chunk = self._at.chunks[name]
        rows = self._build.rows(chunk, self._begin(name), self._end(name))
        self._build.nodes.append(helper.make_node("Identity", [rows], [name]))
        self._outputs.insert(0, _info(name, self._frontiers.feature(name), None))

    def _declare_image(self, name: str) -> None:
        feature = self._frontiers.feature(name)
        dims = [{"y": "height", "x": "width"}.get(label, size) for label, size in self._image_axes()]
        self._inputs.append(helper.make_tensor_value_info(name, feature.dtype, dims))

    def _model(self) -> onnx.ModelProto:
        if self._source.told:
            self._inputs.append(position_input())
        used = {name for node in self._build.nodes for name in node.input}
        graph = helper.make_graph(
            self._build.nodes,
            f"strip_{self._role}",
            self._inputs,
            self._outputs,
            [tensor for name, tensor in self._build.constants.items() if name in used],
        )
        opsets = [helper.make_opsetid(domain, v) for domain, v in self._source.model.graph.opset_imports.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=min(self._source.model.ir_version, 10))


def _from_statistics(graph: ir.Graph, maps: AbstractSet[str]) -> set[str]:
    """Return the names of values that are computed only from statistics of the whole image."""
    statistics = {name for name in graph.initializers if name.startswith(PREFIX)}
    found: set[str] = set()
    for node in graph:
        read = {value.name for value in node.inputs if value is not None}
        if read & (statistics | found) and not read & maps:
            found.update(value.name for value in node.outputs if value.name)
    return found


def _constant(name: str, stored: ir.TensorProtocol, *, outside: bool) -> onnx.TensorProto:
    """Return a constant for a graph; without its values where they are stored ``outside``."""
    if outside:
        tensor = onnx.TensorProto(dims=stored.shape.numpy(), data_type=int(stored.dtype))
        if stored.doc_string:
            tensor.doc_string = stored.doc_string
        leave_outside(tensor)
    else:
        tensor = ir.serde.serialize_tensor(stored)
    tensor.name = name
    return tensor


def _info(name: str, feature: FeatureMap, carry: Carry | None) -> onnx.ValueInfoProto:
    if carry is None:
        dims: list[int | str | None] = [
            None if label in ("y", "x") else size for label, size in zip(feature.labels, feature.shape, strict=True)
        ]
    else:
        dims = [carry.width_name if size is None else size for size in carry.shape]
    return helper.make_tensor_value_info(name, feature.dtype, dims)
