"""Build the graph of a pass: a tile in, partial statistics of its zone out; see ``exactile.contract.statistic``.

Rows are summed in float32 and the sums of rows in float64, so that large zones lose no digits; squares are those of
deviations from the zone's own mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from exactile.contract import POSITION, ImageInput, ResultOutput
from exactile.contract.statistic import PARTIALS, WHOLE_MAP, ZONE
from exactile.plan.zones import TO_THE_END
from exactile_converters.geometry.feature_maps import FeatureMap
from exactile_converters.geometry.node_view import SPATIAL, Label, Labels
from exactile_converters.geometry.trace import Traced, ancestors
from exactile_converters.graphs.builder import Builder
from exactile_converters.graphs.image_in import IMAGE, prepend_image
from exactile_converters.graphs.io import Wrapped
from exactile_converters.networks.network import Network
from exactile_converters.networks.normalization import Normalization
from exactile_converters.passes.bin_partials import Within, bin_parts
from exactile_converters.passes.products import Factors, factors_of, lengths_of
from exactile_converters.passes.reductions import Reduction
from exactile_converters.passes.taking import AXES_BY_INPUT
from exactile_converters.placed.find import line_of

FLOAT, DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE

Values = Mapping[str | None, ir.Value]
Added = tuple[list[ir.Value], list[ir.Value]]
"""Vectors, and further inputs of the graph."""


def wrap_partials(
    network: Network,
    traced: Traced,
    reductions: Sequence[Reduction],
    *,
    image_dtype: str,
    normalization: Normalization,
    also: Sequence[str] = (),
) -> Wrapped:
    """Wrap a copy of ``network``: stored samples go in, partial statistics for ``reductions`` come out.

    The nodes that compute the maps ``also`` are kept. With bins, the tile's position is an input,
    ``exactile.contract.POSITION``.

    Raises OptionError, ModelError, ChannelError.
    """

    def added(build: Builder, values: Values) -> Added:
        zone = ir.Value(name=ZONE, shape=ir.Shape([4]), type=ir.TensorType(ir.DataType.INT64))
        position = ir.Value(name=POSITION, shape=ir.Shape([4]), type=ir.TensorType(ir.DataType.INT64))
        tail = _Tail(build, zone, position, traced, int(network.model.graph.opset_imports.get("", 0)))
        parts = [part for one in reductions for part in tail.of(one, values[one.of.name])]
        return parts, [zone, *([position] if position.uses() else [])]

    return wrap_tail(network, added, image_dtype=image_dtype, normalization=normalization, also=also)


def wrap_tail(
    network: Network,
    added: Callable[[Builder, Values], Added],
    *,
    image_dtype: str,
    normalization: Normalization,
    also: Sequence[str] = (),
    dtype: ir.DataType = DOUBLE,
) -> Wrapped:
    """Wrap a copy of ``network``: stored samples go in, vectors of ``dtype`` come out, one after the other.

    ``added`` computes them from the network's values, by name, and returns the inputs that they need.
    """
    copy = network.copy()
    graph = copy.model.graph
    itself = ir.node("Identity", [copy.image], name="exactile_image_itself")
    itself.outputs[0].name = "exactile_image_itself"
    graph.append(itself)  # the image as the network takes it
    name = copy.image.name
    image = prepend_image(copy, image_dtype, normalization)
    values = {value.name: value for node in graph for value in node.outputs}
    values[name] = itself.outputs[0]
    build = Builder(graph, "exactile_partial")
    parts, further = added(build, values)
    result = build.add("Concat", *parts, name=PARTIALS, axis=0)
    result.type = ir.TensorType(dtype)
    result.shape = ir.Shape([None])
    graph.inputs[:] = [image, *further]
    graph.outputs[:] = [result]
    for node in graph:
        for value in node.outputs:
            if value is not result:
                value.shape = None
    kept = set(ancestors(copy.model, result, *(values[name] for name in also)))
    graph.remove([node for node in graph if node not in kept], safe=True)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]
    graph.sort()
    return Wrapped(
        model=copy.model,
        image=ImageInput(name=IMAGE, dtype=image_dtype, channels=copy.channels, statistics=normalization.statistics),
        result=ResultOutput(name=PARTIALS, kind="raw", dtype="float64", channels=0),
    )


def over_everything(model: ir.Model) -> None:
    """Fix the zone of a pass graph to the whole tile, in place, so that its shapes are known before it runs."""
    graph = model.graph
    zone = next(value for value in graph.inputs if value.name == ZONE)
    graph.inputs.remove(zone)
    whole = np.array([0, TO_THE_END, 0, TO_THE_END], np.int64)
    zone.const_value = ir.tensor(whole, name=ZONE)
    graph.register_initializer(zone)


class _Tail:
    """Adds the nodes that reduce a zone of a map."""

    def __init__(self, build: Builder, zone: ir.Value, position: ir.Value, traced: Traced, opset: int) -> None:
        self._build, self._zone, self._position = build, zone, position
        self._traced, self._opset = traced, opset

    def of(self, reduction: Reduction, value: ir.Value) -> list[ir.Value]:
        """Return the numbers of a statistic, float64: each a vector."""
        build, labels = self._build, reduction.labels
        feature = self._traced.features[reduction.of.name or ""]
        factors = factors_of(value) if reduction.kind == "sum" else None
        if factors is not None:
            return self._products(factors, lengths_of(value), feature)
        part = self._part(value, feature, labels)
        if feature.dtype != FLOAT.value:
            part = build.add("Cast", part, to=FLOAT.value)
        if reduction.grid != WHOLE_MAP:
            return bin_parts(build, reduction, part, self._within(feature), self._opset)
        channels = prod(size for size, label in zip(feature.shape, labels, strict=True) if label == "c")
        pixels = build.add("Cast", build.add("Size", part), to=DOUBLE.value)
        pixels = build.add("Div", pixels, build.constant(np.array([channels], np.float64)))
        if reduction.kind in ("mean", "sum"):
            return [pixels, self._sum("ReduceSum", part, labels)]
        if reduction.kind in ("maximum", "minimum"):
            operator = "ReduceMax" if reduction.kind == "maximum" else "ReduceMin"
            found = self._reduced(operator, part, self._over(labels))
            return [pixels, build.add("Cast", self._vector(found), to=DOUBLE.value)]
        near = self._reduced("ReduceMean", part, self._over(labels))
        apart = build.add("Sub", part, near)
        number = build.add("Cast", self._vector(near), to=DOUBLE.value)
        return [
            pixels,
            number,
            self._sum("ReduceSum", apart, labels),
            self._sum("ReduceSumSquare", apart, labels),
        ]

    def _products(self, factors: Factors, lengths: ir.Value, feature: FeatureMap) -> list[ir.Value]:
        """Return the zone's pixels, and the products of ``factors``: of each row in float32, their sum in float64."""
        build = self._build
        *lead, first, second = feature.shape[:-2]
        at, parts = len(lead), []
        channels_first: Label = "c"
        channelled: Labels = (*[channels_first] * (at + 1), *SPATIAL)
        for value, channels in zip(factors, (first, second), strict=True):
            sizes = build.add("Concat", build.constant(np.array([*lead, channels], np.int64)), lengths, axis=0)
            parts.append(self._part(build.add("Reshape", value, sizes), feature, channelled))
        pixels = build.add("Cast", build.add("Size", parts[0]), to=DOUBLE.value)
        pixels = build.add("Div", pixels, build.constant(np.array([prod(lead) * first], np.float64)))
        left = build.add("Transpose", parts[0], perm=[*range(at), at + 1, at, at + 2])
        right = build.add("Transpose", parts[1], perm=[*range(at), at + 1, at + 2, at])
        rows = build.add("Cast", build.add("MatMul", left, right), to=DOUBLE.value)
        return [pixels, self._vector(self._reduced("ReduceSum", rows, (at,)))]

    def _part(self, value: ir.Value, feature: FeatureMap, labels: Labels) -> ir.Value:
        """Return the zone's part of a map."""
        bounds = self._bound(feature, 0), self._bound(feature, 1)
        axes = self._build.axes(*(labels.index(axis) for axis in SPATIAL))
        return self._build.add("Slice", value, *bounds, axes)

    def _bound(self, feature: FeatureMap, which: int) -> ir.Value:
        """Return the zone's first row and column in the tile's map, or its end."""
        build = self._build
        found = build.add("Gather", self._zone, build.constant(np.array([which, 2 + which], np.int64)), axis=0)
        numerators, denominators = zip(*(feature.scale[axis].as_integer_ratio() for axis in SPATIAL), strict=True)
        found = build.add("Mul", found, build.constant(np.array(numerators, np.int64)))
        return build.add("Div", found, build.constant(np.array(denominators, np.int64)))

    def _within(self, feature: FeatureMap) -> dict[Label, Within]:
        first = self._bound(feature, 0)
        return {
            axis: Within(
                first=self._build.add("Gather", first, self._build.axes(index), axis=0),
                position=self._position,
                line=line_of(self._traced, feature.name, axis),
            )
            for index, axis in enumerate(SPATIAL)
        }

    def _over(self, labels: Labels) -> tuple[int, ...]:
        return tuple(dim for dim, label in enumerate(labels) if label != "c")

    def _sum(self, operator: str, part: ir.Value, labels: Labels) -> ir.Value:
        """Sum within rows in float32, and over rows in float64."""
        rows = self._build.add("Cast", self._reduced(operator, part, (labels.index("x"),)), to=DOUBLE.value)
        return self._vector(self._reduced("ReduceSum", rows, self._over(labels)))

    def _reduced(self, operator: str, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        build = self._build
        if operator == "ReduceSum" or self._opset >= AXES_BY_INPUT:
            return build.add(operator, value, build.axes(*axes), keepdims=1)
        return build.add(operator, value, axes=axes, keepdims=1)

    def _vector(self, value: ir.Value) -> ir.Value:
        return self._build.add("Reshape", value, self._build.axes(-1))
