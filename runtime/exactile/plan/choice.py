"""Choose the plan: whole, tile or strip, by predicted time within the memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf

from exactile.contract import DeployedModel, StripModel
from exactile.errors import BudgetError, PlanError
from exactile.geometry import Geometry, round_up
from exactile.plan.border import Border
from exactile.plan.budget import NEGLIGIBLE, MemoryNeed, axis_candidates, choose_tiles, least_budget
from exactile.plan.lanes import LaneChoice, in_lanes, pieces
from exactile.plan.prediction import Plan, Predicted, frugal, predicted, predicted_passes, worthwhile
from exactile.plan.speed import USUAL, Speed
from exactile.plan.strips import StripPlan, least_rows
from exactile.plan.tiles import AxisDomain, TilePlan

Measure = Callable[[Plan], MemoryNeed]

USUAL_STRIP_ROWS = (32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
MOST_BANDS = 64
BANDS_COMPARED = 4
"""Number of band widths to compare, from the widest that fits: narrower ones compute more, with smaller maps."""

ONE_LANE = LaneChoice()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A plan, what it computes in passes over the image, and why it was chosen."""

    plan: Plan
    passes: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSearch:
    """Plans of ``model`` for an ``image`` of (height, width) pixels that fit ``budget_bytes`` according to ``measure``.

    Each has one of the numbers of ``lanes``: more if that pays off. Times are predicted by ``speed``.
    """

    model: DeployedModel
    image: tuple[int, int]
    border: Border
    budget_bytes: int
    measure: Measure
    lanes: LaneChoice = ONE_LANE
    speed: Speed = USUAL

    def best(self) -> Choice:
        """Return the plan that is predicted to be the fastest; of those with about the same time, a much smaller one.

        Raises BudgetError, and PlanError if the image has too few tiles for the lanes.
        """
        found: list[Predicted] = []
        refusals: list[PlanError] = []
        try:
            found.append(self._tiles())
        except PlanError as error:
            refusals.append(error)
        domains = _domains(self.model, self.image, self.border)
        model = self.model.at(domains.geometry)
        made, strips, obstacle = model.strips_at(domains.geometry), None, model.no_strips_at(domains.geometry)
        if made is not None and domains.y.size >= least_rows(made):
            try:
                strips = self._strips()
                found.append(strips)
            except (BudgetError, PlanError) as error:
                obstacle = str(error)
                refusals += [error] if isinstance(error, BudgetError) else []
        if not found:
            raise min(refusals, key=lambda error: getattr(error, "least_bytes", None) or 1 << 62)
        best = frugal(found)
        others = [f"{other.plan.name} {other.time:.2f}" for other in found if other is not best]
        by = "by what was tuned on this machine" if self.speed.points else "predicted"
        reason = f"{by} {best.time:.2f} passes over the image" + (f" ({', '.join(others)})" if others else "")
        if strips is None and best.plan.name == "tile" and obstacle:
            reason += f"; no strips: {obstacle}"
        return Choice(plan=best.plan, passes=predicted_passes(best.plan), reason=reason)

    def tiles(self) -> Plan:
        """Return the fastest tiles. Raises PlanError, BudgetError."""
        return self._tiles().plan

    def strips(self) -> Plan:
        """Return the fastest strips; of those that take hardly longer, the fewest bands, and the lowest strips.

        Raises PlanError if the network does not allow strips, BudgetError if nothing fits.
        """
        return self._strips().plan

    def shaped(self, plan: Plan) -> Plan:
        """Return ``plan``, whose shape is given, in its lanes. Raises PlanError if none of their
        numbers is possible.
        """
        counts = [count for count in self.lanes.counts if count <= pieces(plan)]
        if not counts:
            return in_lanes(plan, self.lanes.counts[0])
        made = [in_lanes(plan, count) for count in counts]
        fitting = [one for one in made if self.measure(one).fits(self.budget_bytes)]
        return worthwhile([self._predicted(one) for one in fitting or made[:1]]).plan

    def _tiles(self) -> Predicted:
        model = model_at(self.model, self.image, self.border)

        def tiles(count: int, _limit: float) -> Plan:
            return choose_tiles(
                model,
                self.image,
                self.border,
                budget_bytes=self.budget_bytes,
                measure=self.measure,
                lanes=count,
                speed=self.speed,
            )

        return self._of_all_counts(tiles)

    def _strips(self) -> Predicted:
        return self._of_all_counts(self._strips_in)

    def _of_all_counts(self, make: Callable[[int, float], Plan]) -> Predicted:
        """Return the plan whose number of lanes pays off. Raises what the first number raised, if none is possible.

        ``make`` gets the time of the fastest plan so far, and raises PlanError if all of its plans take longer.
        """
        found: list[Predicted] = []
        first: PlanError | None = None
        for count in self.lanes.counts:
            try:
                found.append(self._predicted(make(count, min((one.time for one in found), default=inf))))
            except PlanError as error:
                first = first or error
        if not found:
            assert first is not None
            raise first
        return worthwhile(found)

    def _predicted(self, plan: Plan) -> Predicted:
        need = self.measure(plan)
        return predicted(
            plan,
            activation_bytes=need.activation_bytes,
            needed_bytes=need.needed_bytes,
            speed=self.speed,
        )

    def _strips_in(self, count: int, limit: float) -> Plan:
        """Return the fastest strips in ``count`` lanes, with bands that can be divided among them evenly.

        Bands whose halo alone makes them slower than ``limit`` are skipped.
        """
        domains = _domains(self.model, self.image, self.border)
        strips = _strips_or_refuse(self.model.at(domains.geometry), domains.geometry)
        fitting: list[Predicted] = []
        least: MemoryNeed | None = None
        most = limit / self.speed.least("strip", count) * domains.x.size
        for band in _bands(domains.x, count, most):
            for rows in _rows(domains.y, strips):
                plan = in_lanes(strip_plan(self.model, self.image, self.border, rows=rows, band=band), count)
                need = self.measure(plan)
                least = need if least is None or least_budget(need) < least_budget(least) else least
                if need.fits(self.budget_bytes):
                    fitting.append(self._predicted(plan))
            if len({one.plan.x.tile for one in fitting}) == BANDS_COMPARED:
                break
        if least is None:
            raise PlanError(
                f"{self.image[1]} columns are not divided into bands for {count} lanes. What to do: fewer --lanes, or "
                "--plan tile"
            )
        if not fitting:
            raise BudgetError(
                f"even the smallest strips {least.shortage(self.budget_bytes)}; or use --plan tile",
                least_bytes=least_budget(least),
            )
        best = min(one.time for one in fitting)
        return next(one.plan for one in fitting if one.time <= best + NEGLIGIBLE)


