"""Plan an image that arrives in rows, before the first row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from exactile.contract import DeployedModel, StripModel
from exactile.errors import PlanError, StreamError
from exactile.plan.arriving import ArrivingRows
from exactile.plan.arriving_strips import strips_for_stream
from exactile.plan.border import Border
from exactile.plan.budget import MemoryNeed
from exactile.plan.built import check_strips
from exactile.plan.strips import StripPlan, least_rows, with_highest_last
from exactile.planning import Planner, Wish
from exactile.processors.protocol import DeviceSpace
from exactile.row_stream.stream import KeptRows
from exactile.sinks.nothing import NoSink
from exactile.sinks.protocol import Sink

NOMINAL_STREAM_ROWS = 4096
"""Rows of the image for which a stream's memory is predicted; more rows take no more memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStream:
    """The plan for an image of a nominal height, its memory, and the strips of the rows that will come."""

    plan: StripPlan
    need: MemoryNeed
    rows: ArrivingRows


def plan_stream(
    model: DeployedModel,
    planner: Planner,
    space: DeviceSpace | None,
    *,
    width: int,
    dtype: str | np.dtype[Any],
    rows: int | None,
    border: Border,
    height: int | None,
    sink: Sink | None,
) -> PlannedStream:
    """Plan a stream; arguments are those of ``Session.stream``. ``sink`` may have to do without some memory.

    Raises PlanError if the network does not allow strips, BudgetError, StreamError.
    """
    along, strips = strips_for_stream(model, width, height, border)
    image = model.contract.image
    if np.dtype(dtype) != np.dtype(image.dtype):
        raise StreamError(f"rows of {dtype} are announced and the model was deployed for {image.dtype}")
    kept = KeptRows(width=width, channels=image.channels, dtype=np.dtype(image.dtype))
    nominal = NOMINAL_STREAM_ROWS + 4 * least_rows(strips)
    last = along.others[0] if along.others and height is not None else along
    kept.height = nominal + (last.remainder - nominal) % last.stride
    output: Sink = sink if sink is not None else NoSink()
    if rows is None:
        plan = planner.choose(kept, output, Wish(plan="strip", border=border, lanes=1)).plan
    else:
        plan = planner.widest_band(kept, output, rows, border)
    if not isinstance(plan, StripPlan):
        raise PlanError(f"{kept.height} rows are too few for strips of this network")
    plan = with_highest_last(plan, strips, along)
    if space is not None and space.engines is not None:
        check_strips(plan, space.engines)
    need = planner.memory_need(plan, kept, output)
    planner.save(plan, kept, output, need)
    arriving = ArrivingRows(along, strips, plan.rows, border, first_rows=_first_rows(strips, plan, space))
    return PlannedStream(plan=plan, need=need, rows=arriving)


def _first_rows(strips: StripModel, plan: StripPlan, space: DeviceSpace | None) -> int:
    """Return the rows of the first strip: as few as possible, unless engines were built for those of the plan."""
    return strips.startup_rows if space is None or space.engines is None else plan.y.heights[0]
