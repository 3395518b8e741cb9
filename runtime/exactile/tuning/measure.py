"""Time tiles and strips of usual shapes, with the pipeline that runs images, on synthetic samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from exactile.contract import Contract, DeployedModel
from exactile.contract.graph_hash import graph_hash
from exactile.contract.tuning import PlanKind, TunedShape, Tuning
from exactile.errors import OptionError, PlanError
from exactile.pipeline.cancellation import Cancellation
from exactile.plan.lanes import LaneChoice
from exactile.plan.prediction import predicted
from exactile.plan.strips import StripPlan
from exactile.planning import Planner, Wish
from exactile.processors.protocol import Processor
from exactile.sinks.nothing import NoSink
from exactile.sources.array import ArraySource
from exactile.trial.candidates import Candidate
from exactile.trial.prefix import Prefix

TILES_PX = (256, 384, 512, 768, 1024, 1536, 2048)
STRIPS_PX = ((64, 1024), (128, 1024), (64, 4096), (256, 1024), (128, 4096), (256, 4096), (512, 4096))
STEPS = 6
"""Tiles or strips of each lane in an image: more than are timed."""

TURNS = 2
"""The faster turn counts: other work on the machine makes the other slower."""

Progress = Callable[[int, int], None]
"""Called with the shapes measured so far, and their total."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuner:
    """Measures ``model`` for ``seconds`` or a little longer; shapes that would take longer are left out."""

    model: DeployedModel
    planner: Planner
    processor: Processor
    machine: str
    seconds: float
    progress: Progress
    cancellation: Cancellation = field(default_factory=Cancellation)
    clock: Callable[[], float] = time.perf_counter

    def run(self) -> Tuning:
        """Measure. Raises OptionError if plans do not depend on it, or there was no time for any shape; EngineError."""
        if not self.planner.may_time:
            raise OptionError(
                "tuning is for runs on a CPU, of networks that can be tiled and take no statistics of the whole image"
            )
        begin, found = self.clock(), list[TunedShape]()
        shapes = list(self._shapes())
        pixel_s: dict[tuple[PlanKind, int], float] = {}
        for done, (kind, lanes, shape) in enumerate(shapes):
            self.progress(done, len(shapes))
            known = pixel_s.get((kind, lanes), 0.0)
            if self.clock() - begin + known * lanes * TURNS * 3 * shape[0] * shape[1] > self.seconds:
                continue
            one = self._measured(kind, lanes, shape)
            if one is not None:
                found.append(one)
                pixel_s[kind, lanes] = one.seconds_per_pixel
        self.progress(len(shapes), len(shapes))
        if not found:
            raise OptionError(f"in {self.seconds:.0f} s no tile was measured; give it longer")
        return Tuning(
            belongs_to=graph_hash(self.model),
            machine=self.machine,
            threads=self.planner.threads,
            shapes=tuple(found),
        )

    def _shapes(self) -> Iterator[tuple[PlanKind, int, tuple[int, int]]]:
        """Yield shapes, small ones first, in every number of lanes."""
        geometry = self.model.contract.geometry
        tiles = [(geometry.y.accepted_size(side), geometry.x.accepted_size(side)) for side in TILES_PX]
        strips = STRIPS_PX if self.model.strips is not None else ()
        kinds = [*(("tile", shape) for shape in tiles), *(("strip", shape) for shape in strips)]
        for kind, shape in sorted(kinds, key=lambda one: one[1][0] * one[1][1]):
            for lanes in LaneChoice.up_to(self.planner.threads).counts:
                yield kind, lanes, shape  # type: ignore[misc]

    def _measured(self, kind: PlanKind, lanes: int, shape: tuple[int, int]) -> TunedShape | None:
        """Return the speed of a shape; None if it does not suit the network, or does not fit the memory."""
        height, width = shape
        size = (height, STEPS * lanes * width) if kind == "tile" else (STEPS * height, lanes * width)
        source = ArraySource(_samples(self.model.contract, size))
        with suppress(PlanError):
            plan = self.planner.choose(source, NoSink(), Wish(plan=kind, tile=shape, lanes=lanes)).plan
            if isinstance(plan, StripPlan) != (kind == "strip"):  # too low for a first, a body and a last strip
                return None
            need = self.planner.memory_need(plan, source, NoSink())
            guess = predicted(plan, activation_bytes=need.activation_bytes, needed_bytes=need.needed_bytes)
            candidate = Candidate(predicted=guess, plan=plan, need=need, source=source)
            prefix = Prefix(contract=self.model.contract, processor=self.processor, cancellation=self.cancellation)
            turns = [prefix.pixel_s(candidate, self.planner.budget_bytes) for _ in range(TURNS)]
            times = [one for one in turns if one is not None]
            if not times:
                return None
            computed = plan.strips.passes(plan.rows) if isinstance(plan, StripPlan) else 1.0
            return TunedShape(
                kind=kind,
                shape=shape,
                lanes=lanes,
                activation_bytes=max(1, need.activation_bytes),
                seconds_per_pixel=min(times) / computed,
            )
        return None


def _samples(contract: Contract, size: tuple[int, int]) -> np.ndarray:
    """Return one row of random samples, repeated: (H, W, C), without its memory."""
    row = np.random.default_rng(0).integers(0, 256, (1, size[1], contract.image.channels))
    return np.broadcast_to(row.astype(contract.image.dtype), (*size, contract.image.channels))
