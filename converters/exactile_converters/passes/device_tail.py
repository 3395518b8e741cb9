"""Build the graph of a pass for GPUs: a tile and masks of columns in, numbers of each row out, all float32.

See ``exactile.contract.device_graph``. A zone's bounds enter only as masks: neither TensorRT nor ONNX Runtime's CUDA
provider has all operators to compute them, and values outside of a zone are arbitrary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from exactile.contract.device_graph import COLUMNS, DevicePass, MapLine, width_name
from exactile.engines.device_partials import DevicePartials
from exactile_converters.geometry.node_view import SPATIAL, Label, Labels
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.builder import Builder
from exactile_converters.graphs.io import Wrapped
from exactile_converters.networks.network import Network
from exactile_converters.networks.normalization import Normalization
from exactile_converters.passes.partials import FLOAT, Added, Values, wrap_tail
from exactile_converters.passes.reductions import Reduction
from exactile_converters.passes.statistics import statistic_of
from exactile_converters.passes.taking import AXES_BY_INPUT
from exactile_converters.placed.find import line_of

Maps = tuple[tuple[MapLine, MapLine], ...]


def maps_of(traced: Traced, reductions: Sequence[Reduction]) -> Maps:
    """Return how the maps of ``reductions`` grow, along rows and along columns."""
    return tuple((_line(traced, one, "y"), _line(traced, one, "x")) for one in reductions)


def wrap_device_partials(
    network: Network,
    traced: Traced,
    reductions: Sequence[Reduction],
    *,
    image_dtype: str,
    normalization: Normalization,
) -> Wrapped:
    """Wrap a copy of ``network`` as the graph of ``exactile.contract.device_graph.DevicePass``.

    Raises OptionError, ModelError, ChannelError.
    """
    told = DevicePartials(
        statistics=tuple(statistic_of(one, traced) for one in reductions), maps=maps_of(traced, reductions)
    )

    def added(build: Builder, values: Values) -> Added:
        tail = _Tail(build, told, traced, int(network.model.graph.opset_imports.get("", 0)))
        return [part for one in reductions for part in tail.of(one, values[one.of.name])], tail.masks

    return wrap_tail(network, added, image_dtype=image_dtype, normalization=normalization, dtype=FLOAT)


def device_pass(graph: bytes, traced: Traced, reductions: Sequence[Reduction]) -> DevicePass:
    """Return the device pass of ``graph``, which ``wrap_device_partials`` built."""
    return DevicePass(graph=graph, maps=maps_of(traced, reductions))


def _line(traced: Traced, reduction: Reduction, axis: Label) -> MapLine:
    line = line_of(traced, reduction.of.name or "", axis)
    return MapLine(line.scale, line.stride, tuple(sorted(line.constants.items())))


class _Tail:
    """Adds the nodes that reduce the rows of a map."""

    def __init__(self, build: Builder, told: DevicePartials, traced: Traced, opset: int) -> None:
        self._build, self._told, self._traced, self._opset = build, told, traced, opset
        self.masks = [
            ir.Value(
                name=f"{COLUMNS}{index}",
                shape=ir.Shape([bins, width_name(f"{COLUMNS}{index}")]),
                type=ir.TensorType(FLOAT),
            )
            for index, (_, bins) in enumerate(told.masks)
        ]

    def of(self, reduction: Reduction, value: ir.Value) -> list[ir.Value]:
        """Return the vectors of a statistic, float32."""
        build, labels = self._build, reduction.labels
        if self._traced.features[reduction.of.name or ""].dtype != FLOAT.value:
            value = build.add("Cast", value, to=FLOAT.value)
        bins = reduction.grid[1]
        mask = self.masks[self._told.masks.index((_line(self._traced, reduction, "x"), bins))]
        within = [self._mask(mask, index, labels) for index in range(bins)]
        if reduction.kind == "moments":
            return self._moments(value, within[0], labels)
        operator, outside = {
            "maximum": ("ReduceMax", -np.inf),
            "minimum": ("ReduceMin", np.inf),
        }.get(reduction.kind, ("ReduceSum", 0.0))
        return [self._rows(operator, self._chosen(one, value, outside), labels) for one in within]

    def _moments(self, value: ir.Value, mask: ir.Value, labels: Labels) -> list[ir.Value]:
        """Return, for each row, the mean, the sum of deviations from it, and the sum of their squares."""
        build = self._build
        ones = self._chosen(mask, build.constant(np.array(1, np.float32)), 0.0)
        pixels = self._reduced("ReduceSum", ones, labels)
        total = self._reduced("ReduceSum", self._chosen(mask, value, 0.0), labels)
        mean = build.add("Div", total, pixels)
        apart = self._chosen(mask, build.add("Sub", value, mean), 0.0)
        squares = build.add("Mul", apart, apart)
        return [
            self._vector(mean, labels),
            self._rows("ReduceSum", apart, labels),
            self._rows("ReduceSum", squares, labels),
        ]

    def _mask(self, masks: ir.Value, index: int, labels: Labels) -> ir.Value:
        """Return a bool array as wide as the map: the columns of one bin."""
        build = self._build
        one = build.add("Gather", masks, build.axes(index), axis=0)
        one = build.add("Reshape", one, build.axes(*(-1 if label == "x" else 1 for label in labels)))
        return build.add("Greater", one, build.constant(np.array(0.5, np.float32)))

    def _chosen(self, mask: ir.Value, value: ir.Value, outside: float) -> ir.Value:
        """Return ``value`` where the mask is true, else ``outside``; values not chosen may be NaN."""
        return self._build.add("Where", mask, value, self._build.constant(np.array(outside, np.float32)))

    def _rows(self, operator: str, value: ir.Value, labels: Labels) -> ir.Value:
        return self._vector(self._reduced(operator, value, labels), labels)

    def _reduced(self, operator: str, value: ir.Value, labels: Labels) -> ir.Value:
        build, axis = self._build, labels.index(SPATIAL[1])
        if operator == "ReduceSum" or self._opset >= AXES_BY_INPUT:
            return build.add(operator, value, build.axes(axis), keepdims=1)
        return build.add(operator, value, axes=(axis,), keepdims=1)

    def _vector(self, value: ir.Value, labels: Labels) -> ir.Value:
        """Flatten to a vector: channels first, then rows."""
        rows = labels.index(SPATIAL[0])
        if "c" in labels[rows:]:
            value = self._build.add(
                "Transpose", value, perm=[*(dim for dim in range(len(labels)) if dim != rows), rows]
            )
        return self._build.add("Reshape", value, self._build.axes(-1))
