"""Measure error against halo, and the effective receptive field, on images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.contract.error_curve import CurveImage, ErrorCurve, ErrorPoint
from exactile.contract.graph_hash import graph_hash
from exactile.errors import OptionError, PlanError
from exactile.geometry import Geometry, Span, round_up
from exactile.plan.tiles import AxisDomain, AxisTiles, Step, TilePlan, suiting_tile
from exactile.tolerance.compared import compared
from exactile.tolerance.difference import Difference
from exactile.tolerance.halos import halo_steps
from exactile.tolerance.narrow import BORDER, NarrowPlan
from exactile.tolerance.tile_runs import TileRuns, sample

Progress = Callable[[str, int, int], None]

LARGEST_ZONE_PX = 512
ZONES_ALONG = 3
"""Least number of tiles along an axis, so that there are seams to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveWish:
    """``zones`` of each image are compared, chosen by ``seed``; ``tile``, (height, width), is that of exact tiles."""

    tile: tuple[int, int] | None = None
    zones: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.zones < 1:
            raise OptionError(f"at least one zone of each image must be compared, got {self.zones}")


def measure_curve(
    model: DeployedModel, images: Sequence[tuple[str, TileRuns]], wish: CurveWish, progress: Progress
) -> ErrorCurve:
    """Return the curve of ``images``, by name; the worst of all.

    Raises OptionError for networks without a halo of their own, PlanError if an image has no seam, BudgetError.
    """
    geometry = model.contract.geometry
    if not images:
        raise OptionError("error against halo is measured on images; give one or several")
    steps, found, told = halo_steps(geometry), [], []
    tiles = [sample_tile(geometry, (runs.source.height, runs.source.width)) for _name, runs in images]
    shape = wish.tile or (min(height for height, _ in tiles), min(width for _, width in tiles))
    for name, runs in images:
        size, pixels = (runs.source.height, runs.source.width), 0
        far = _far_differences(geometry, runs, shape, steps, wish)
        points = []
        for done, halo in enumerate(steps):
            progress(f"error against halo, {name}", done, len(steps))
            narrow = NarrowPlan.within(geometry, size, halo, shape)
            near, pixels = error_of(narrow, runs, zones=wish.zones, seed=wish.seed)
            points.append(
                ErrorPoint(
                    halo_px=halo,
                    scores=near.scores,
                    labels=near.labels,
                    far_scores=far[done].scores,
                    far_labels=far[done].labels,
                )
            )
        progress(f"error against halo, {name}", len(steps), len(steps))
        found.append(points)
        zones = min(wish.zones, len(NarrowPlan.within(geometry, size, 0, shape).plan))
        told.append(CurveImage(name=name, size=size, zones=zones, pixels=pixels))
    worst = tuple(reduce(ErrorPoint.worst, same) for same in zip(*found, strict=True))
    return ErrorCurve(belongs_to=graph_hash(model), tile=shape, seed=wish.seed, images=tuple(told), points=worst)


def sample_tile(geometry: Geometry, image: tuple[int, int]) -> tuple[int, int]:
    """Return exact tiles for comparing an ``image`` of (height, width): small enough for several along each axis."""
    sides = []
    for axis, px in zip((geometry.y, geometry.x), image, strict=True):
        domain = AxisDomain.of(axis, px, BORDER)
        own = domain.geometry
        zone = max(own.stride, min(LARGEST_ZONE_PX, px // ZONES_ALONG))
        side = own.accepted_size(round_up(own.margin_before, own.stride) + zone + max(0, own.margin_after))
        sides.append(min(domain.size, max(side, domain.smallest_tile)))
    return sides[0], sides[1]


def error_of(narrow: NarrowPlan, runs: TileRuns, *, zones: int, seed: int) -> tuple[Difference, int]:
    """Return how far tiles of ``narrow`` are from exact ones, and the number of compared pixels. Raises PlanError."""
    found, pixels = Difference(), 0
    if len(narrow.plan) == 1:
        (rows, columns), (height, width) = narrow.plan.image_shape, narrow.plan.tile_shape
        raise PlanError(
            f"an image of {rows} x {columns} pixels is one tile of {height} x {width}: there is no seam to compare. "
            "Give a larger image, or a smaller --tile"
        )
    for step, right, other in compared(narrow, runs, sample(narrow.plan, zones, seed)):
        found.add(runs.model.contract.result, right, other)
        pixels += step.zor.area
    return found, pixels


def _far_differences(
    geometry: Geometry, runs: TileRuns, tile: tuple[int, int], distances: Sequence[int], wish: CurveWish
) -> list[Difference]:
    """Return the change of zones if all pixels farther than each of ``distances`` from them are permuted."""
    image = runs.source.height, runs.source.width
    plan = TilePlan.of(geometry, image, BORDER, suiting_tile(geometry, image, BORDER, tile))
    steps, found = sample(plan, wish.zones, wish.seed), [Difference() for _ in distances]
    outputs = runs.outputs(plan, _disturbed(plan, runs, steps, distances, wish.seed))
    for step in steps:
        crop = (..., *step.crop.slices())
        right = next(outputs)[crop]
        for difference in found:
            difference.add(runs.model.contract.result, right, next(outputs)[crop])
    next(outputs, None)  # the engine is closed
    return found


def _disturbed(
    plan: TilePlan, runs: TileRuns, steps: Sequence[Step], distances: Sequence[int], seed: int
) -> Iterator[NDArray[Any]]:
    """Yield each tile as it is, then with its far pixels in random order, for each distance."""
    generator = np.random.default_rng(seed)
    for step in steps:
        tile = runs.staged(step)
        yield tile
        for distance in distances:
            other, far = tile.copy(), np.ones(tile.shape[:2], bool)
            far[_near(plan.y, step.crop.y, distance), _near(plan.x, step.crop.x, distance)] = False
            other[far] = generator.permutation(other[far])
            yield other


def _near(tiles: AxisTiles, crop: Span, distance: int) -> slice:
    """Return the part of a tile within ``distance`` of its zone, in the tile's pixels."""
    geometry = tiles.domain.geometry
    first = int(crop.start / geometry.scale) - distance
    last = round_up(ceil(crop.stop / geometry.scale), geometry.stride) + distance
    return slice(max(0, first), last)
