"""The part of a plan that gives one box of the result, and tiles that fit such boxes.

Boxes whose corners lie on multiples of ``edge`` result pixels are computed by different processes. Tiles begin at the
same places as in the whole plan, strips a halo above the rows of the box, as in a run that is resumed::

    tiles, fitted    |====|====|====|====|====|====|          zones of edge / n pixels: none straddles two boxes
    boxes            |<------ edge ------>|<------ edge ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from exactile.geometry import Box, Span, round_up
from exactile.plan.prediction import Plan
from exactile.plan.remaining import begun_anew
from exactile.plan.strips import AxisStrips, StripPlan
from exactile.plan.tiles import AxisTiles, TilePlan


def part_of(plan: Plan, box: Box) -> Plan:
    """Return the steps of ``plan`` that give ``box``, in result pixels, not empty; zones are cut at its edges."""
    x = _tiles_of(plan.x, box.x)
    if isinstance(plan, TilePlan):
        return replace(plan, x=x, y=_tiles_of(plan.y, box.y))
    return replace(plan, x=x, y=_strips_of(plan, box.y))


@dataclass(frozen=True, slots=True)
class Zones:
    """Some of a plan's zones, by their rows and columns among all of them: whole rows, or a piece of one row."""

    rows: range
    columns: range

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def first(self, plan: TilePlan) -> int:
        """Return the index of the first of them in the plan's order; the others follow it."""
        return self.rows.start * len(plan.x.zors) + self.columns.start

    def boxes(self, plan: TilePlan) -> Iterator[Box]:
        """Return their boxes in the plan's order."""
        return (Box(plan.y.zors[row], plan.x.zors[column]) for row in self.rows for column in self.columns)

    def of(self, plan: TilePlan) -> TilePlan:
        """Return the tiles of ``plan`` with these zones."""
        return replace(plan, y=_some(plan.y, self.rows), x=_some(plan.x, self.columns))


def zones_of(plan: TilePlan, count: int) -> Iterator[Zones]:
    """Return all zones of ``plan``, in pieces of about ``count`` zones, in its order."""
    rows, columns = len(plan.y.zors), len(plan.x.zors)
    if count >= columns:
        step = count // columns
        return (Zones(range(row, min(row + step, rows)), range(columns)) for row in range(0, rows, step))
    return (
        Zones(range(row, row + 1), range(column, min(column + count, columns)))
        for row in range(rows)
        for column in range(0, columns, count)
    )


def _some(axis: AxisTiles, indices: range) -> AxisTiles:
    found = slice(indices.start, indices.stop)
    return replace(axis, starts=axis.starts[found], zors=axis.zors[found], crops=axis.crops[found])


def _tiles_of(axis: AxisTiles, span: Span) -> AxisTiles:
    kept = [index for index, zor in enumerate(axis.zors) if zor.intersect(span).length]
    zors = tuple(axis.zors[index].intersect(span) for index in kept)
    return replace(
        axis,
        starts=tuple(axis.starts[index] for index in kept),
        zors=zors,
        crops=tuple(
            axis.crops[index] + zor.start - axis.zors[index].start for index, zor in zip(kept, zors, strict=True)
        ),
    )


def _strips_of(plan: StripPlan, span: Span) -> AxisStrips:
    axis = plan.y
    wanted = [index for index, zor in enumerate(axis.zors) if zor.intersect(span).length]
    begun = begun_anew(axis, plan.strips, wanted[0]) if wanted[0] else axis
    stop = len(begun.starts) - (len(axis.starts) - 1 - wanted[-1])
    zors = tuple(zor.intersect(span) for zor in begun.zors[:stop])
    return replace(
        begun,
        starts=begun.starts[:stop],
        heights=begun.heights[:stop],
        roles=begun.roles[:stop],
        outputs=begun.outputs[:stop],
        zors=zors,
        crops=tuple(
            crop + zor.start - whole.start if zor.length else 0
            for crop, zor, whole in zip(begun.crops[:stop], zors, begun.zors[:stop], strict=True)
        ),
    )


def fitted(plan: TilePlan, edge: int) -> TilePlan:
    """Return tiles at most as large as those of ``plan`` whose zones end at multiples of ``edge`` result pixels, if
    any.

    Otherwise ``plan``: tiles at the edges of boxes are then computed for each box that they overlap.
    """
    return replace(plan, y=_fitted(plan.y, edge), x=_fitted(plan.x, edge))


def next_larger(plan: TilePlan, edge: int) -> tuple[int, int]:
    """Return the smallest tile, (height, width), that is larger than that of ``plan`` and whose zones divide ``edge``.

    Along an axis without such a tile, that of ``plan``.
    """
    height, width = (
        min((tile for _, tile in _dividing(axis, edge) if tile > axis.tile), default=axis.tile)
        for axis in (plan.y, plan.x)
    )
    return height, width


def _fitted(axis: AxisTiles, edge: int) -> AxisTiles:
    found = next(((advance, tile) for advance, tile in _dividing(axis, edge) if tile <= axis.tile), None)
    return axis if found is None else _regular(axis, *found)


def _dividing(axis: AxisTiles, edge: int) -> Iterator[tuple[int, int]]:
    """Yield zones that divide ``edge``, in input pixels, the largest first, and the tiles that they need."""
    domain, geometry = axis.domain, axis.domain.geometry
    if domain.result_size <= edge or domain.result_start:
        return
    before = _before(axis)
    for count in range(1, edge + 1):
        zone = Fraction(edge, count) / geometry.scale
        if zone < geometry.stride:
            return
        if zone.denominator != 1 or zone % geometry.stride:
            continue
        tile = geometry.accepted_size(before + int(zone) + max(0, geometry.margin_after))
        if tile <= domain.size:
            yield int(zone), tile


def _before(axis: AxisTiles) -> int:
    geometry = axis.domain.geometry
    return round_up(geometry.margin_before, geometry.stride)


def _regular(axis: AxisTiles, advance: int, tile: int) -> AxisTiles:
    """Return tiles whose zones are ``advance`` input pixels, the first at the edge of the domain."""
    domain, geometry, before = axis.domain, axis.domain.geometry, _before(axis)
    size = geometry.output_position(advance)
    zones = [Span(at, min(at + size, domain.result_size)) for at in range(0, domain.result_size, size)]
    starts = tuple(max(0, min(index * advance - before, domain.size - tile)) for index in range(len(zones)))
    return replace(
        axis,
        tile=tile,
        starts=starts,
        zors=tuple(zones),
        crops=tuple(zone.start - geometry.output_position(start) for zone, start in zip(zones, starts, strict=True)),
    )
