"""What tiles of usual sizes cost: memory, and pixels computed for each pixel wanted."""

from __future__ import annotations

from dataclasses import dataclass

from exactile.contract import MemoryModel
from exactile.geometry import Geometry
from exactile.plan.tiles import AxisDomain, TilePlan

USUAL_TILES_PX = (256, 512, 1024, 2048)
LARGE_IMAGE_PX = (20_000, 20_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class TileCost:
    """A tile and the large image it is judged by, both (height, width) in pixels.

    ``memory_bytes`` is one inference with its weights; ``memory_bytes_per_megapixel`` what each megapixel of the
    tile takes of it, weights aside. ``computed_over_wanted`` is None for a tile too small for the halo.
    """

    tile: tuple[int, int]
    image: tuple[int, int]
    memory_bytes: int | None
    memory_bytes_per_megapixel: int | None
    computed_over_wanted: float | None


def tile_costs(geometry: Geometry, memory: MemoryModel | None) -> tuple[TileCost, ...]:
    """Return the usual tiles, each rounded up to a size that the network accepts."""
    tiles = [(geometry.y.accepted_size(size), geometry.x.accepted_size(size)) for size in USUAL_TILES_PX]
    return tuple(_cost(geometry, memory, tile) for tile in dict.fromkeys(tiles))


def _cost(geometry: Geometry, memory: MemoryModel | None, tile: tuple[int, int]) -> TileCost:
    activations = memory.activation_bytes(*tile) if memory else None
    return TileCost(
        tile=tile,
        image=LARGE_IMAGE_PX,
        memory_bytes=memory.weights_bytes + activations if memory and activations is not None else None,
        memory_bytes_per_megapixel=int(activations * 1e6 / (tile[0] * tile[1])) if activations is not None else None,
        computed_over_wanted=_redundancy(geometry, tile),
    )


def _redundancy(geometry: Geometry, tile: tuple[int, int]) -> float | None:
    axes = zip((geometry.y, geometry.x), LARGE_IMAGE_PX, tile, strict=True)
    if any(AxisDomain.of(axis, size, "model").smallest_tile > side for axis, size, side in axes):
        return None
    plan = TilePlan.of(geometry, LARGE_IMAGE_PX, "model", tile)
    return plan.computed_pixels / plan.wanted_pixels
