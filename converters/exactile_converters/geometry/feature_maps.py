"""The forward half of the walk: which tensors are feature maps, how their axes are ordered and how they grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from math import lcm

import onnx_ir as ir

import exactile_converters.geometry.rules  # noqa: F401 - registers the rules
from exactile.geometry import Span
from exactile_converters.geometry.fact import Fact
from exactile_converters.geometry.filled_maps import filled_labels, filled_maps
from exactile_converters.geometry.mirrored import Axes, mirrored_axes
from exactile_converters.geometry.node_view import (
    FREE_OF_SIZE,
    REPORT_OPERATOR,
    SPATIAL,
    VARYING,
    Label,
    Labels,
    NodeView,
    Operand,
)
from exactile_converters.geometry.obstacle import (
    Obstacle,
    ObstacleError,
    ShapesDoNotFitError,
    UnknownShapeError,
    obstacle_at,
)
from exactile_converters.geometry.own_numbers import OwnNumbers, asks_other_axes
from exactile_converters.geometry.position_maps import Building, Growth
from exactile_converters.geometry.probe import Memory, Probe
from exactile_converters.geometry.reach import Mirror
from exactile_converters.geometry.registry import Transfer, find_rule
from exactile_converters.geometry.rules.barriers import CONTROL_FLOW, barrier
from exactile_converters.geometry.rules.pixelwise import BROADCASTING

SIZES_MAY_VARY = {
    *BROADCASTING,
    "Concat",
    "Expand",
    "MaxUnpool",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "Tile",
    "Upsample",
}
"""Operators whose rules themselves check constants that are computed from the image's size."""


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """The two probed image sizes in pixels: (height, width) each."""

    small: tuple[int, int]
    large: tuple[int, int]

    def along(self, axis: Label) -> tuple[int, int]:
        index = SPATIAL.index(axis)
        return self.small[index], self.large[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMap:
    """A tensor computed from the image. Its size along an axis is ``image size * scale + constant``."""

    name: str
    labels: Labels
    dtype: int
    shape: tuple[int, ...]
    scale: Mapping[Label, Fraction]
    constant: Mapping[Label, Fraction]


@dataclass(slots=True)
class ForwardWalk:
    """The results of the forward walk.

    ``varying`` are constants that follow the image's size. A graph that pads its image to a multiple of something
    behaves the same only for sizes that differ by ``period`` times the stride of its feature maps. ``growths`` are
    those of constants that follow the image's size, as far as they were needed. ``shifted`` are maps between a cyclic
    shift and the shift back: rows at one edge of them belong to the other edge of the image. ``mirrored`` are maps that
    are flipped relative to the image, with the flipped axes.
    """

    features: dict[str, FeatureMap] = field(default_factory=dict)
    transfers: dict[ir.Node, Transfer] = field(default_factory=dict)
    obstacles: list[Obstacle] = field(default_factory=list)
    varying: set[str] = field(default_factory=set)
    period: int = 1
    growths: dict[str, Growth] = field(default_factory=dict)
    shifted: set[str] = field(default_factory=set)
    mirrored: dict[str, Axes] = field(default_factory=dict)

    def stride(self, axis: Label) -> int:
        """Return the smallest shift of the image that is an integer shift of every feature map."""
        scales = (feature.scale[axis].denominator for feature in self.features.values() if axis in feature.scale)
        return lcm(*scales) * self.period

    def unmirrored(self, name: str, span: Span, axis: Label) -> Span:
        """Return the pixels of a map as counted where it is not flipped."""
        if axis not in self.mirrored.get(name, Axes()):
            return span
        feature = self.features[name]
        return Mirror(size=feature.shape[feature.labels.index(axis)]).needed(span)


def walk_forward(
    model: ir.Model,
    image: ir.Value,
    labels: Labels,
    channels: int,
    nodes: list[ir.Node],
    sizes: ImageSizes,
    memory: Memory | None = None,
) -> ForwardWalk:
    """Follow the image through ``nodes`` (in topological order) at two sizes; ``memory`` is as for ``Probe``."""
    walker = Walker(model, image, labels, channels, sizes, memory, filled_maps(nodes, image))
    for node in nodes:
        walker.visit(node)
    return walker.found


def image_shape(labels: Labels, channels: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of an image of ``size`` (height, width) whose axes are ``labels``."""
    sizes: dict[Label, int] = {"n": 1, "c": channels, "y": size[0], "x": size[1]}
    return tuple(sizes[label] for label in labels)


def _growth_by(shapes: list[tuple[int, ...]], sizes: ImageSizes) -> Growth | None:
    """Infer the growth from shapes at the small size, at one with more height, and at one with more width, too."""
    axes: dict[int, tuple[Label, Fraction]] = {}
    for dim, (small, tall, large) in enumerate(zip(*shapes, strict=True)):
        higher, wider = tall - small, large - tall
        if higher and wider:
            return None
        if higher:
            axes[dim] = "y", Fraction(higher, sizes.large[0] - sizes.small[0])
        if wider:
            axes[dim] = "x", Fraction(wider, sizes.large[1] - sizes.small[1])
    return Growth(shapes[0], axes)


RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


class Walker:
    """Visits nodes in topological order, as ``walk_forward`` describes, and drops the results of obstacles."""

    probe: type[Probe] = Probe

    def __init__(
        self,
        model: ir.Model,
        image: ir.Value,
        labels: Labels,
        channels: int,
        sizes: ImageSizes,
        memory: Memory | None,
        filled: frozenset[ir.Node],
    ) -> None:
        self.found = ForwardWalk()
        self._filled = filled
        self._sizes = sizes
        self._opset = int(model.graph.opset_imports.get("", 0))
        shapes = [image_shape(labels, channels, size) for size in (sizes.small, sizes.large)]
        name = image.name or ""
        self._small, self._large = (self.probe(model, name, shape, memory=memory) for shape in shapes)
        tall = image_shape(labels, channels, (sizes.large[0], sizes.small[1]))
        self._tall: Callable[[], Probe] = cache(lambda: self.probe(model, name, tall, memory=memory))
        self._unknown: set[str] = set()
        self._varying = self.found.varying
        self._numbers = OwnNumbers()
        self._labels: dict[str, Labels] = {}
        self._spaces: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}
        self._grown: dict[tuple[Label, tuple[int, int]], tuple[Fraction, Fraction]] = {}
        self._building = Building(growth_of=self._growth_of, varies=lambda value: value.name in self._varying)
        self._add(image, labels)

    def visit(self, node: ir.Node) -> None:
        names = [value.name or "" for value in node.inputs if value is not None]
        if any(name in self._unknown for name in names):
            self._lose(node)
            return
        asks_size = node.op_type in {"Shape", "Size"}
        if not any(name in self.found.features for name in names) or asks_size:
            self._visit_constant(node, names, asks_size=asks_size)
            if node in self._filled and (labels := filled_labels(self._growth_of(node.outputs[0]))) is not None:
                self._fill(node, labels)
                return
            if node.op_type not in CONTROL_FLOW:
                return
        try:
            transfer = self._apply(node)
            if axes := mirrored_axes(node, transfer, self.found.mirrored):
                self.found.mirrored.update(dict.fromkeys((value.name or "" for value in node.outputs), axes))
            for value, labels in zip(node.outputs, transfer.labels, strict=False):
                if value.name:
                    self._add(value, labels)
        except ObstacleError as error:
            self.found.obstacles.append(obstacle_at(node, error))
            self._lose(node)
        else:
            self.found.transfers[node] = transfer

    def _fill(self, node: ir.Node, labels: Labels) -> None:
        """Visit a map over which windows slide, and which no pixel reaches."""
        self._varying.discard(node.outputs[0].name or "")
        self._add(node.outputs[0], labels)
        self.found.transfers[node] = Transfer(labels=(labels,), flows=())

    def _visit_constant(self, node: ir.Node, names: list[str], *, asks_size: bool) -> None:
        """Visit what is computed without the image's pixels: from its size, at random, or from constants only."""
        asked = asks_size and any(name in self.found.features or name in self._varying for name in names)
        begins = (asked or node.op_type in RANDOM) and not asks_other_axes(node, self._labels)
        follows = any(name in self._varying for name in names) and not asks_other_axes(node, self._labels)
        if begins or follows:
            self._varying.update(value.name for value in node.outputs if value.name)
        self._numbers.visit(node, asks=begins)

    def _apply(self, node: ir.Node) -> Transfer:
        rule = find_rule(node.domain, node.op_type)
        if rule is None:
            domain = f" of domain {node.domain}" if node.domain else ""
            raise ObstacleError(f"no tiling rule is known for operator {node.op_type}{domain}", REPORT_OPERATOR)
        view = NodeView(
            node, self._opset, tuple(map(self._operand, node.inputs)), tuple(map(self._operand, node.outputs))
        )
        if rule is barrier:
            return rule(view)
        failure = self._small.failures.get(node) or self._large.failures.get(node)
        if failure:
            raise ShapesDoNotFitError(failure)
        self._check_operands(view)
        return rule(view)

    def _check_operands(self, view: NodeView) -> None:
        """Check for operands that no operator can use: tile positions, unknown constants, and size-dependent ones."""
        if view.op == "MaxUnpool":
            self._check_unpooled(view.node)
        for index, operand in enumerate(view.operands):
            if operand is None:
                continue
            value = view.node.inputs[index]
            maker = value.producer() if value is not None else None
            if (
                maker is not None
                and maker.op_type == "MaxPool"
                and value in maker.outputs[1:]
                and view.op != "MaxUnpool"
            ):
                raise ObstacleError(
                    "it computes with the positions that MaxPool found, which count from the corner of a tile",
                    "Use such positions in MaxUnpool only",
                )
            if operand.is_feature:
                continue
            if operand.small.shape is None or operand.large.shape is None:
                raise UnknownShapeError(index)
            looked_at = view.op in SIZES_MAY_VARY or (view.op == "Gather" and index == 1)
            if not looked_at and not operand.is_steady:
                raise ObstacleError(VARYING.format(index), FREE_OF_SIZE)

    def _check_unpooled(self, node: ir.Node) -> None:
        """Check that values are unpooled into a map as large as the one that was pooled, in which positions count."""
        pool = node.inputs[1].producer() if node.inputs[1] is not None else None
        if pool is None:
            return
        for probe in (self._small, self._large):
            pooled, made = probe.of(pool.inputs[0]), probe.of(node.outputs[0])
            if pooled is not None and made is not None and pooled.shape != made.shape:
                raise ObstacleError(
                    "its output is not as large as what was pooled",
                    "Leave out the output_shape input, or give that size",
                )

    def _operand(self, value: ir.Value | None) -> Operand | None:
        if value is None or not value.name:
            return None
        feature = self.found.features.get(value.name)
        missing = Fact(0, None)
        operand = Operand(
            name=value.name,
            small=self._small.of(value) or missing,
            large=self._large.of(value) or missing,
            labels=feature.labels if feature else None,
            varies=value.name in self._varying,
            by_statistics=self._numbers.of_statistics(value.name),
            unsure=self._numbers.of_both(value.name),
            space=self._spaces.get(value.name),
        )
        if feature is None and operand.varies and self._is_position(value, operand):
            return replace(operand, position=True)
        return operand

    def _is_position(self, value: ir.Value, operand: Operand) -> bool:
        """Return whether a constant varies with size or position, and a tile's piece of it can be computed."""
        growth = self._growth_of(value)
        if growth is None or (operand.is_steady and all(operand.repeats(dim) for dim in growth.axes)):
            return False
        return self._building.has_piece(value)

    def _growth_of(self, value: ir.Value) -> Growth | None:
        """Return how a constant grows; None where that is unknown, or not along one axis for each dimension."""
        name = value.name or ""
        if name not in self.found.growths:
            facts = [probe.of(value) for probe in (self._small, self._tall(), self._large)]
            shapes = [fact.shape for fact in facts if fact is not None and fact.shape is not None]
            if len(shapes) < len(facts) or len({len(shape) for shape in shapes}) != 1:
                return None
            growth = _growth_by(shapes, self._sizes)
            told = all(fact is not None and fact.value is not None for fact in facts)
            known = told or name not in self._varying or name in self._numbers.by_statistics
            if growth is None or not (growth.axes or known):
                return None
            self.found.growths[name] = growth
        return self.found.growths[name]

    def _add(self, value: ir.Value, labels: Labels) -> None:
        small, large = self._small.of(value), self._large.of(value)
        if small is None or large is None or small.shape is None or large.shape is None:
            raise ObstacleError("its output shape depends on the data", "Make it depend on the image size alone")
        scale: dict[Label, Fraction] = {}
        constant: dict[Label, Fraction] = {}
        name, along = value.name or "", {}
        for dim, label in enumerate(labels):
            sizes = small.shape[dim], large.shape[dim]
            along[label] = sizes
            if label == "yx":
                scale, constant = self._of_flattened(value, sizes)
            elif label in SPATIAL:
                scale[label], constant[label] = self._growth(label, sizes)
            elif sizes[0] != sizes[1]:
                raise ObstacleError(
                    "the image's size moves into a channel axis", "Keep height and width as axes of their own"
                )
        self._labels[name] = labels
        if "y" in along and "x" in along:
            self._spaces[name] = along["y"], along["x"]
        self.found.features[name] = FeatureMap(
            name=name, labels=labels, dtype=small.dtype, shape=small.shape, scale=scale, constant=constant
        )

    def _growth(self, label: Label, sizes: tuple[int, int]) -> tuple[Fraction, Fraction]:
        known = self._grown.get((label, sizes))
        if known is not None:
            return known
        image = self._sizes.along(label)
        scale = Fraction(sizes[1] - sizes[0], image[1] - image[0])
        if scale <= 0:
            raise ObstacleError(
                f"its output size along {label} ({sizes[0]}) does not follow the image's",
                "Export with dynamic height and width",
            )
        self._grown[label, sizes] = scale, sizes[0] - image[0] * scale
        return self._grown[label, sizes]

    def _of_flattened(
        self, value: ir.Value, sizes: tuple[int, int]
    ) -> tuple[dict[Label, Fraction], dict[Label, Fraction]]:
        """Return the growth of a map with flattened rows and columns: that of the map from which it was made."""
        node = value.producer()
        for source in node.inputs if node is not None else ():
            feature = self.found.features.get(source.name or "") if source is not None else None
            space = self._spaces.get(feature.name) if feature is not None else None
            if (
                feature is not None
                and space is not None
                and sizes == (space[0][0] * space[1][0], space[0][1] * space[1][1])
            ):
                self._spaces[value.name or ""] = space
                return dict(feature.scale), dict(feature.constant)
        raise ObstacleError("it mixes the rows and columns of the image", "Keep height and width as axes of their own")

    def _lose(self, node: ir.Node) -> None:
        self._unknown.update(value.name for value in node.outputs if value.name)
