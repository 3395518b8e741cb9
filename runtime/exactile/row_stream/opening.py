"""Open a stream for an image that arrives in rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import PlanError
from exactile.image_statistics.measure import Normalizers, constants_of
from exactile.passes.fixed import WAY_OUT, FixedStatistics
from exactile.plan.border import Border
from exactile.row_stream.plan import plan_stream
from exactile.row_stream.stream import RowStream
from exactile.runs.opened_model import OpenedModel
from exactile.runs.summary import Summary
from exactile.sinks.array import ArraySink
from exactile.sinks.protocol import Sink
from exactile.sources.protocol import Source


def open_stream(
    opened: OpenedModel,
    *,
    width: int,
    dtype: str | np.dtype[Any],
    rows: int | None,
    border: Border,
    height: int | None,
    sink: Sink | None,
    normalizers: Normalizers | None,
    statistics: FixedStatistics | None,
    segment: Callable[..., Summary],
) -> RowStream:
    """Return the stream of ``Session.stream``, whose other arguments these are.

    ``segment`` is that of the session: it runs complete images that are too low for a stream's strips.
    """
    model, planner, contract = opened.model, opened.planner, opened.model.contract
    if statistics is not None:
        model, planner = opened.without_passes(statistics)
    if model.levels:
        raise PlanError(
            f"{contract.model_name} takes statistics of the whole image, which rows that are still to come "
            f"are part of. What to do: run it over the complete image, or give statistics: {WAY_OUT}"
        )
    planned = plan_stream(
        model,
        planner,
        opened.processor.space,
        width=width,
        dtype=dtype,
        rows=rows,
        border=border,
        height=height,
        sink=sink,
    )

    def whole(source: Source) -> NDArray[Any]:
        kept = ArraySink()
        segment(source, kept, plan="strip", border=border, normalizers=normalizers, statistics=statistics)
        return kept.result

    constants = constants_of(contract.image, normalizers)
    constants.update(statistics.values if statistics is not None else {})
    return RowStream(
        contract=contract,
        rows=planned.rows,
        columns=planned.plan.x,
        border=border,
        engine=lambda: opened.processor.strip_engine(planned.plan, planned.need, constants),
        whole=whole,
        sink=sink,
        height=height,
    )
