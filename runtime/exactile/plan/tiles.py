"""The tile plan: fixed-shape, stride-aligned tiles whose zones of responsibility partition the result.

Along one axis (F the stride, margins as in AxisGeometry)::

    domain   |<------------------------------------------------------------>|   accepted size
    tile 0   |==============|·····|                                             starts at 0: no halo on the left,
    tile 1              |···|=======|·····|                                     the network's own padding is the image's
    tile 2                      |···|=======|·····|
    tile 3                                   |···············|==============|   shifted inward to end with the domain
             |   ZoR 0      | ZoR 1 | ZoR 2  ...             |  last ZoR    |
                            ^ boundaries are multiples of F; so are tile starts

The domain is the image. Where the network does not take its size, it is extended to one that it takes, and for a
border other than ``model`` also by the halo. What a network does at its far edge depends on the size modulo F: all
tiles are as long as the domain modulo F, so that the last one ends as one pass does. Tiles never leave the domain.
Method: Majurski & Bajcsy, J. Res. NIST 126:126009 (2021), with halos from the graph, rectangular tiles and no redundant
last row or column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import ceil, floor

from exactile.errors import PlanError
from exactile.geometry import AxisGeometry, Box, Geometry, Span, round_down, round_up
from exactile.plan.border import Border, needed_span

MOST_PLACED_PX = 1 << 20
"""Up to here single precision resolves a quarter of a pixel: halos include that much more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisDomain:
    """The domain of the network along one axis, and the part of its output that is the result.

    ``image_start`` is the image's first pixel in the domain; ``result_start`` is the index, in the output for the whole
    domain, of the result's first pixel.
    """

    geometry: AxisGeometry
    image_size: int
    size: int
    image_start: int
    result_start: int
    result_size: int

    @classmethod
    def of(cls, geometry: AxisGeometry, image_size: int, border: Border) -> AxisDomain:
        """Return the domain of an image of ``image_size`` pixels."""
        if image_size < 1:
            raise PlanError(f"the image has {image_size} pixels along one axis")
        if border == "model":
            geometry = geometry.of_size(image_size)
            size = geometry.accepted_size(image_size)
            return cls(
                geometry=geometry,
                image_size=image_size,
                size=size,
                image_start=0,
                result_start=0,
                result_size=_result_size(geometry, image_size, size),
            )
        first = round_up(max(0, geometry.margin_before, -geometry.offset), geometry.stride)
        last = round_up(first + image_size, geometry.stride)
        least = max(last + geometry.margin_after, first + geometry.offset + image_size)
        return cls(
            geometry=geometry,
            image_size=image_size,
            size=geometry.accepted_size(least),
            image_start=first + geometry.offset,
            result_start=geometry.output_position(first),
            result_size=ceil(image_size * geometry.scale),
        )

    def check_positions(self) -> None:
        """Raise PlanError if operators depend on the position, and the image is longer than positions are exact."""
        longest = self.size * max(1, ceil(self.geometry.scale))
        if self.geometry.placed and longest > MOST_PLACED_PX:
            raise PlanError(
                f"operators of this network depend on the position in the image, which engines compute in single "
                f"precision: exact up to {MOST_PLACED_PX:,} pixels along an axis, and there would be {longest:,}. What "
                "to do: cut the image"
            )

    @property
    def smallest_tile(self) -> int:
        """The smallest tile that advances by at least one stride."""
        geometry = self.geometry
        if geometry.one_pass:
            return self.size
        need = round_up(geometry.margin_before, geometry.stride) + geometry.stride + geometry.margin_after
        return min(self.size, geometry.accepted_size(max(need, 1)))

    @property
    def image_origin(self) -> Fraction:
        """Position of the edge of the result's first pixel in the image, exact, in image pixels."""
        geometry = self.geometry
        return self.result_start / geometry.scale + geometry.origin - self.image_start

    def image_span(self, result: Span) -> Span:
        """Return the image pixels that ``result``, in result pixels, stands for."""
        geometry, moved = self.geometry, self.geometry.offset - self.image_start
        start = floor((result.start + self.result_start) / geometry.scale) + moved
        stop = ceil((result.stop + self.result_start) / geometry.scale) + moved
        return Span(0, self.image_size).intersect(Span(start, stop))

    def tile_for(self, asked: int, geometry: AxisGeometry) -> int:
        """Return the tile to run if ``asked`` pixels suit sizes of another remainder of ``geometry``:
        the next larger.
        """
        suits = {geometry.remainder, *(other.remainder for other in geometry.others or ())}
        fits = asked < self.size and asked % geometry.stride in suits
        return min(self.size, self.geometry.accepted_size(asked)) if fits else min(self.size, asked)

    def advance(self, tile: int) -> int:
        """Return input pixels from one tile's start to the next one's."""
        geometry = self.geometry
        last_boundary = round_down(tile - geometry.margin_after, geometry.stride)
        return last_boundary - round_up(geometry.margin_before, geometry.stride)