def strip_plan(model: DeployedModel, image: tuple[int, int], border: Border, *, rows: int, band: int) -> Plan:
    """Return strips of ``rows`` rows; an image too low for a first and a last strip has one piece per band.

    So does one of an accepted height that cannot be cut. Raises PlanError if the network does not allow strips.
    """
    model = model_at(model, image, border)
    geometry, domains = model.contract.geometry, _domains(model, image, border)
    strips = _strips_or_refuse(model, domains.geometry)
    if strips is None or domains.y.size < least_rows(strips):
        return TilePlan.of(geometry, image, border, (domains.y.size, band))
    return StripPlan.of(geometry, strips, image, border, rows=rows, band=band)


def _strips_or_refuse(model: DeployedModel, geometry: Geometry) -> StripModel | None:
    """Return the strips for images of ``geometry``; None if such images are run in one piece. Raises PlanError."""
    strips = model.strips_at(geometry)
    if strips is None and (model.strips is None or not geometry.y.one_pass):
        raise PlanError(f"this network cannot be run in strips: {model.no_strips_at(geometry)}; use --plan tile")
    return strips


def model_at(model: DeployedModel, image: tuple[int, int], border: Border) -> DeployedModel:
    """Return ``model`` with the graphs for an ``image`` of (height, width) pixels."""
    return model.at(_domains(model, image, border).geometry)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Domains:
    y: AxisDomain
    x: AxisDomain

    @property
    def geometry(self) -> Geometry:
        """The geometry for images of this size."""
        return Geometry(y=self.y.geometry, x=self.x.geometry)


def _domains(model: DeployedModel, image: tuple[int, int], border: Border) -> _Domains:
    geometry = model.contract.geometry
    return _Domains(y=AxisDomain.of(geometry.y, image[0], border), x=AxisDomain.of(geometry.x, image[1], border))


def _rows(domain: AxisDomain, strips: StripModel | None) -> Iterator[int]:
    """Yield strip heights worth trying, rising."""
    stride = domain.geometry.stride
    if strips is None or domain.size < least_rows(strips):
        yield domain.size
        return
    usual = dict.fromkeys(round_up(rows, stride) for rows in USUAL_STRIP_ROWS)
    yield from [rows for rows in usual if rows < domain.size] or [stride]


def _bands(domain: AxisDomain, lanes: int, most_columns: float) -> list[int]:
    """Return band widths, the widest first, of which each lane gets the same number, with at most ``most_columns`` in
    all.
    """
    found = [(band, bands) for band, bands in axis_candidates(domain) if bands % lanes == 0]
    return [band for band, bands in found if band * bands <= most_columns][:MOST_BANDS]
