"""Describe the passes of a network for display before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from exactile.geometry import Geometry
from exactile_converters.geometry.cost import cost_per_pixel
from exactile_converters.geometry.trace import Traced, ancestors
from exactile_converters.networks.network import Network
from exactile_converters.passes.deploy import without_statistics
from exactile_converters.passes.keeping import Cuts
from exactile_converters.passes.levels import level_geometry, levels_of
from exactile_converters.passes.segments import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticTold:
    """A statistic of ``kind`` of the feature map ``of``."""

    kind: str
    of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTold:
    """A pass before that of the result: its statistics, and the receptive field of its tiles."""

    statistics: tuple[StatisticTold, ...]
    geometry: Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class PassesTold:
    """The ``passes`` before that of the result, which has ``geometry``.

    ``times`` is the work of all passes, each begun at the image, relative to one pass; None where it is unknown.
    ``kept_times`` is their predicted time where maps are kept, relative to one pass, and ``kept_bytes`` the most bytes
    of kept maps at any time, for each pixel of the image.
    """

    passes: tuple[PassTold, ...]
    geometry: Geometry
    times: Fraction | None
    kept_times: float
    kept_bytes: float


def passes_of(network: Network) -> PassesTold | None:
    """Return the passes of a network with statistics of the whole image; None where there are other obstacles."""
    local, reductions = without_statistics(network.copy())
    traced = local.trace()
    if traced.geometry is None or not reductions:
        return None
    found = []
    for level in levels_of(local.model, reductions):
        maps = [one.of for one in level]
        told = tuple(StatisticTold(kind=one.kind, of=one.of.name or "") for one in level)
        found.append((maps, PassTold(statistics=told, geometry=level_geometry(traced, local.model, maps))))
    costs = [
        cost_per_pixel(tuple(ancestors(local.model, *maps)), traced.features).mac_per_pixel
        for maps in (*(maps for maps, _ in found), [local.result])
    ]
    cuts = Cuts(traced, levels_of(local.model, reductions), local.result)
    segments = cuts.best()
    return PassesTold(
        passes=tuple(told for _, told in found),
        geometry=traced.geometry,
        times=_times(costs, traced),
        kept_times=sum(cuts.work(segments)),
        kept_bytes=_most_kept(cuts, segments),
    )


def _most_kept(cuts: Cuts, segments: Sequence[Segment]) -> float:
    """Return the most bytes: maps are kept from the pass that computes them to the last that reads them."""
    last = {name: index for index, one in enumerate(segments) for name in one.reads}
    kept: dict[str, float] = {}
    most = 0.0
    for index, one in enumerate(segments):
        kept.update((name, cuts.bytes_of(name)) for name in one.writes)
        most = max(most, sum(kept.values()))
        kept = {name: size for name, size in kept.items() if last[name] > index}
    return most


def _times(costs: list[Fraction | None], traced: Traced) -> Fraction | None:
    known = [cost for cost in costs if cost is not None]
    whole = cost_per_pixel(traced.nodes, traced.features).mac_per_pixel
    return sum(known, Fraction(0)) / whole if len(known) == len(costs) and whole else None
