"""The forward half of the walk: which tensors are feature maps, how their axes are ordered and how they grow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm

import onnx_ir as ir

import exactile_converters.geometry.rules  # noqa: F401 - registers the rules
from exactile_converters.geometry.node_view import REPORT_OPERATOR, SPATIAL, Label, Labels, NodeView, Operand
from exactile_converters.geometry.obstacle import Obstacle, ObstacleError
from exactile_converters.geometry.probe import Fact, Probe
from exactile_converters.geometry.registry import Transfer, find_rule


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
    """Everything the forward walk found out."""

    features: dict[str, FeatureMap] = field(default_factory=dict)
    transfers: dict[ir.Node, Transfer] = field(default_factory=dict)
    obstacles: list[Obstacle] = field(default_factory=list)

    def stride(self, axis: Label) -> int:
        """The smallest shift of the image that is a whole shift of every feature map."""
        return lcm(*(feature.scale[axis].denominator for feature in self.features.values() if axis in feature.scale))


def walk_forward(
    model: ir.Model, image: ir.Value, labels: Labels, channels: int, nodes: list[ir.Node], sizes: ImageSizes
) -> ForwardWalk:
    """Follow the image through ``nodes`` (in topological order) at two sizes."""
    walker = _Walker(model, image, labels, channels, sizes)
    for node in nodes:
        walker.visit(node)
    return walker.found


class _Walker:
    def __init__(self, model: ir.Model, image: ir.Value, labels: Labels, channels: int, sizes: ImageSizes) -> None:
        self.found = ForwardWalk()
        self._sizes = sizes
        self._opset = int(model.graph.opset_imports.get("", 0))
        shapes = [
            tuple({"n": 1, "c": channels, "y": height, "x": width}[label] for label in labels)
            for height, width in (sizes.small, sizes.large)
        ]
        name = image.name or ""
        self._small, self._large = (Probe(model, name, shape) for shape in shapes)
        self._unknown: set[str] = set()
        self._add(image, labels)

    def visit(self, node: ir.Node) -> None:
        names = [value.name or "" for value in node.inputs if value is not None]
        if any(name in self._unknown for name in names):
            self._lose(node)
            return
        if not any(name in self.found.features for name in names) or node.op_type in {"Shape", "Size"}:
            return
        try:
            transfer = self._apply(node)
            for value, labels in zip(node.outputs, transfer.labels, strict=False):
                if value.name:
                    self._add(value, labels)
        except ObstacleError as error:
            self.found.obstacles.append(
                Obstacle(
                    node=node.name or node.outputs[0].name or "?",
                    op=node.op_type,
                    reason=error.reason,
                    remedy=error.remedy,
                )
            )
            self._lose(node)
        else:
            self.found.transfers[node] = transfer

    def _apply(self, node: ir.Node) -> Transfer:
        rule = find_rule(node.domain, node.op_type)
        if rule is None:
            domain = f" of domain {node.domain}" if node.domain else ""
            raise ObstacleError(f"no tiling rule is known for operator {node.op_type}{domain}", REPORT_OPERATOR)
        failure = self._small.failures.get(node) or self._large.failures.get(node)
        view = NodeView(
            node, self._opset, tuple(map(self._operand, node.inputs)), tuple(map(self._operand, node.outputs))
        )
        if failure:
            raise ObstacleError(f"its shapes do not fit: {failure}", "Check the model with the framework that made it")
        return rule(view)

    def _operand(self, value: ir.Value | None) -> Operand | None:
        if value is None or not value.name:
            return None
        feature = self.found.features.get(value.name)
        missing = Fact(0, None)
        return Operand(
            name=value.name,
            small=self._small.of(value) or missing,
            large=self._large.of(value) or missing,
            labels=feature.labels if feature else None,
        )

    def _add(self, value: ir.Value, labels: Labels) -> None:
        small, large = self._small.of(value), self._large.of(value)
        if small is None or large is None or small.shape is None or large.shape is None:
            raise ObstacleError("its output shape depends on the data", "Make it depend on the image size alone")
        scale: dict[Label, Fraction] = {}
        constant: dict[Label, Fraction] = {}
        for dim, label in enumerate(labels):
            if label not in SPATIAL:
                if small.shape[dim] != large.shape[dim]:
                    raise ObstacleError(
                        "the image's size moves into a channel axis", "Keep height and width as axes of their own"
                    )
                continue
            image = self._sizes.along(label)
            scale[label] = Fraction(large.shape[dim] - small.shape[dim], image[1] - image[0])
            constant[label] = small.shape[dim] - image[0] * scale[label]
            if scale[label] <= 0:
                raise ObstacleError(
                    f"its output size along {label} ({small.shape[dim]}) does not follow the image's",
                    "Export with dynamic height and width",
                )
        name = value.name or ""
        self.found.features[name] = FeatureMap(
            name=name, labels=labels, dtype=small.dtype, shape=small.shape, scale=scale, constant=constant
        )

    def _lose(self, node: ir.Node) -> None:
        self._unknown.update(value.name for value in node.outputs if value.name)
