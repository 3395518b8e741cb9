"""A plan of tiles with a smaller halo than the exact one, and the exact tile for each of its zones.

Along one axis: the narrow tile, and the exact one for the same zone, which includes the whole halo::

    narrow           |··|=========|··|
    exact      |········|=========|········|
                        ^ ZoR     ^

All exact tiles have one shape; at the image's edges they are shifted inward, as every tile is.
"""

from __future__ import annotations

from dataclasses import dataclass

from exactile.geometry import AxisGeometry, Box, Geometry, Span, round_down, round_up
from exactile.plan.border import Border
from exactile.plan.tiles import AxisDomain, AxisTiles, Step, TilePlan, suiting_tile
from exactile.tolerance.halos import narrowed

BORDER: Border = "model"
"""The only border: the outside of the image would begin elsewhere with another halo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowPlan:
    """``plan`` has at most ``halo_px`` on every side; ``exact`` has tiles that hold any of its zones exactly."""

    halo_px: int
    plan: TilePlan
    exact: TilePlan

    @classmethod
    def of(cls, geometry: Geometry, image: tuple[int, int], halo_px: int, tile: tuple[int, int]) -> NarrowPlan:
        """Plan for an ``image`` of (height, width) and a ``tile`` of (height, width), which includes the smaller halo.

        Raises PlanError if the tile is too small.
        """
        less = narrowed(geometry, halo_px)
        plan = TilePlan.of(less, image, BORDER, tile)
        wide = tuple(
            _wide(axis.of_size(px), tiles)
            for axis, px, tiles in zip((geometry.y, geometry.x), image, (plan.y, plan.x), strict=True)
        )
        return cls(halo_px=halo_px, plan=plan, exact=TilePlan.of(geometry, image, BORDER, (wide[0], wide[1])))

    @classmethod
    def within(cls, geometry: Geometry, image: tuple[int, int], halo_px: int, exact: tuple[int, int]) -> NarrowPlan:
        """Plan with exact tiles of the shape ``exact``, or as small as possible."""
        less = narrowed(geometry, halo_px)
        sides = []
        exact = suiting_tile(geometry, image, BORDER, exact)
        for axis, small, px, side in zip((geometry.y, geometry.x), (less.y, less.x), image, exact, strict=True):
            domain = AxisDomain.of(small, px, BORDER)
            tile = side if side == domain.size else side - _growth(axis.of_size(px), domain.geometry)
            sides.append(max(tile, domain.smallest_tile))
        return cls.of(geometry, image, halo_px, (sides[0], sides[1]))

    def exact_step(self, step: Step) -> Step:
        """Return the exact tile for the zone of ``step``."""
        y, x = _window(self.exact.y, step.zor.y), _window(self.exact.x, step.zor.x)
        crop_y, crop_x = _crop(self.exact.y, y, step.zor.y), _crop(self.exact.x, x, step.zor.x)
        return Step(Box(y, x), step.zor, Box(crop_y, crop_x))


def _growth(exact: AxisGeometry, less: AxisGeometry) -> int:
    """Return how much longer a tile must be to be exact for any zone of one with ``less``: a multiple of the stride."""
    stride = exact.stride
    before = round_up(exact.margin_before, stride) - round_up(less.margin_before, stride)
    return before + round_up(exact.margin_after, stride) - round_down(less.margin_after, stride)


def _wide(exact: AxisGeometry, tiles: AxisTiles) -> int:
    return min(tiles.domain.size, tiles.tile + _growth(exact, tiles.domain.geometry))


def _window(exact: AxisTiles, zone: Span) -> Span:
    """Return the tile for ``zone``, in result pixels: it begins the exact halo before it, and never
    leaves the image.
    """
    domain = exact.domain
    start = int(zone.start / domain.geometry.scale) - round_up(domain.geometry.margin_before, domain.geometry.stride)
    start = max(0, min(start, domain.size - exact.tile))
    return Span(start, start + exact.tile)


def _crop(exact: AxisTiles, tile: Span, zone: Span) -> Span:
    return zone.shift(-exact.domain.geometry.output_position(tile.start))
