"""What tiled and whole are compared on: the user's image, as much of it as one pass can take, or noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import BudgetError
from exactile.geometry import AxisGeometry, Box, Geometry, Span, round_down, round_up
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.protocol import ReadPlan, Source

LARGEST_PIXELS = 1 << 24
"""Larger crops than this prove no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """``array`` (H, W, C) as stored: ``crop`` of the user's image of ``image_size``; both None for noise."""

    array: NDArray[Any] = field(repr=False, compare=False)
    image_size: tuple[int, int] | None = None
    crop: Box | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.array.shape[0], self.array.shape[1]


def suitable_tile(geometry: Geometry) -> tuple[int, int]:
    """A tile small enough for many seams, though not all halo."""
    return _tile(geometry.y), _tile(geometry.x)


def _tile(axis: AxisGeometry) -> int:
    before, after = round_up(max(0, axis.margin_before), axis.stride), max(0, axis.margin_after)
    advance = round_up(max(32, (before + after) // 2), axis.stride)
    return axis.accepted_size(before + advance + after)


def noise_pixels(
    geometry: Geometry, tile: tuple[int, int], *, channels: int, dtype: str, generator: np.random.Generator
) -> Pixels:
    """Seeded noise with room for three tiles each way, of no round size."""
    height, width = _three_tiles(geometry.y, tile[0]), _three_tiles(geometry.x, tile[1])
    shape = (height, width, channels)
    if dtype == "float32":
        return Pixels(array=generator.standard_normal(shape, np.float32))
    return Pixels(array=generator.integers(0, 256, shape).astype(dtype))


def _three_tiles(axis: AxisGeometry, tile: int) -> int:
    halo = round_up(max(0, axis.margin_before), axis.stride) + max(0, axis.margin_after)
    advance = max(axis.stride, round_down(tile - halo, axis.stride))
    return tile + 2 * advance - axis.stride // 2 - 1


def chosen_pixels(
    source: Source | None,
    geometry: Geometry,
    tile: tuple[int, int],
    fits: Callable[[int, int], bool],
    *,
    channels: int,
    dtype: str,
    seed: int,
) -> Pixels:
    """Those of the user's image, or noise where there is none. Raises ChannelError, BudgetError."""
    if source is None:
        generator = np.random.default_rng(seed)
        return noise_pixels(geometry, tile, channels=channels, dtype=dtype, generator=generator)
    leave_out_alpha(source, channels)
    return image_pixels(source, geometry, fits)


def image_pixels(source: Source, geometry: Geometry, fits: Callable[[int, int], bool]) -> Pixels:
    """``source`` whole, or the crop from its middle for which ``fits(height, width)``. Raises BudgetError."""
    size = source.height, source.width
    height, width = _largest_that_fits(size, geometry, fits)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    box = Box(Span(top, top + height), Span(left, left + width))
    array = np.empty((height, width, source.channels), source.dtype)
    source.prepare(ReadPlan(rows=[box.y], columns=[box.x]), cache_bytes=0)
    source.read(box, array)
    return Pixels(array=array, image_size=size, crop=box)


def _largest_that_fits(size: tuple[int, int], geometry: Geometry, fits: Callable[[int, int], bool]) -> tuple[int, int]:
    height, width = size
    while height * width > LARGEST_PIXELS or not fits(
        geometry.y.accepted_size(height), geometry.x.accepted_size(width)
    ):
        if height * width < 64 * 64:
            raise BudgetError("not even a small crop of the image fits the free memory in one whole pass")
        if height >= width:
            height = height * 9 // 10
        else:
            width = width * 9 // 10
    return height, width
