"""Find the statistics of the whole image before its result, by map and reduce: the same bits as on one machine.

::

    workers   statistics of some rows of samples, or of the feature maps of some zones
    client    merges them in the order of one machine, and keeps them for a run that is resumed
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from exactile.contract import DeployedModel, Level
from exactile.distributed.job import LevelWork
from exactile.distributed.tasks import Tasks
from exactile.distributed.worker import run_tally, run_zones
from exactile.image_statistics.measure import block_rows
from exactile.image_statistics.measure import passes as readings
from exactile.image_statistics.tallies import Measuring, Normalizers, Tally
from exactile.passes.found import Found, Keeping, LevelKeeping, is_finished
from exactile.passes.merge import Merged
from exactile.passes.merging_sink import MergingSink
from exactile.plan.part import Zones, zones_of
from exactile.plan.prediction import Plan
from exactile.plan.tiles import TilePlan
from exactile.planning import Wish
from exactile.processors.protocol import Constants
from exactile.session import Session
from exactile.sources.protocol import Source

READ_BYTES = 1 << 30
"""Bytes of samples for one task: rows of the file's chunks at its edges are decoded twice."""

PIECE_PX = 4096 * 4096
"""Pixels of tiles for one task: some seconds of work."""

MOST_PARTIALS_BYTES = 4 << 20
"""Bytes of the partial statistics that a task returns."""

MOST_WAITING_BYTES = 256 << 20
"""Bytes of partial statistics that wait for earlier ones."""


@dataclass(slots=True, kw_only=True)
class Findings:
    """Find what ``session`` needs to know of ``source``; ``wish`` is the requested plan.

    ``progress`` is called with the pixels done, of all readings and passes, and their total.
    """

    session: Session
    model: DeployedModel
    source: Source
    wish: Wish
    tasks: Tasks
    progress: Callable[[int, int], None]
    _done: int = 0
    _readings: int = field(init=False)

    def __post_init__(self) -> None:
        wanted = self.model.contract.image.statistics
        self._readings = 0 if wanted is None else readings(self.source, wanted)

    def check(self) -> None:
        """Raise OptionError, PlanError if passes cannot run over the image."""
        with closing(self.session.measured_image(self.source).passes(self.wish)) as passes:
            passes.check()

    def normalizers(self) -> Normalizers:
        """Return offset and scale of the samples. Raises SourceError, ClusterError, CancelledError."""
        wanted = self.model.contract.image.statistics
        assert wanted is not None
        self.session.measured_image(self.source).planner.check_source(self.source)
        measuring = Measuring(self.source.dtype, self.source.channels, wanted)
        for tally in measuring.tallies():
            self._tally(tally)
        return measuring.normalizers()

    def statistics(self, plan: Plan, constants: Constants, found: Found, keeping: Keeping) -> Found:
        """Return ``found`` with the statistics of all levels; ``plan`` is that of the result.

        Raises BudgetError, PlanError, SinkError, ClusterError, CancelledError.
        """
        size = plan.y.domain.size, plan.x.domain.size
        with closing(self.session.measured_image(self.source).passes(self.wish)) as passes:
            found = passes.planned(plan, found)
            for index, level in enumerate(self.model.levels):
                if not is_finished(level, found.statistics):
                    tile = found.tiles[index]
                    whole = passes.level_plan(level, size, tile)
                    found = self._level(index, level, whole, size, constants, found, keeping)
                    keeping.note(lambda found=found: found)  # type: ignore[misc]
        return found

    def _tally(self, tally: Tally) -> None:
        """Read the image once; where the order matters, parts are merged in the order of its rows."""
        rows = block_rows(self.source)
        image_bytes = self.source.height * self.source.width * self.source.channels * self.source.dtype.itemsize
        step = max(1, rows * READ_BYTES // max(1, image_bytes))
        waiting: dict[int, NDArray[Any]] = {}
        following = 0
        pieces = ((range(first, min(first + step, rows)),) for first in range(0, rows, step))
        for (piece,), parts in self.tasks.run(run_tally, tally, pieces):
            if tally.ordered:
                waiting[piece.start] = parts
                while following in waiting:
                    tally.merge(waiting.pop(following))
                    following += step
            else:
                tally.merge(parts)
            self._advance(round(self.source.height * self.source.width * len(piece) / rows))

    def _level(
        self,
        index: int,
        level: Level,
        whole: TilePlan,
        size: tuple[int, int],
        constants: Constants,
        found: Found,
        keeping: Keeping,
    ) -> Found:
        merged = Merged(level.statistics)
        done = 0
        if found.begun is not None:
            merged.restore(found.begun.state)
            done = found.begun.zones
        noted = LevelKeeping(keeping=keeping, found=found, index=index, merged=merged)
        sink = MergingSink(whole, merged, zones=done, keeping=noted)
        work = LevelWork(level=index, size=size, tile=whole.tile_shape, constants={**constants, **found.statistics})
        zones = self._zones_of_a_piece(whole, merged)
        ahead = MOST_WAITING_BYTES // (8 * merged.numbers * zones)
        left = self._pieces(whole, zones, done)
        for (piece,), partials in self.tasks.run(run_zones, work, left, ahead=ahead):
            for number, (box, numbers) in enumerate(zip(piece.boxes(whole), partials, strict=True), piece.first(whole)):
                if number >= done:
                    sink.write(box, numbers)
            self._advance(self.source.height * self.source.width * len(partials) // len(whole))
        sink.finish()
        statistics = {**found.statistics, **merged.values()}
        return replace(found.with_tile(index, whole.tile_shape), statistics=statistics, begun=None)

    def _zones_of_a_piece(self, whole: TilePlan, merged: Merged) -> int:
        by_time = PIECE_PX // (whole.tile_shape[0] * whole.tile_shape[1])
        return max(1, min(by_time, MOST_PARTIALS_BYTES // (8 * merged.numbers)))

    def _pieces(self, whole: TilePlan, zones: int, done: int) -> Iterator[tuple[Zones]]:
        """Yield the pieces with zones beyond the first that are ``done``."""
        return ((piece,) for piece in zones_of(whole, zones) if piece.first(whole) + len(piece) > done)

    def _advance(self, pixels: int) -> None:
        total = (self._readings + len(self.model.levels)) * self.source.height * self.source.width
        self._done = min(self._done + pixels, total)
        self.progress(self._done, total)
