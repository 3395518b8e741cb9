"""Which plan to run: whole, tile or strip, by predicted time within the memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from exactile.contract import DeployedModel, StripModel
from exactile.errors import BudgetError, PlanError
from exactile.geometry import Geometry, round_up
from exactile.plan.border import Border
from exactile.plan.budget import NEGLIGIBLE, MemoryNeed, axis_candidates, choose_tiles, least_budget
from exactile.plan.prediction import Plan, Predicted, frugal, predicted, predicted_passes
from exactile.plan.strips import StripPlan, least_rows
from exactile.plan.tiles import AxisDomain, TilePlan

Measure = Callable[[Plan], MemoryNeed]

USUAL_STRIP_ROWS = (32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
MOST_BANDS = 64
BANDS_COMPARED = 4
"""Widths of bands, from the widest that fits on: narrower ones compute more, with smaller maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A plan, what it computes in passes over the image, and why it was taken."""

    plan: Plan
    passes: float
    reason: str


def choose(
    model: DeployedModel, image: tuple[int, int], border: Border, *, budget_bytes: int, measure: Measure
) -> Choice:
    """The plan that is predicted to be the fastest of those that fit ``budget_bytes``.

    Of plans that take about the same time, one that needs much less memory. Raises BudgetError.
    """
    model = model_at(model, image, border)
    found: list[Predicted] = []
    refusals: list[BudgetError] = []
    try:
        tiles = choose_tiles(model, image, border, budget_bytes=budget_bytes, measure=measure)
        found.append(_predicted(tiles, measure(tiles)))
    except BudgetError as error:
        refusals.append(error)
    domains = _domains(model, image, border)
    made, strips, obstacle = model.strips_at(domains.geometry), None, model.no_strips_at(domains.geometry)
    if made is not None and domains.y.size >= least_rows(made):
        try:
            strips = choose_strips(model, image, border, budget_bytes=budget_bytes, measure=measure)
            found.append(_predicted(strips, measure(strips)))
        except (BudgetError, PlanError) as error:
            obstacle = str(error)
            refusals += [error] if isinstance(error, BudgetError) else []
    if not found:
        raise min(refusals, key=lambda error: error.least_bytes or 1 << 62)
    best = frugal(found)
    others = [f"{other.plan.name} {other.time:.2f}" for other in found if other is not best]
    reason = f"predicted {best.time:.2f} passes over the image" + (f" ({', '.join(others)})" if others else "")
    if strips is None and best.plan.name == "tile" and obstacle:
        reason += f"; no strips: {obstacle}"
    return Choice(plan=best.plan, passes=predicted_passes(best.plan), reason=reason)


def _predicted(plan: Plan, need: MemoryNeed) -> Predicted:
    return predicted(plan, activation_bytes=need.activation_bytes, needed_bytes=need.needed_bytes)


def choose_strips(
    model: DeployedModel, image: tuple[int, int], border: Border, *, budget_bytes: int, measure: Measure
) -> Plan:
    """The fastest strips that fit; of those that take hardly longer, the fewest bands, and the lowest strips.

    Raises PlanError where the network does not allow strips, BudgetError where nothing fits.
    """
    model = model_at(model, image, border)
    domains = _domains(model, image, border)
    strips = model.strips_at(domains.geometry)
    if strips is None and (model.strips is None or not domains.geometry.y.one_pass):
        raise PlanError(
            f"this network cannot be run in strips: {model.no_strips_at(domains.geometry)}; use --plan tile"
        )
    fitting: list[tuple[float, Plan]] = []
    least: MemoryNeed | None = None
    for band in _bands(domains.x):
        for rows in _rows(domains.y, strips):
            plan = strip_plan(model, image, border, rows=rows, band=band)
            need = measure(plan)
            least = need if least is None or least_budget(need) < least_budget(least) else least
            if need.fits(budget_bytes):
                fitting.append((_predicted(plan, need).time, plan))
        if len({plan.x.tile for _, plan in fitting}) == BANDS_COMPARED:
            break
    if not fitting:
        assert least is not None
        raise BudgetError(
            f"even the smallest strips {least.shortage(budget_bytes)}; or use --plan tile",
            least_bytes=least_budget(least),
        )
    best = min(cost for cost, _ in fitting)
    return next(plan for cost, plan in fitting if cost <= best + NEGLIGIBLE)


def strip_plan(model: DeployedModel, image: tuple[int, int], border: Border, *, rows: int, band: int) -> Plan:
    """Strips of ``rows`` rows; an image too low for a first and a last strip goes through each band in one piece.

    So does one of a height that the network takes and that cannot be cut. Raises PlanError where the network does not
    allow strips.
    """
    model = model_at(model, image, border)
    geometry, domains = model.contract.geometry, _domains(model, image, border)
    strips = model.strips_at(domains.geometry)
    if strips is None and (model.strips is None or not domains.geometry.y.one_pass):
        raise PlanError(
            f"this network cannot be run in strips: {model.no_strips_at(domains.geometry)}; use --plan tile"
        )
    if strips is None or domains.y.size < least_rows(strips):
        return TilePlan.of(geometry, image, border, (domains.y.size, band))
    return StripPlan.of(geometry, strips, image, border, rows=rows, band=band)


def model_at(model: DeployedModel, image: tuple[int, int], border: Border) -> DeployedModel:
    """``model`` with the graphs for an ``image`` of (height, width) pixels."""
    return model.at(_domains(model, image, border).geometry)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Domains:
    y: AxisDomain
    x: AxisDomain

    @property
    def geometry(self) -> Geometry:
        """What holds for images of this size."""
        return Geometry(y=self.y.geometry, x=self.x.geometry)


def _domains(model: DeployedModel, image: tuple[int, int], border: Border) -> _Domains:
    geometry = model.contract.geometry
    return _Domains(y=AxisDomain.of(geometry.y, image[0], border), x=AxisDomain.of(geometry.x, image[1], border))


def _rows(domain: AxisDomain, strips: StripModel | None) -> Iterator[int]:
    """Strip heights worth trying, rising."""
    stride = domain.geometry.stride
    if strips is None or domain.size < least_rows(strips):
        yield domain.size
        return
    usual = dict.fromkeys(round_up(rows, stride) for rows in USUAL_STRIP_ROWS)
    yield from [rows for rows in usual if rows < domain.size] or [stride]


def _bands(domain: AxisDomain) -> list[int]:
    """Band widths, the widest (all columns) first."""
    return [band for band, _ in axis_candidates(domain)][:MOST_BANDS]
