"""Prepare the blocks of an image: its plan, the statistics of the whole image, and the Zarr."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from exactile.contract import DeployedModel
from exactile.distributed.findings import Findings
from exactile.distributed.job import BlockWork, Job
from exactile.distributed.request import Request
from exactile.distributed.tasks import Tasks
from exactile.errors import PlanError, SinkError
from exactile.image_statistics.measure import constants_of
from exactile.image_statistics.tallies import Normalizers
from exactile.input_protection import check_source_kept
from exactile.passes.fixed import FixedStatistics
from exactile.passes.found import NOTHING, Found, Keeping
from exactile.plan.part import fitted, next_larger
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan
from exactile.runs.run_record import Earlier, complete_record, found_record, take_over
from exactile.session import Session
from exactile.sinks.zarr.blocks import SharedZarrSink
from exactile.sources.protocol import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """``shape`` is the tile, or strip rows and band width; ``image`` is (height, width)."""

    work: BlockWork
    image: tuple[int, int]
    shape: tuple[int, int]
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """Preparation of the image at ``address``, open as ``source``; ``session`` plans."""

    model: DeployedModel
    address: str
    request: Request
    sink: SharedZarrSink
    session: Session
    source: Source
    measuring: Callable[[int, int], None]

    def job(self) -> Job:
        """Return what workers keep open."""
        return Job(
            key=secrets.token_hex(8),
            model=self.model,
            address=self.address,
            image=self.source.identity(),
            processor=dict(self.session.processor_identity),
            request=self.request,
        )

    def prepared(self, tasks: Tasks) -> Prepared:
        """Plan, find statistics of the whole image, and create the Zarr."""
        request, sink, session, source = self.request, self.sink, self.session, self.source
        check_source_kept(source, sink)
        wish, asked = request.wish, request.asked(self.model, source, session.processor_identity)
        earlier = self._earlier(asked) if request.resume else None
        if earlier is not None:
            wish = replace(wish, plan="strip" if earlier.plan == "strip" else "tile", tile=earlier.shape)
        if wish.plan == "strip":
            sink.span_columns()
        plan = session.plan(source, sink, plan=wish.plan, tile=wish.tile, border=wish.border).plan
        is_fitted = wish.tile is None and not session.shapes_are_fixed
        if isinstance(plan, TilePlan) and is_fitted:
            plan = self._without_halo_twice(plan)
        if isinstance(plan, StripPlan):
            sink.span_columns()
        findings = Findings(
            session=session, model=self._searched, source=source, wish=wish, tasks=tasks, progress=self.measuring
        )
        findings.check()
        sink.reserve(resume=request.resume)  # before what takes long
        tasks.wait_for_workers()
        normalizers, statistics = self._found(findings, asked, plan, earlier)
        values = None if statistics is None else statistics.values
        record = complete_record(asked, plan, normalizers, values)
        sink.describe(record, resume=request.resume)
        sink.begin(session.result_spec(plan, source))
        work = BlockWork(
            plan="strip" if isinstance(plan, StripPlan) else "tile",
            shape=_shape_of(plan),
            fitted=request.tile is None and not session.shapes_are_fixed,
            normalizers=normalizers,
            statistics=statistics,
            target=sink.target,
        )
        return Prepared(
            work=work, image=(source.height, source.width), shape=_shape_of(work.in_blocks(plan)), record=record
        )

    @property
    def _searched(self) -> DeployedModel:
        """Return the model, without passes if their statistics are given."""
        return self.model if self.request.statistics is None else replace(self.model, levels=())

    def _found(
        self, findings: Findings, asked: Mapping[str, Any], plan: Plan, earlier: Earlier | None
    ) -> tuple[Normalizers | None, FixedStatistics | None]:
        """Return statistics of the samples, and of feature maps; those of an earlier run are reused."""
        image, model = self.model.contract.image, self._searched
        normalizers = None
        if earlier is not None:
            normalizers = earlier.normalizers
        elif image.statistics is not None:
            normalizers = findings.normalizers()
        if not model.levels:
            return normalizers, self.request.statistics
        found = NOTHING if earlier is None else earlier.found
        keeping = Keeping(lambda newest: self.sink.keep_found(found_record(asked, plan, normalizers, newest)))
        if earlier is None and normalizers is not None:
            keeping.note(lambda: found)
        try:
            found = findings.statistics(plan, constants_of(image, normalizers), found, keeping)
        finally:
            with suppress(SinkError):
                keeping.flush()
        return normalizers, _fixed(model, found, plan, self.address)

    def _without_halo_twice(self, plan: TilePlan) -> TilePlan:
        """Return ``plan``, or the next larger tile that fits the blocks, if this computes less and the memory allows
        it.
        """
        sink, border, session, source = self.sink, self.request.border, self.session, self.source
        edge = sink.edge(session.result_spec(plan, source))
        with suppress(PlanError):
            larger = session.plan(source, sink, plan="tile", tile=next_larger(plan, edge), border=border).plan
            assert isinstance(larger, TilePlan)
            return min(plan, larger, key=lambda one: fitted(one, edge).computed_pixels)
        return plan

    def _earlier(self, asked: Mapping[str, Any]) -> Earlier | None:
        record = self.sink.unfinished()
        return take_over(record, asked) if record is not None else None


def _shape_of(plan: Plan) -> tuple[int, int]:
    """Return the shape of a plan, as a wish states it."""
    return (plan.rows, plan.x.tile) if isinstance(plan, StripPlan) else plan.tile_shape


def _fixed(model: DeployedModel, found: Found, plan: Plan, image: str) -> FixedStatistics:
    """Return the statistics of the image for workers. Raises OptionError if one is not a finite number."""
    return FixedStatistics(
        values=found.statistics,
        model=model.contract.model_name,
        belongs_to=model.statistics_key,
        images=(image,),
        pixels=plan.wanted_pixels,
    )
