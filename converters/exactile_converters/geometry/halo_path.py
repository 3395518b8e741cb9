"""Explain the halo: which operators make it, and how the needed interval widens towards the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import onnx_ir as ir

from exactile.geometry import Geometry, Span
from exactile_converters.geometry.node_view import Label
from exactile_converters.geometry.origin import origins
from exactile_converters.geometry.reach import Window
from exactile_converters.geometry.registry import Flow, Transfer
from exactile_converters.geometry.trace import Traced, needed_spans

Side = Literal["top", "bottom", "left", "right"]
SIDES: dict[Side, Label] = {"top": "y", "bottom": "y", "left": "x", "right": "x"}
BEFORE: tuple[Side, Side] = ("top", "left")
IMAGE = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStep:
    """One operator on the way from the output to the image. ``adds`` and ``cumulative`` are in image pixels."""

    node: str
    op: str
    adds: Fraction
    cumulative: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What is needed of the feature map of ``node``: image pixels relative to the output box's first.

    ``node`` and ``op`` are "image" for the image itself. ``position`` counts nodes from the image on.
    """

    node: str
    op: str
    position: int
    scale: Fraction
    start: Fraction
    stop: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """A feature map made by the node at position ``made`` that bypasses coarser ones to the node at ``used``."""

    made: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HaloProfile:
    """How the halo grows on the widest ``side``.

    ``steps``, from the output to the image, are those that add to it; ``layers``, from the output to the image, are the
    feature maps of operators that read more than one pixel. The output box has ``stride_px`` pixels.
    """

    side: Side
    stride_px: int
    steps: tuple[PathStep, ...]
    layers: tuple[Layer, ...]
    skips: tuple[Skip, ...]


def halo_profile(traced: Traced, output: str) -> HaloProfile:
    """Return the profile of a tileable network for its output named ``output``."""
    if traced.geometry is None:
        raise ValueError("a network with obstacles has no halo")
    side = widest_side(traced.geometry)
    view = _View(traced, output, side)
    return HaloProfile(
        side=side,
        stride_px=traced.walk.stride(SIDES[side]),
        steps=tuple(step for step in reversed(list(view.steps())) if step.adds != 0),
        layers=tuple(reversed(list(view.layers()))),
        skips=tuple(view.skips()),
    )


def widest_side(geometry: Geometry) -> Side:
    """Return the side with the largest halo; of equal ones the first of top, bottom, left, right."""
    halos: dict[Side, int] = {
        "top": geometry.y.halo_before,
        "bottom": geometry.y.halo_after,
        "left": geometry.x.halo_before,
        "right": geometry.x.halo_after,
    }
    return max(halos, key=lambda side: halos[side])


class _View:
    """A traced network along the axis of one side."""

    def __init__(self, traced: Traced, output: str, side: Side) -> None:
        self._axis = SIDES[side]
        self._before = side in BEFORE
        self._features, self._walk = traced.features, traced.walk
        self._transfers: Mapping[ir.Node, Transfer] = traced.walk.transfers
        self._nodes = [node for node in traced.nodes if node in self._transfers]
        self._spans = needed_spans(traced.walk, traced.nodes, traced.features[output], self._axis)
        self._origins = origins(traced.walk, traced.nodes, traced.features[output], self._axis)
        self._origin = self._origins[output]
        self._stride = traced.walk.stride(self._axis)
        self._image = next(iter(traced.features))

    def steps(self) -> Iterator[PathStep]:
        """Yield, from the image to the output and for each feature map, the operator that needs its outermost pixel."""
        name = self._image
        while True:
            found = self._outermost_reader(name)
            if found is None:
                return
            node, produced = found
            outer = self._reach_of(name)
            yield PathStep(node=_name(node), op=node.op_type, adds=outer - self._reach_of(produced), cumulative=outer)
            name = produced

    def layers(self) -> Iterator[Layer]:
        """Yield the layers from the image to the output."""
        yield self._layer(IMAGE, IMAGE, -1, self._image)
        for position, node in enumerate(self._nodes):
            made = next((value.name for value in node.outputs if value.name in self._spans), None)
            if made is not None and any(not _keeps(flow, self._axis) for flow in self._transfers[node].flows):
                yield self._layer(_name(node), node.op_type, position, made)

    def skips(self) -> Iterator[Skip]:
        """Yield where a merge reads a feature map that was made before its other operand passed coarser ones."""
        positions = {value.name: i for i, node in enumerate(self._nodes) for value in node.outputs}
        seen: set[str] = set()
        for used, node in enumerate(self._nodes):
            names = [node.inputs[flow.operand].name or "" for flow in self._transfers[node].flows]  # type: ignore[union-attr]
            if len(names) < 2:
                continue
            for name in names:
                made = positions.get(name, -1)
                if name in self._spans and name not in seen and self._has_coarser(made, used, name):
                    seen.add(name)
                    yield Skip(made=made, used=used)

    def _has_coarser(self, made: int, used: int, name: str) -> bool:
        scale = self._features[name].scale[self._axis]
        between = (node.outputs[0].name or "" for node in self._nodes[made + 1 : used])
        return any(other in self._spans and self._features[other].scale[self._axis] < scale for other in between)

    def _layer(self, node: str, op: str, position: int, name: str) -> Layer:
        start, stop = self._ends(name)
        return Layer(
            node=node, op=op, position=position, scale=self._features[name].scale[self._axis], start=start, stop=stop
        )

    def _ends(self, name: str) -> tuple[Fraction, Fraction]:
        """Return the needed span in image pixels from the output box's first pixel on."""
        span, scale = self._counted(name, self._spans[name]), self._features[name].scale[self._axis]
        shift = self._origins.get(name, Fraction(0)) - self._origin  # 0: no pixel reaches it
        return span.start / scale + shift, span.stop / scale + shift

    def _reach_of(self, name: str) -> Fraction:
        """Return how far the needed span reaches beyond the output box on this side."""
        start, stop = self._ends(name)
        return -start if self._before else stop - self._stride

    def _outermost_reader(self, name: str) -> tuple[ir.Node, str] | None:
        for node in self._nodes:
            made = [value.name for value in node.outputs if value.name in self._spans]
            for flow in self._transfers[node].flows if made else ():
                value = node.inputs[flow.operand]
                if value is None or value.name != name:
                    continue
                wanted = [self._spans[one] for one in made if one]
                together = Span(min(span.start for span in wanted), max(span.stop for span in wanted))
                if self._outer(name, flow.along(self._axis).needed(together)) == self._outer(name, self._spans[name]):
                    return node, next(
                        one for one in made if one and self._outer(one, self._spans[one]) == self._outer(one, together)
                    )
        return None

    def _outer(self, name: str, span: Span) -> int:
        counted = self._counted(name, span)
        return counted.start if self._before else counted.stop

    def _counted(self, name: str, span: Span) -> Span:
        return self._walk.unmirrored(name, span, self._axis)


def _keeps(flow: Flow, axis: Label) -> bool:
    """Return whether each output pixel reads only the input pixel at its position."""
    reach = flow.along(axis)
    return reach == Window() or axis not in flow.reach


def _name(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or "?"
