"""Find which sizes a network accepts unchanged, and the geometry for each.

What a network does at its far edge (windows that are dropped or rounded up, how SAME padding is split, what an output
padding adds) depends on the image's size modulo the stride. The walk at multiples of the stride does not show other
sizes; so the graph is walked again for each remainder, along one axis at a time:

1. There is no obstacle: tiles whose length has this remainder treat their end as one pass does.
2. The network accepts such sizes, but an operator then depends on the position (it resizes to the size of another
   map): such images are run in one piece along this axis.
3. Maps that must have the same size do not: the network refuses such sizes, and images are extended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import floor

import onnx_ir as ir

from exactile.geometry import AxisGeometry, Geometry
from exactile_converters.geometry.feature_maps import FeatureMap, ForwardWalk, ImageSizes, image_shape, walk_forward
from exactile_converters.geometry.node_view import SPATIAL, Label, Labels
from exactile_converters.geometry.obstacle import Obstacle
from exactile_converters.geometry.period import ASKING, first_difference
from exactile_converters.geometry.probe import FOLD_LIMIT_ELEMENTS, Probe, not_regrouped
from exactile_converters.geometry.shifted_windows import MASK_ELEMENTS, check_shifted_windows
from exactile_converters.geometry.size_decisions import check_size_decisions
from exactile_converters.geometry.trace import Traced, axis_geometry, needed_spans
from exactile_converters.geometry.window_changes import written_alike

MOST_REMAINDERS = 64
"""With a larger stride, only the sizes of known images are examined."""

SMALL_STRIDES = 4
"""A size run in one piece is also examined for an image of this many strides."""


def with_own_sizes(
    traced: Traced,
    model: ir.Model,
    image: ir.Value,
    output: ir.Value,
    *,
    labels: Labels,
    channels: int,
    image_size: tuple[int, int] | None = None,
) -> Traced:
    """Return ``traced`` with the sizes that the network accepts unchanged; with obstacles, return it unchanged.

    Where ``image_size``, (height, width), is given, only this size is examined. ``model`` is the unchanged graph that
    was traced.
    """
    if traced.geometry is None:
        return traced
    search = _Search(traced, model, image, output, labels, channels)
    height, width = image_size or (None, None)
    y, x = search.others("y", height), search.others("x", width)
    if not search.hold_together(y or (), x or ()):
        y, x = None, None
        search.walks, search.in_one_piece = {}, {}
    geometry = Geometry(y=replace(traced.geometry.y, others=y), x=replace(traced.geometry.x, others=x))
    return replace(traced, geometry=geometry, own=search.walks, in_one_piece=search.in_one_piece, memory={})


class _Search:
    def __init__(
        self, traced: Traced, model: ir.Model, image: ir.Value, output: ir.Value, labels: Labels, channels: int
    ) -> None:
        assert traced.geometry is not None
        self._traced, self._model, self._image, self._output = traced, model, image, output
        self._labels, self._channels = labels, channels
        self._nodes = list(traced.nodes)
        self._geometry: dict[Label, AxisGeometry] = {"y": traced.geometry.y, "x": traced.geometry.x}
        self._memory = traced.memory
        self.walks: dict[tuple[Label, int], ForwardWalk] = {}
        self.in_one_piece: dict[tuple[Label, int], dict[str, Fraction]] = {}
        self._asks = any(node.op_type in ASKING for node in self._nodes)

    def others(self, axis: Label, size: int | None) -> tuple[AxisGeometry, ...] | None:
        """Return the geometries of other remainders along ``axis``, or that of ``size``; None if there are too many."""
        base = self._geometry[axis]
        if size is None and base.stride > MOST_REMAINDERS:
            return None
        wanted = range(base.stride) if size is None else (size % base.stride,)
        found = [self._at(axis, remainder) for remainder in wanted if remainder != base.remainder]
        return tuple(one for one in found if one is not None)

    def hold_together(self, y: Sequence[AxisGeometry], x: Sequence[AxisGeometry]) -> bool:
        """Return whether the geometry of one axis also holds if the size along the other is not a multiple, either.

        Operators act on one axis at a time; what is computed from the image's size may mix them.
        """
        return not self._asks or all(self._hold_both(*pair) for pair in zip(y, x, strict=False))

    def _hold_both(self, y: AxisGeometry, x: AxisGeometry) -> bool:
        told: dict[Label, AxisGeometry | None] = {"y": y, "x": x}
        walk, sizes = self._walk({"y": self._more("y", y.remainder), "x": self._more("x", x.remainder)})
        if y.one_pass or x.one_pass:
            return self._sizes_as_told(sizes, told) is not None
        result = walk.features.get(self._output.name or "")
        self._check_windows(walk, (y.remainder or y.stride, x.remainder or x.stride))
        if walk.obstacles or result is None:
            return False
        return all(
            one is not None and self._conclude(walk, result, axis, one.remainder) == one for axis, one in told.items()
        )

    def _more(self, axis: Label, remainder: int) -> int:
        base = self._geometry[axis]
        return (remainder - base.remainder) % base.stride

    def _walk(self, more: dict[Label, int]) -> tuple[ForwardWalk, ImageSizes]:
        small, large = (
            (size[0] + more.get("y", 0), size[1] + more.get("x", 0))
            for size in (self._traced.sizes.small, self._traced.sizes.large)
        )
        sizes = ImageSizes(small, large)
        walk = walk_forward(self._model, self._image, self._labels, self._channels, self._nodes, sizes, self._memory)
        walk.period = self._traced.walk.period
        return walk, sizes

    def _at(self, axis: Label, remainder: int) -> AxisGeometry | None:
        """Return the geometry for sizes of ``remainder`` along ``axis``; None where the network refuses them."""
        more, stride = self._more(axis, remainder), self._geometry[axis].stride
        walk, sizes = self._walk({axis: more})
        if not walk.obstacles and self._asks:
            other, _ = self._walk({axis: more + stride})
            if first_difference(walk, other, self._nodes) is not None:
                return None  # it behaves differently at each size
        if not walk.obstacles:
            self._decide(walk, sizes, axis, remainder)
        if walk.obstacles:
            return self._in_one_piece(walk.obstacles, sizes, axis, remainder)
        result = walk.features.get(self._output.name or "")
        if result is None or not self._grows_alike(walk) or not self._written_alike(walk):
            return None
        return self._conclude(walk, result, axis, remainder)

    def _decide(self, walk: ForwardWalk, sizes: ImageSizes, axis: Label, remainder: int) -> None:
        """Add obstacles where the graph decides by the image's size, or a mask or cyclic shift does not hold."""
        smallest = {along: one.remainder or one.stride for along, one in self._geometry.items()}
        smallest[axis] = remainder or smallest[axis]
        self._check_windows(walk, (smallest["y"], smallest["x"]))
        check_size_decisions(
            walk,
            self._nodes,
            self._probe,
            base=sizes.large[0] - sizes.small[0],
            smallest=(smallest["y"], smallest["x"]),
        )

    def _check_windows(self, walk: ForwardWalk, smallest: tuple[int, int]) -> None:
        check_shifted_windows(
            walk,
            self._nodes,
            lambda place: self._probe(place, MASK_ELEMENTS),
            smallest=smallest,
            results=(self._output,),
            needed=lambda feature, axis, wanted: needed_spans(walk, self._nodes, feature, axis, wanted=wanted),
        )

    def _probe(self, size: tuple[int, int], most_elements: int = FOLD_LIMIT_ELEMENTS) -> Probe:
        shape = image_shape(self._labels, self._channels, size)
        name = self._image.name or ""
        return Probe(self._model, name, shape, memory=self._memory, most_elements=most_elements)

    def _grows_alike(self, walk: ForwardWalk) -> bool:
        """Return whether all maps have the scales that they have at multiples of the stride."""
        base = self._traced.features
        return walk.features.keys() == base.keys() and all(
            feature.scale == base[name].scale and feature.labels == base[name].labels
            for name, feature in walk.features.items()
        )

    def _written_alike(self, walk: ForwardWalk) -> bool:
        """Return whether graphs that are written for multiples of the stride are right for these sizes, too.

        Windows are written as numbers; and MaxUnpool restores values in a map of its own size.
        """
        for node in self._nodes:
            pool = node.inputs[1].producer() if node.op_type == "MaxUnpool" and node.inputs[1] is not None else None
            if pool is None:
                continue
            pooled, made = (walk.features[v.name or ""] for v in (pool.inputs[0], node.outputs[0]) if v is not None)
            if pooled.shape != made.shape:
                return False
        shapes = [
            {name: feature.shape for name, feature in maps.items()} for maps in (self._traced.features, walk.features)
        ]
        return written_alike(self._nodes, *shapes)

    def _conclude(self, walk: ForwardWalk, result: FeatureMap, axis: Label, remainder: int) -> AxisGeometry | None:
        base = self._geometry[axis]
        if walk.stride(axis) != base.stride or result.scale[axis] != base.scale:
            return None
        found = axis_geometry(walk, self._nodes, result, axis, remainder)
        self.walks[axis, remainder] = walk
        return replace(found, origin=base.origin, least=_least(walk, self._nodes, axis, remainder, base.stride))

    def _in_one_piece(
        self, obstacles: Sequence[Obstacle], sizes: ImageSizes, axis: Label, remainder: int
    ) -> AxisGeometry | None:
        """Return the geometry for sizes that the network accepts but at which it cannot be tiled; None if refused."""
        if any(obstacle.sizes_differ for obstacle in obstacles):
            return None
        first = obstacles[0]
        base = self._geometry[axis]
        known: dict[Label, AxisGeometry | None] = dict(self._geometry)
        constant = self._sizes_as_told(sizes, known | {axis: None}, axis)
        if constant is None:
            return None
        small = {along: one.accepted_size(SMALL_STRIDES * one.stride) for along, one in self._geometry.items()}
        small[axis] = SMALL_STRIDES * base.stride + remainder
        told = replace(
            base,
            remainder=remainder,
            size_constant=constant,
            others=None,
            one_pass=first.summary,
        )
        place = small["y"], small["x"]
        if self._sizes_as_told(ImageSizes(place, place), known | {axis: told}) is None:
            return None
        facts = self._probe(sizes.small).facts.items()
        shapes = {name: fact.shape for name, fact in facts if fact.shape is not None}
        base_shapes = {name: feature.shape for name, feature in self._traced.features.items()}
        if not written_alike(self._nodes, base_shapes, shapes):
            return None
        self.in_one_piece[axis, remainder] = self._constants(shapes, sizes.small[SPATIAL.index(axis)], axis)
        return told

    def _constants(self, shapes: Mapping[str, tuple[int, ...]], size: int, axis: Label) -> dict[str, Fraction]:
        """Return the pixels that maps have along ``axis`` beyond their share of an image of ``size`` pixels."""
        return {
            name: shapes[name][feature.labels.index(axis)] - size * feature.scale[axis]
            for name, feature in self._traced.features.items()
            if axis in feature.labels and name in shapes
        }

    def _sizes_as_told(
        self, sizes: ImageSizes, geometry: dict[Label, AxisGeometry | None], axis: Label = "y"
    ) -> Fraction | None:
        """Return the size constant of the result along ``axis``; None where its size is not that of ``geometry``."""
        constants = set()
        base = self._geometry[axis]
        labels = self._traced.features[self._output.name or ""].labels
        for place in (sizes.small, sizes.large):
            probe = self._probe(place)
            fact = probe.of(self._output)
            if (
                fact is None
                or fact.shape is None
                or any(node in probe.failures or not_regrouped(node, probe) for node in self._nodes)
            ):
                return None
            made = dict(zip(labels, fact.shape, strict=True))
            size = dict(zip(SPATIAL, place, strict=True))
            for along, one in geometry.items():
                if one is not None and made[along] != one.output_size(size[along]):
                    return None
            constants.add(made[axis] - size[axis] * base.scale)
        return constants.pop() if len(constants) == 1 else None


def _least(walk: ForwardWalk, nodes: Sequence[ir.Node], axis: Label, remainder: int, stride: int) -> int:
    """Return the smallest size of ``remainder`` at which every map has a pixel, and reflection what it reflects."""
    wanted = {name: 1 for name, feature in walk.features.items() if axis in feature.scale}
    for node in nodes:
        transfer = walk.transfers.get(node)
        for flow in transfer.flows if transfer is not None else ():
            value = node.inputs[flow.operand]
            if value is not None and value.name in wanted and axis in flow.reflected:
                wanted[value.name] = max(wanted[value.name], 1 + max(flow.reflected[axis]))
    least = max(
        1,
        *(
            -floor(-(px - walk.features[name].constant[axis]) / walk.features[name].scale[axis])
            for name, px in wanted.items()
        ),
    )
    return least + (remainder - least) % stride
