"""The rest of a plan whose first boxes an earlier run has finished.

Steps go row by row, so that finished boxes are a number of rows and some of the next row. Tiles are independent and
begin with that row. Strips carry rows, which are not kept: they restart so far above that the errors of the new
``first`` strip, whose padding replaces pixels, do not reach the wanted rows::

    strips   |= done =|= done =|= done =|  wanted  |
    again            |=first==|== body =|== body ==|       results of both dropped, but for the last
                                |<------ halo ---->|
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from math import floor

from exactile.contract import StripModel
from exactile.geometry import Box, Span, round_down, round_up
from exactile.plan.strips import AxisStrips, StripPlan
from exactile.plan.tiles import TilePlan


def remaining(plan: TilePlan | StripPlan, done: Callable[[Box], bool]) -> TilePlan | StripPlan | None:
    """Return the steps from the first row of boxes on that is not finished; None if nothing is left to do."""
    wanted = next((row for row, y in enumerate(plan.y.zors) if not _all_done(y, plan.x.zors, done)), None)
    if wanted is None:
        return None
    if isinstance(plan, StripPlan):
        return replace(plan, y=begun_anew(plan.y, plan.strips, wanted))
    y = plan.y
    return replace(plan, y=replace(y, starts=y.starts[wanted:], zors=y.zors[wanted:], crops=y.crops[wanted:]))


def _all_done(y: Span, columns: tuple[Span, ...], done: Callable[[Box], bool]) -> bool:
    return all(done(box) for box in (Box(y, x) for x in columns) if box.area)


def begun_anew(axis: AxisStrips, strips: StripModel, wanted: int) -> AxisStrips:
    """Return strips from the lowest start that gives the rows of strip ``wanted`` right."""
    geometry = axis.domain.geometry
    row = floor((axis.zors[wanted].start + axis.domain.result_start) / geometry.scale)
    margin = round_up(max(0, geometry.margin_before), geometry.stride)
    highest = round_down(row, geometry.stride) - margin
    for start in range(wanted - 1, 0, -1):
        heights = accumulate(axis.heights[start:wanted])
        merged = next((n for n, height in enumerate(heights, 1) if height >= strips.startup_rows), None)
        if merged is not None and axis.starts[start] <= highest:
            return _from(axis, strips, start, start + merged)
    return axis


def _from(axis: AxisStrips, strips: StripModel, start: int, following: int) -> AxisStrips:
    """Return strips ``start`` to ``following`` as one first strip, whose results are dropped, then the others."""
    geometry = axis.domain.geometry
    known = geometry.output_position(axis.starts[following]) - strips.lag
    nothing = axis.zors[following].start
    return replace(
        axis,
        starts=(axis.starts[start], *axis.starts[following:]),
        heights=(sum(axis.heights[start:following]), *axis.heights[following:]),
        roles=("first", *axis.roles[following:]),
        outputs=(known - geometry.output_position(axis.starts[start]), *axis.outputs[following:]),
        zors=(Span(nothing, nothing), *axis.zors[following:]),
        crops=(0, *axis.crops[following:]),
    )
