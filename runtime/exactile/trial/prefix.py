"""Run the first steps of a plan, only to time them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exactile.contract import Contract
from exactile.errors import CancelledError
from exactile.machine.memory import return_freed_memory
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.compute import Compute
from exactile.pipeline.run import Pipeline, Timed
from exactile.pipeline.staging import read_plan
from exactile.pipeline.timing import TimeSpan
from exactile.plan.tiles import Step
from exactile.processors.protocol import Processor
from exactile.sinks.nothing import NoSink
from exactile.trial.candidates import Candidate
from exactile.trial.pace import Pace


class EnoughError(CancelledError):
    """Not a failure: enough steps were timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """Runs plans with the pipeline that runs images; results are discarded. It stops when ``cancellation`` is set."""

    contract: Contract
    processor: Processor
    cancellation: Cancellation

    def pixel_s(self, candidate: Candidate, budget_bytes: int) -> float | None:
        """Return seconds for each computed pixel; None if the plan has too few steps. Raises what a run raises.

        The candidate's source is prepared for other reads than before.
        """
        plan, need = candidate.plan, candidate.need
        own = Cancellation()

        def stop() -> None:
            own.cancel(self.cancellation.cause or CancelledError("the run was stopped"))

        compute = self.processor.compute(plan, need, {}, own)
        pace = Pace(compute.lanes)

        def timed(span: TimeSpan, steps: Sequence[Step]) -> None:
            pace.tell(span, steps)
            if pace.enough:
                own.cancel(EnoughError())

        granted_bytes = need.decoding_bytes + need.granted_cache(budget_bytes)
        candidate.source.prepare(read_plan(plan), cache_bytes=granted_bytes)
        self.cancellation.on_cancel(stop)
        try:
            self._pipeline(candidate, compute, own, timed).run()
        except EnoughError:
            pass
        finally:
            self.cancellation.forget(stop)
            return_freed_memory()
        return pace.pixel_s

    def _pipeline(self, candidate: Candidate, compute: Compute, cancellation: Cancellation, timed: Timed) -> Pipeline:
        return Pipeline(
            plan=candidate.plan,
            contract=self.contract,
            source=candidate.source,
            compute=compute,
            sink=NoSink(),
            progress=lambda _pixels: None,
            cancellation=cancellation,
            timed=timed,
        )
