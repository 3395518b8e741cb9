"""Levels of statistics: those of a level depend only on the image and on statistics of lower levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import onnx_ir as ir

from exactile.contract import Level
from exactile.geometry import AxisGeometry, Geometry
from exactile_converters.geometry.feature_maps import ForwardWalk
from exactile_converters.geometry.node_view import Label
from exactile_converters.geometry.trace import Traced, ancestors, axis_geometry
from exactile_converters.passes.reductions import Reduction

LevelOf = tuple[Reduction, ...]
"""The reductions of one level."""


def levels_of(model: ir.Model, reductions: Sequence[Reduction]) -> tuple[LevelOf, ...]:
    """Return ``reductions`` by level, each as low as possible."""
    made_by = {value.name or "": index for index, one in enumerate(reductions) for value in one.placeholders}
    read = [_placeholders(model, one.of, made_by) for one in reductions]
    level: dict[int, int] = {}

    def of(index: int) -> int:
        if index not in level:
            level[index] = 1 + max((of(made_by[name]) for name in read[index]), default=-1)
        return level[index]

    found: dict[int, list[int]] = {}
    for index in range(len(reductions)):
        found.setdefault(of(index), []).append(index)
    return tuple(tuple(reductions[index] for index in members) for _, members in sorted(found.items()))


def _placeholders(model: ir.Model, value: ir.Value, known: Mapping[str, int]) -> set[str]:
    """Return the placeholders from which ``value`` is computed."""
    nodes = ancestors(model, value)
    read = {operand.name or "" for node in nodes for operand in node.inputs if operand is not None}
    return read & known.keys()


def level_geometry(traced: Traced, model: ir.Model, maps: Sequence[ir.Value]) -> Geometry:
    """Return the receptive field of zones of the image in each of ``maps``, at all sizes that the network takes."""
    assert traced.geometry is not None
    nodes = ancestors(model, *maps)
    along: dict[Label, AxisGeometry] = {"y": traced.geometry.y, "x": traced.geometry.x}
    y, x = (_zoned(traced, nodes, maps, axis, base) for axis, base in along.items())
    return Geometry(y=y, x=x)


def _zoned(
    traced: Traced, nodes: list[ir.Node], maps: Sequence[ir.Value], axis: Label, base: AxisGeometry
) -> AxisGeometry:
    found = _joined(traced.walk, nodes, maps, axis, base)
    if base.others is None:
        return found
    others = []
    for other in base.others:
        walk = traced.own.get((axis, other.remainder))
        one = found if walk is None else _joined(walk, nodes, maps, axis, other)
        others.append(replace(one, remainder=other.remainder, least=other.least, one_pass=other.one_pass))
    return replace(found, others=tuple(others))


def _joined(
    walk: ForwardWalk, nodes: list[ir.Node], maps: Sequence[ir.Value], axis: Label, base: AxisGeometry
) -> AxisGeometry:
    """Return the joint geometry of all ``maps``, for zones in pixels of the image."""
    each = [axis_geometry(walk, nodes, walk.features[value.name or ""], axis, base.remainder) for value in maps]
    before, after = max(one.before for one in each), max(one.after for one in each)
    return AxisGeometry(
        stride=base.stride,
        before=before,
        after=after,
        extra_before=max(one.margin_before for one in each) - before,
        extra_after=max(one.margin_after for one in each) - after,
        scale=Fraction(1),
        # Zones must also reach the end of an extended image.
        size_constant=Fraction(base.stride),
        remainder=base.remainder,
        least=base.least,
        placed=any(one.placed for one in each),
    )


def with_work(levels: Sequence[Level], works: Sequence[float]) -> tuple[Level, ...]:
    """Return ``levels`` with the predicted time of each; see ``DeployedModel.work``."""
    return tuple(
        replace(level, model=replace(level.model, work=work)) for level, work in zip(levels, works, strict=False)
    )
