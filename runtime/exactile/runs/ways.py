"""The forms in which a network that takes statistics of the whole image can run on a CPU.

In one pass, in passes that begin at maps kept between them, or in passes that each begin at the image. One pass is the
fastest if it fits; of passes, those that are predicted to compute less are taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from exactile.contract import DeployedModel
from exactile.contract.graph_hash import graph_hash
from exactile.errors import ExactileError, OptionError
from exactile.kept_maps.scratch import free_bytes
from exactile.kept_maps.store import most_kept_bytes, most_on_disk
from exactile.passes.planner import PassPlanner
from exactile.plan.tiles import suiting_tile
from exactile.planning import Planner, Wish
from exactile.planning.one_pass import model_in_one_pass
from exactile.processors.host import HostProcessor
from exactile.processors.protocol import Processor
from exactile.sinks.nothing import NoSink
from exactile.sinks.protocol import ResumableSink, Sink
from exactile.sources.protocol import Source

KEPT_SHARES = (0.5, 0.25, 0.125, 0.0)
"""Fractions of the run's memory for maps that are kept between passes; others go to the disk.

Tiles get less memory: the first fraction is taken that leaves enough for tiles that recompute little.
"""

LITTLE_MORE = 1.25
"""Passes that compute at most this many times what they must are not compared with others."""

WORTH = 0.8
"""Another form is taken if it computes this fraction of what the previous one computes: maps on the disk cost time,
too.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A form of a model, its planner, its processor, and the request for its plan."""

    model: DeployedModel
    planner: Planner
    processor: Processor
    wish: Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """The forms of ``model``, within the budget of ``planner``, which is for the passes that each begin at the image.

    Kept maps that do not fit into memory go to the folder ``scratch``, at most ``scratch_bytes`` of them.
    """

    model: DeployedModel
    planner: Planner
    processor: Processor
    threads: int | None
    scratch: Path
    scratch_bytes: int | None

    def choose(self, source: Source, sink: Sink, wish: Wish, *, resume: bool) -> Way:
        """Return the fastest; with ``resume``, that of the unfinished run in ``sink``. Raises
        OptionError, SinkError.
        """
        plain = Way(model=self.model, planner=self.planner, processor=self.processor, wish=wish)
        if not self.model.levels or not isinstance(self.processor, HostProcessor):
            return plain
        if refused := self.processor.family.no_statistics:
            raise OptionError(f"{self.model.contract.model_name} takes statistics of the whole image: {refused}")
        if resume and (begun := _begun(sink)) is not None:
            found = (self._in_one_pass(source, wish), self._keeping(source, sink, wish), plain)
            return next((way for way in found if way is not None and graph_hash(way.model) == begun), plain)
        one = self._in_one_pass(source, wish)
        if one is not None and _has_plan(one, source, sink):
            return one
        kept = self._keeping(source, sink, wish)
        if kept is None or not self._has_room(kept, source):
            return plain
        work = _work(kept, source, sink)
        if work <= LITTLE_MORE * _least_work(kept.model) or _work(plain, source, sink) > WORTH * work:
            return kept
        return plain

    def _in_one_pass(self, source: Source, wish: Wish) -> Way | None:
        asked = wish.plan in {"auto", "whole"} and wish.tile is None
        if not asked or wish.background is not None or wish.border != "model":
            return None
        model = model_in_one_pass(self.model, (source.height, source.width))
        if model is None:
            return None
        planner = Planner(model, budget_bytes=self.planner.budget_bytes, process_bytes=self.planner.used_bytes)
        return Way(model=model, planner=planner, processor=self._host(model), wish=wish)

    def _keeping(self, source: Source, sink: Sink, wish: Wish) -> Way | None:
        size = source.height, source.width
        kept = self.model.keeping
        model = kept.at(size) if kept is not None and wish.plan not in {"strip", "whole"} else None
        if model is None:
            return None
        if wish.tile is not None:
            wish = replace(wish, tile=suiting_tile(self.model.contract.geometry, size, wish.border, wish.tile))
        found: Way | None = None
        least = inf
        for share in KEPT_SHARES:
            planner = self._planner_keeping(model, size, share)
            way = Way(model=model, planner=planner, processor=self._host(model), wish=wish)
            work = _work(way, source, sink)
            if work < least * WORTH:
                found, least = way, work
            if work <= LITTLE_MORE * _least_work(model):
                break
        return found

    def _planner_keeping(self, model: DeployedModel, size: tuple[int, int], share: float) -> Planner:
        """Return a planner with kept maps in at most ``share`` of the memory."""
        process_bytes, budget_bytes = self.planner.used_bytes, self.planner.budget_bytes
        most = max(0, int((budget_bytes - process_bytes) * share))
        return Planner(
            model,
            budget_bytes=budget_bytes,
            process_bytes=process_bytes,
            kept_bytes=min(most_kept_bytes(model, self._domain(size)), most),
        )

    def _has_room(self, way: Way, source: Source) -> bool:
        """Return whether the disk has room for the kept maps that do not fit into memory."""
        wanted = most_on_disk(way.model, self._domain((source.height, source.width)), way.planner.kept_bytes)
        allowed = free_bytes(self.scratch) if wanted else 0
        return wanted <= (allowed if self.scratch_bytes is None else min(allowed, self.scratch_bytes))

    def _domain(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size that the network runs over for an image of ``size``."""
        geometry = self.model.contract.geometry.of_size(size)
        return geometry.y.accepted_size(size[0]), geometry.x.accepted_size(size[1])

    def _host(self, model: DeployedModel) -> HostProcessor:
        assert isinstance(self.processor, HostProcessor)
        return HostProcessor(model, threads=self.threads, keep=False, reason=self.processor.reason)


def _begun(sink: Sink) -> str | None:
    """Return the hash of the graphs of an unfinished run."""
    record = sink.unfinished() if isinstance(sink, ResumableSink) else None
    return None if record is None else record["model"]["graph"]


def _work(way: Way, source: Source, sink: Sink) -> float:
    """Return the predicted time of all passes, relative to one pass of the whole network; infinite if
    one does not fit.
    """
    planner = way.planner
    try:
        last = planner.choose(source, sink, way.wish)
        total = way.model.work * last.passes
        on_disk = planner.maps_on_disk(last.plan.y.domain.size, last.plan.x.domain.size)
        for level in way.model.levels:
            passes = PassPlanner(
                level, budget_bytes=planner.budget_bytes, process_bytes=planner.process_bytes, on_disk=on_disk
            )
            total += level.model.work * passes.choose(source, NoSink(), Wish(plan="tile")).passes
    except ExactileError:
        return inf
    return total


def _least_work(model: DeployedModel) -> float:
    """Return the predicted time of passes without halo."""
    return sum(level.model.work for level in model.levels) + model.work


def _has_plan(way: Way, source: Source, sink: Sink) -> bool:
    try:
        way.planner.choose(source, sink, way.wish)
    except ExactileError:  # too little memory, or what the other ways refuse as well
        return False
    return True
