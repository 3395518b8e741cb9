"""Choose the pixels on which tiles and one pass are compared: the user's image, or a crop that fits, or noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import BudgetError
from exactile.geometry import AxisGeometry, Box, Geometry, Span, round_down, round_up
from exactile.plan.budget import format_bytes
from exactile.plan.tiles import AxisDomain
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.protocol import ReadPlan, Source
from exactile_converters.verify.room import Room

LARGEST_PIXELS = 1 << 24
"""Larger crops prove no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """``array`` (H, W, C) as stored: ``crop`` of the user's image of ``image_size``; both None for noise."""

    array: NDArray[Any] = field(repr=False, compare=False)
    image_size: tuple[int, int] | None = None
    crop: Box | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.array.shape[0], self.array.shape[1]


PIECES = 3
"""Tiles in each direction: the one in the middle has a halo on both sides."""

LEAST_ADVANCE_PX = 8
LEAST_STRIDES = 2
"""Strides from the start of one of the smallest tiles to that of the next."""


def suitable_tiles(geometry: Geometry) -> list[tuple[int, int]]:
    """Return tiles small enough for many seams: the first not all halo, each next one with a smaller zone."""
    rows, columns = _sides(geometry.y), _sides(geometry.x)
    count = max(len(rows), len(columns))
    rows, columns = (sides + sides[-1:] * (count - len(sides)) for sides in (rows, columns))
    return list(zip(rows, columns, strict=True))


def _sides(axis: AxisGeometry) -> list[int]:
    before, after = _around(axis)
    advance, found = round_up(max(32, (before + after) // 2), axis.stride), []
    last = round_up(max(LEAST_ADVANCE_PX, LEAST_STRIDES * axis.stride), axis.stride)
    while True:
        found.append(axis.accepted_size(before + advance + after))
        if advance <= last:
            return found
        advance = max(last, round_up(advance // 2, axis.stride))


def _around(axis: AxisGeometry) -> tuple[int, int]:
    """Return the pixels before and after its zone in a tile of an image of any size."""
    axes = [axis, *(other for other in axis.others or () if not other.one_pass)]
    before = max(round_up(max(0, one.margin_before), one.stride) for one in axes)
    return before, max(0, *(one.margin_after for one in axes))


def noise_pixels(
    geometry: Geometry, tile: tuple[int, int], *, channels: int, dtype: str, generator: np.random.Generator
) -> Pixels:
    """Return seeded noise with room for three tiles in each direction, of an irregular size."""
    shape = (*noise_size(geometry, tile), channels)
    if dtype == "float32":
        return Pixels(array=generator.standard_normal(shape, np.float32))
    return Pixels(array=generator.integers(0, 256, shape).astype(dtype))


def noise_size(geometry: Geometry, tile: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) with room for three tiles in each direction."""
    return _three_tiles(geometry.y, tile[0]), _three_tiles(geometry.x, tile[1])


def _three_tiles(axis: AxisGeometry, tile: int) -> int:
    """Return a size that tiles of about ``tile`` pixels cut into three or more."""
    advance = max(axis.stride, round_down(tile - sum(_around(axis)), axis.stride))
    size = tile + 2 * advance - axis.stride // 2 - 1
    while _pieces(axis, size, tile) < PIECES:  # another size may have smaller halos
        size += 1
    return size


def _pieces(axis: AxisGeometry, size: int, tile: int) -> int:
    """Return how many tiles cut ``size``."""
    axis = axis.without_others if axis.of_size(size).one_pass else axis
    domain = AxisDomain.of(axis, size, "model")
    side = domain.tile_for(tile, axis)
    return 1 if side >= domain.size else -(-(domain.size - side) // max(1, domain.advance(side))) + 1


def chosen_pixels(
    source: Source | None,
    geometry: Geometry,
    tiles: Sequence[tuple[int, int]],
    room: Room,
    *,
    channels: int,
    dtype: str,
    seed: int,
) -> tuple[Pixels, tuple[int, int]]:
    """Return pixels of the user's image, or noise without one, and the first of ``tiles``, in falling size, that suits.

    Raises ChannelError, BudgetError.
    """
    if source is None:
        tile = noise_tile(geometry, tiles, room)
        generator = np.random.default_rng(seed)
        return noise_pixels(geometry, tile, channels=channels, dtype=dtype, generator=generator), tile
    leave_out_alpha(source, channels)
    pixels = image_pixels(source, geometry, room)
    (height, width), (rows, columns) = pixels.size, zip(*tiles, strict=True)
    return pixels, (_cutting(rows, height), _cutting(columns, width))


def _cutting(sides: Sequence[int], size: int) -> int:
    """Return the largest side that cuts ``size``, or the largest of all where none does."""
    return next((side for side in sides if side < size), sides[0])


def noise_tile(geometry: Geometry, tiles: Sequence[tuple[int, int]], room: Room) -> tuple[int, int]:
    """Return the first of ``tiles`` whose noise is not large, or else the last one. Raises BudgetError."""
    for tile in tiles:
        if room.needed(_accepted(geometry, noise_size(geometry, tile))) <= room.noise_bytes:
            return tile
    height, width = noise_size(geometry, tiles[-1])
    need = room.needed(_accepted(geometry, (height, width)))
    if need > room.allowed_bytes:
        raise BudgetError(
            f"one pass over {height} x {width} pixels, which hold three tiles of {tiles[-1][0]} x {tiles[-1][1]} each "
            f"way, needs about {format_bytes(need)}, and {format_bytes(room.allowed_bytes)} are allowed; raise --memory"
            + (", or give a smaller --tile" if len(tiles) == 1 else ""),
            least_bytes=need,
        )
    return tiles[-1]


def image_pixels(source: Source, geometry: Geometry, room: Room) -> Pixels:
    """Return the whole of ``source``, or the crop from its middle for which there is ``room``. Raises BudgetError."""
    size = source.height, source.width
    height, width = _largest_that_fits(size, geometry, room)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    box = Box(Span(top, top + height), Span(left, left + width))
    array = np.empty((height, width, source.channels), source.dtype)
    source.prepare(ReadPlan(rows=[box.y], columns=[box.x]), cache_bytes=0)
    source.read(box, array)
    return Pixels(array=array, image_size=size, crop=box)


def _largest_that_fits(size: tuple[int, int], geometry: Geometry, room: Room) -> tuple[int, int]:
    height, width = size
    while height * width > LARGEST_PIXELS or room.needed(_accepted(geometry, (height, width))) > room.allowed_bytes:
        if height * width < 64 * 64:
            raise BudgetError(
                f"not even a small crop of the image fits the {format_bytes(room.allowed_bytes)} that are allowed in "
                "one whole pass; raise --memory"
            )
        if height >= width:
            height = height * 9 // 10
        else:
            width = width * 9 // 10
    return height, width


def _accepted(geometry: Geometry, size: tuple[int, int]) -> tuple[int, int]:
    return geometry.y.accepted_size(size[0]), geometry.x.accepted_size(size[1])