def _result_size(geometry: AxisGeometry, image_size: int, domain_size: int) -> int:
    """Return the output pixels that belong to the image: the share of the alignment padding is cropped at the end."""
    exact = ceil(image_size * geometry.scale + geometry.size_constant)
    if exact < 1:
        raise PlanError(
            f"the network gives no output for {image_size} pixels; it needs at least {geometry.accepted_size(1)}"
        )
    return min(exact, geometry.output_size(domain_size))


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisTiles:
    """Tiles along one axis. ``starts`` in domain pixels; ``zors`` in result pixels; ``crops`` in tile output pixels.

    ``tile_spans`` are the tiles in image pixels. They may begin before 0 and end beyond the image: that is the border's
    part.
    """

    domain: AxisDomain
    tile: int
    starts: tuple[int, ...]
    zors: tuple[Span, ...]
    crops: tuple[int, ...]
    tile_spans: tuple[Span, ...] = field(init=False, repr=False, compare=False)
    _needed: dict[Border, tuple[Span, ...]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        moved = [start - self.domain.image_start for start in self.starts]
        object.__setattr__(self, "tile_spans", tuple(Span(start, start + self.tile) for start in moved))

    @classmethod
    def of(cls, domain: AxisDomain, tile: int) -> AxisTiles:
        """Cover ``domain`` with tiles of ``tile`` pixels, or by one pass when it is no larger."""
        geometry = domain.geometry
        domain.check_positions()
        tile = min(tile, domain.size)
        _check_tile(domain, tile)
        before = round_up(geometry.margin_before, geometry.stride)
        result_stop = domain.result_start + domain.result_size
        starts: list[int] = []
        zors: list[Span] = []
        start, zor_start = 0, domain.result_start
        while zor_start < result_stop:
            if start + tile >= domain.size:
                start, zor_stop = domain.size - tile, result_stop
            else:
                boundary = start + round_down(tile - geometry.margin_after, geometry.stride)
                zor_stop = min(result_stop, geometry.output_position(boundary))
            starts.append(start)
            zors.append(Span(zor_start, zor_stop))
            zor_start, start = zor_stop, start + round_down(tile - geometry.margin_after, geometry.stride) - before
        return cls(
            domain=domain,
            tile=tile,
            starts=tuple(starts),
            zors=tuple(zor.shift(-domain.result_start) for zor in zors),
            crops=tuple(zor.start - geometry.output_position(start) for zor, start in zip(zors, starts, strict=True)),
        )

    def needed(self, border: Border) -> tuple[Span, ...]:
        """Return the image pixels that each tile reads: once for all plans that have these tiles along one axis."""
        if border not in self._needed:
            size = self.domain.image_size
            self._needed[border] = tuple(needed_span(span, size, border) for span in self.tile_spans)
        return self._needed[border]

    @property
    def tile_output(self) -> int:
        """Output pixels of one tile."""
        return self.domain.geometry.output_size(self.tile)


def _check_tile(domain: AxisDomain, tile: int) -> None:
    geometry = domain.geometry
    if tile == domain.size:
        return
    if geometry.one_pass:
        raise PlanError(
            f"images of {domain.image_size} pixels along one axis cannot be cut along it: {geometry.one_pass}. What to "
            f"do: --plan whole; or a multiple of {geometry.stride} pixels; or --border reflect, which extends the image"
        )
    if tile != geometry.accepted_size(tile):
        raise PlanError(
            f"a tile of {tile} pixels is not accepted by the network: sizes must be "
            f"{geometry.remainder} + a multiple of the stride {geometry.stride}; try {geometry.accepted_size(tile)}"
        )
    if domain.advance(tile) < geometry.stride:
        raise PlanError(
            f"a tile of {tile} pixels is too small for the halo of {geometry.halo_before} + {geometry.halo_after} "
            f"pixels at stride {geometry.stride}; use at least {domain.smallest_tile}"
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One inference: ``tile`` in image pixels, ``zor`` in result pixels, ``crop`` in the tile's output."""

    tile: Box
    zor: Box
    crop: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlan:
    """Rows of tiles, row by row, each run by any free one of ``lanes``. A single tile is the whole plan."""

    y: AxisTiles
    x: AxisTiles
    border: Border
    lanes: int = 1

    @classmethod
    def of(cls, geometry: Geometry, image: tuple[int, int], border: Border, tile: tuple[int, int]) -> TilePlan:
        """Plan for an ``image`` of (height, width) pixels with a ``tile`` of (height, width) pixels.

        Tiles are larger by less than a stride if the image's own size requires it.
        """
        return tile_plans(geometry, image, border)(tile)

    @property
    def name(self) -> str:
        """``whole`` for one pass over everything, else ``tile``."""
        return "whole" if len(self) == 1 else "tile"

    @property
    def tile_shape(self) -> tuple[int, int]:
        return self.y.tile, self.x.tile

    @property
    def tile_output_shape(self) -> tuple[int, int]:
        return self.y.tile_output, self.x.tile_output

    def output_shape(self, _step: Step) -> tuple[int, int]:
        """Return the output shape of one step: the same for all tiles."""
        return self.tile_output_shape

    @property
    def geometry(self) -> Geometry:
        """The geometry for images of this size."""
        return Geometry(y=self.y.domain.geometry, x=self.x.domain.geometry)

    @property
    def placed(self) -> bool:
        """Whether the graphs take the position of a tile."""
        return self.geometry.placed

    @property
    def result_shape(self) -> tuple[int, int]:
        return self.y.domain.result_size, self.x.domain.result_size

    @property
    def image_shape(self) -> tuple[int, int]:
        return self.y.domain.image_size, self.x.domain.image_size

    @property
    def wanted_pixels(self) -> int:
        return self.y.domain.image_size * self.x.domain.image_size

    @property
    def computed_pixels(self) -> int:
        return len(self) * self.y.tile * self.x.tile

    def __len__(self) -> int:
        return len(self.y.starts) * len(self.x.starts)

    def __iter__(self) -> Iterator[Step]:
        columns = list(zip(self.x.tile_spans, self.x.zors, self.x.crops, strict=True))
        for tile_y, zor_y, crop_y in zip(self.y.tile_spans, self.y.zors, self.y.crops, strict=True):
            for tile_x, zor_x, crop_x in columns:
                yield Step(
                    Box(tile_y, tile_x),
                    Box(zor_y, zor_x),
                    Box(Span(crop_y, crop_y + zor_y.length), Span(crop_x, crop_x + zor_x.length)),
                )


def tile_plans(geometry: Geometry, image: tuple[int, int], border: Border) -> Callable[[tuple[int, int]], TilePlan]:
    """Return ``TilePlan.of`` for one image: it divides each axis once for each length of a tile."""
    y, x = AxisDomain.of(geometry.y, image[0], border), AxisDomain.of(geometry.x, image[1], border)
    rows, columns = cache(lambda tile: AxisTiles.of(y, tile)), cache(lambda tile: AxisTiles.of(x, tile))

    def plan(tile: tuple[int, int]) -> TilePlan:
        height, width = y.tile_for(tile[0], geometry.y), x.tile_for(tile[1], geometry.x)
        return TilePlan(y=rows(height), x=columns(width), border=border)

    return plan


def suiting_tile(geometry: Geometry, image: tuple[int, int], border: Border, tile: tuple[int, int]) -> tuple[int, int]:
    """Return the ``tile`` that ``TilePlan.of`` derives from one that suits images of another remainder."""
    y, x = AxisDomain.of(geometry.y, image[0], border), AxisDomain.of(geometry.x, image[1], border)
    return y.tile_for(tile[0], geometry.y), x.tile_for(tile[1], geometry.x)
