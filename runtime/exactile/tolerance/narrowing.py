"""Choose the halo of a run with a tolerance, and check it on the image before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.contract.error_curve import ErrorCurve
from exactile.contract.tolerance import Tolerance
from exactile.geometry import Geometry
from exactile.plan.tiles import AxisDomain, Step
from exactile.planning import Planner, Wish
from exactile.processors.host import HostProcessor
from exactile.sinks.protocol import Sink
from exactile.sources.protocol import Source
from exactile.tolerance.compared import compared
from exactile.tolerance.difference import Difference
from exactile.tolerance.halos import exact_halo, halo_steps, narrowed
from exactile.tolerance.measure import error_of, sample_tile
from exactile.tolerance.narrow import BORDER, NarrowPlan
from exactile.tolerance.report import ToleranceReport, exceeded
from exactile.tolerance.tile_runs import TileRuns, sample

LEAST_CHECKED, MOST_CHECKED = 4, 64
"""Tiles that are checked: a hundredth of them, but no fewer and no more."""
CHECKED_SHARE = 0.01
SAMPLED_ZONES = 4
"""Zones of the image, for each halo that is tried if no curve was measured before."""

LARGEST_TILE_PX = 1024
HALOS_OF_TILE = 8
"""An exact tile may be this large, or this many times its halos: otherwise checks would take as long as the run."""

CHECK_SEED, SAMPLE_SEED = 1, 0
"""The tiles for the check differ from those that chose the halo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """The plan that replaces the requested one, and the report on it."""

    model: DeployedModel
    planner: Planner
    wish: Wish
    report: ToleranceReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """The choice for one image and ``wish``, which has a tolerance. ``planner_of`` plans for the model with another
    geometry.
    """

    model: DeployedModel
    planner: Planner
    planner_of: Callable[[DeployedModel], Planner]
    processor: HostProcessor
    source: Source
    sink: Sink
    wish: Wish

    def find(self, constants: Mapping[str, NDArray[Any]], check: Callable[[], None]) -> Narrowed:
        """Return the smallest halo that is expected to satisfy the bound, if it does in a sample of tiles; else the
        exact plan.

        Raises BudgetError if the exact tile for the check does not fit, PlanError, SourceError.
        """
        self.planner.check_source(self.source)
        runs = TileRuns(
            model=self.model,
            planner=self.planner,
            processor=self.processor,
            source=self.source,
            sink=self.sink,
            constants=constants,
            check=check,
        )
        halo, expected, origin = self._expected(runs)
        if narrowed(self._geometry, halo) == narrowed(self._geometry, self._exact_px):
            return self._exact(f"no smaller halo is within it, by {origin}", origin)
        narrow = self._plan(halo)
        if len(narrow.plan) == 1:
            return self._exact("one tile is the whole image", origin)
        steps = sample(narrow.plan, min(MOST_CHECKED, max(LEAST_CHECKED, self._share(narrow))), CHECK_SEED)
        found, at = self._check(narrow, runs, steps)
        report = ToleranceReport(
            tolerance=self._tolerance.text,
            exact=False,
            halo_px=halo,
            exact_halo_px=self._exact_px,
            source=origin,
            expected=expected,
            found=found,
            checked=len(steps),
            tiles=len(narrow.plan),
            at=at,
        )
        if found > self._tolerance.most:
            reason = exceeded(self._tolerance, found, at)
            return self._as_asked(replace(report, exact=True, reason=reason))
        return self._narrow(report, narrow.plan.tile_shape)

    def taken_over(self, report: ToleranceReport, tile: tuple[int, int]) -> Narrowed:
        """Return the findings of an earlier run, which this one takes over."""
        return self._as_asked(report) if report.exact else self._narrow(report, tile)

    @property
    def _tolerance(self) -> Tolerance:
        assert self.wish.tolerance is not None
        return self.wish.tolerance

    @property
    def _geometry(self) -> Geometry:
        return self.model.contract.geometry

    @property
    def _image(self) -> tuple[int, int]:
        return self.source.height, self.source.width

    @property
    def _exact_px(self) -> int:
        return exact_halo(self._geometry)

    def _expected(self, runs: TileRuns) -> tuple[int, float | None, str]:
        """Return the halo that is expected to satisfy the bound, its expected error, and the origin of
        the expectation.
        """
        curve = self.model.error_curve
        if curve is not None:
            halo, error = curve.within(self._tolerance, lambda px: self._more_seams(curve, px))
            return halo, error, f"the bundle's error curve ({len(curve.images)} image(s))"
        halos = halo_steps(self._geometry)
        low, high, expected = -1, len(halos) - 1, 0.0
        while high - low > 1:  # errors fall with the halo; otherwise the check finds it
            middle = (low + high) // 2
            narrow = self._sampled(halos[middle])
            if len(narrow.plan) == 1:
                return self._exact_px, 0.0, "an image without seams"
            found, _ = error_of(narrow, runs, zones=SAMPLED_ZONES, seed=SAMPLE_SEED)
            error = found.by(self._tolerance)
            if error <= self._tolerance.most:
                high, expected = middle, error
            else:
                low = middle
        return halos[high], expected, "a sample of this image"

    def _more_seams(self, curve: ErrorCurve, halo_px: int) -> float:
        """Return the number of seams of this run relative to the tiles of ``curve``; 1 if no tiles were requested."""
        if self.wish.tile is None:
            return 1.0
        measured = _seams(NarrowPlan.within(self._geometry, self._image, halo_px, curve.tile))
        return _seams(self._plan(halo_px)) / measured if measured else 1.0

    def _sampled(self, halo_px: int) -> NarrowPlan:
        """Return tiles as requested, or small ones, which have more seams than those that will be run."""
        if self.wish.tile is not None:
            return self._plan(halo_px)
        shape = sample_tile(self._geometry, self._image)
        return NarrowPlan.within(self._geometry, self._image, halo_px, shape)

    def _plan(self, halo_px: int) -> NarrowPlan:
        if self.wish.tile is not None:
            return NarrowPlan.of(self._geometry, self._image, halo_px, self.wish.tile)
        asked = replace(self.wish, plan="tile", tolerance=None, background=None)
        exact = self.planner.choose(self.source, self.sink, asked).plan.tile_shape
        sides = []
        for axis, px, side in zip((self._geometry.y, self._geometry.x), self._image, exact, strict=True):
            own = AxisDomain.of(axis, px, BORDER).geometry
            margins = own.margin_before + own.margin_after
            sides.append(min(side, own.accepted_size(max(LARGEST_TILE_PX, HALOS_OF_TILE * margins))))
        return NarrowPlan.within(self._geometry, self._image, halo_px, (sides[0], sides[1]))

    def _share(self, narrow: NarrowPlan) -> int:
        return int(np.ceil(CHECKED_SHARE * len(narrow.plan)))

    def _check(self, narrow: NarrowPlan, runs: TileRuns, steps: list[Step]) -> tuple[float, tuple[int, int]]:
        """Return the error in ``steps``, and the first pixel of the step with most of it."""
        result, total, worst, at = self.model.contract.result, Difference(), -1.0, (0, 0)
        for step, right, other in compared(narrow, runs, steps):
            one = Difference()
            one.add(result, right, other)
            total.add(result, right, other)
            size = one.largest if self._tolerance.kind == "scores" else float(one.differing)
            if size > worst:
                worst, at = size, (step.zor.y.start, step.zor.x.start)
        return total.by(self._tolerance), at

    def _exact(self, reason: str, origin: str) -> Narrowed:
        return self._as_asked(
            ToleranceReport(
                tolerance=self._tolerance.text,
                exact=True,
                halo_px=self._exact_px,
                exact_halo_px=self._exact_px,
                source=origin,
                reason=reason,
            )
        )

    def _as_asked(self, report: ToleranceReport) -> Narrowed:
        return Narrowed(model=self.model, planner=self.planner, wish=replace(self.wish, tolerance=None), report=report)

    def _narrow(self, report: ToleranceReport, tile: tuple[int, int]) -> Narrowed:
        geometry = narrowed(self._geometry, report.halo_px)
        contract = replace(self.model.contract, geometry=geometry)
        model = replace(
            self.model,
            contract=contract,
            strips=None,
            other_strips={},
            no_strips_reason="a tolerance is for tiles",
        )
        wish = replace(self.wish, plan="tile", tile=tile, tolerance=None)
        return Narrowed(model=model, planner=self.planner_of(model), wish=wish, report=report)


def _seams(narrow: NarrowPlan) -> float:
    """Return pixels of seams for each pixel of the image."""
    axes = narrow.plan.y, narrow.plan.x
    return sum((len(axis.starts) - 1) / axis.domain.size for axis in axes)
