"""Merge the partial statistics of zones in the order of the plan, in whatever order they come."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.passes.found import LevelKeeping
from exactile.passes.merge import Merged
from exactile.plan.tiles import TilePlan
from exactile.sinks.nothing import NoSink


class MergingSink(NoSink):
    """Takes the partial statistics of zones, and merges them in the order of the plan.

    The first ``zones`` were merged by an earlier run. ``keeping`` is notified of each that follows.
    """

    def __init__(self, plan: TilePlan, merged: Merged, *, zones: int = 0, keeping: LevelKeeping | None = None) -> None:
        self.zones = zones
        self._merged = merged
        self._tile = plan.tile_shape
        self._keeping = keeping
        self._order: Iterator[Box] = islice((step.zor for step in plan), zones, None)
        self._next = next(self._order, None)
        self._waiting: dict[Box, NDArray[Any]] = {}

    def write(self, box: Box, block: NDArray[Any]) -> None:
        """Raise SinkError if findings cannot be kept."""
        self._waiting[box] = block
        while self._next in self._waiting:
            assert self._next is not None
            self._add(self._waiting.pop(self._next))
            self._next = next(self._order, None)
            if self._keeping is not None:
                self._keeping.note(self._tile, lambda: self.zones)

    def _add(self, partials: NDArray[Any]) -> None:
        try:
            self._merged.add(partials)
        except BaseException:
            if self._keeping is not None:
                self._keeping.keeping.drop()  # a part of them may be merged
            raise
        self.zones += 1

    def finish(self) -> None:
        """Everything was merged when the last zone came."""
        assert self._next is None, "a zone has no partial statistics"


class ZonesSink(NoSink):
    """Takes the partial statistics of the zones of ``plan``, (P,) each: ``partials``, (Z, P), in its order."""

    def __init__(self, plan: TilePlan, numbers: int) -> None:
        self._rows = {step.zor: row for row, step in enumerate(plan)}
        self.partials = np.full((len(self._rows), numbers), np.nan)

    def write(self, box: Box, block: NDArray[Any]) -> None:
        self.partials[self._rows.pop(box)] = block
