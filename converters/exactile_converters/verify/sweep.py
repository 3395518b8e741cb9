"""The experiment of Majurski & Bajcsy (2021): the error of tiling against the halo and against the tiles' alignment.

It has its own simple tiler, which takes any halo and any alignment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import PlanError
from exactile.geometry import AxisGeometry, Box, Geometry, Span, round_down, round_up
from exactile.tolerance.halos import halo_steps
from exactile_converters.plain_runs.dependency import Runs
from exactile_converters.plain_runs.difference import compare, probability_rmse
from exactile_converters.verify.whole import WholePass

Array = NDArray[Any]

MOST_OFFSETS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """The error of tiling with at most ``halo_px`` on every side, tiles starting ``offset_px`` off the stride.

    ``rmse`` of probabilities (of the values where the network has no scores), ``max_abs`` of raw values.
    """

    halo_px: int
    offset_px: int
    tiles: int
    computed_over_wanted: float
    rmse: float
    max_abs: float
    different_labels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """``halos`` from 0 to the claimed halo, aligned; ``offsets`` at the claimed halo and one stride more.

    ``error_map`` (H, W) shows the errors at ``map_halo_px``, about half of the claimed halo.
    """

    halos: tuple[SweepPoint, ...]
    offsets: tuple[SweepPoint, ...]
    map_halo_px: int
    error_map: Array = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Pixels of a tile before and after its zone, in input pixels, and the distance of its start from the stride."""

    before: int
    after: int
    offset: int = 0


def sweep(
    subject: Runs,
    whole: WholePass,
    geometry: Geometry,
    tile: tuple[int, int],
    *,
    probability: bool,
    progress: Callable[[str, int, int], None],
) -> Sweep:
    """Tile the reference's own padded image repeatedly, always with ``tile`` (height, width)."""
    axes = geometry.y, geometry.x
    halos, steps = [], halo_steps(geometry)
    shown = steps[len(steps) // 2]
    error_map = np.zeros(whole.result, np.float32)
    for done, halo in enumerate(steps, 1):
        cut = [_at_most(claimed_margins(axis), halo, axis) for axis in axes]
        tiled, tiles = run_tiles(subject, whole.padded, geometry, tile, (cut[0], cut[1]))
        measured, errors = _point(tiled, tiles, tile, whole, halo=halo, offset=0, probability=probability)
        halos.append(measured)
        error_map = errors if halo == shown else error_map
        progress("halo sweep", done, len(steps))
    offsets = offset_sweep(subject, whole, geometry, tile, probability=probability, progress=progress)
    return Sweep(halos=tuple(halos), offsets=offsets, map_halo_px=shown, error_map=error_map)


def offset_sweep(
    subject: Runs,
    whole: WholePass,
    geometry: Geometry,
    tile: tuple[int, int],
    *,
    probability: bool,
    progress: Callable[[str, int, int], None],
) -> tuple[SweepPoint, ...]:
    """Tile with the claimed halo, starting off the stride; ``tile`` is always larger by two strides."""
    axes = geometry.y, geometry.x
    stride = max(axis.stride for axis in axes)
    offsets, shifts = [], offset_steps(stride)
    roomy = tile[0] + 2 * axes[0].stride, tile[1] + 2 * axes[1].stride
    for done, shift in enumerate(shifts, 1):
        moved = [_moved(claimed_margins(axis), axis, shift) for axis in axes]
        if all((axis.scale * margin.offset).denominator == 1 for axis, margin in zip(axes, moved, strict=True)):
            tiled, tiles = run_tiles(subject, whole.padded, geometry, roomy, (moved[0], moved[1]))
            halo = max(halo_steps(geometry)) + stride
            offsets.append(_point(tiled, tiles, roomy, whole, halo=halo, offset=shift, probability=probability)[0])
        progress("alignment sweep", done, len(shifts))
    return tuple(offsets)


def sweep_pixels(size: tuple[int, int], geometry: Geometry, tile: tuple[int, int]) -> int:
    """Return about how many pixels ``sweep`` computes for an image of ``size``, (height, width)."""
    geometry = geometry.of_size(size)
    axes, steps = (geometry.y, geometry.x), halo_steps(geometry)
    sizes = [axis.accepted_size(px) for axis, px in zip(axes, size, strict=True)]
    total = 0
    for halo in steps:
        tiles = 1
        for axis, px, side in zip(axes, sizes, tile, strict=True):
            tiles *= len(list(axis_tiles(axis, px, side, _at_most(claimed_margins(axis), halo, axis))))
        total += tiles * tile[0] * tile[1]
    aligned = total // len(steps)
    return total + aligned * len(offset_steps(max(axis.stride for axis in axes)))


def claimed_margins(axis: AxisGeometry) -> Margins:
    """Return the claimed halo, rounded up to the stride."""
    return Margins(
        before=round_up(max(0, axis.margin_before), axis.stride), after=round_up(max(0, axis.margin_after), axis.stride)
    )


def offset_steps(stride: int) -> tuple[int, ...]:
    """Return 0 to stride - 1, or the powers of two and the ends where those are many."""
    if stride <= MOST_OFFSETS:
        return tuple(range(stride)) if stride > 1 else ()
    return tuple(sorted({0, stride - 1, *(1 << bit for bit in range(stride.bit_length()) if 1 << bit < stride)}))


def _at_most(margins: Margins, halo: int, axis: AxisGeometry) -> Margins:
    """Limit the margins to ``halo``, but keep the pixels that unpadded convolutions remove."""
    lost = round_up(max(0, ceil(-axis.size_constant / axis.scale)), axis.stride)
    limit = round_up(halo, axis.stride)
    return Margins(before=min(margins.before, limit), after=max(min(margins.after, limit), lost))


def _moved(margins: Margins, axis: AxisGeometry, shift: int) -> Margins:
    """Add one stride before, of which the tile's start then misses ``shift``."""
    return Margins(before=margins.before + axis.stride, after=margins.after + axis.stride, offset=shift % axis.stride)


def run_tiles(
    subject: Runs, padded: Array, geometry: Geometry, tile: tuple[int, int], margins: tuple[Margins, Margins]
) -> tuple[Array, int]:
    """Return the output (C', H', W') for ``padded`` (H, W, C), joined from tiles, and the number of tiles."""
    sizes = (padded.shape[0], padded.shape[1])
    rows, columns = (
        list(axis_tiles(axis, size, side, margin))
        for axis, size, side, margin in zip((geometry.y, geometry.x), sizes, tile, margins, strict=True)
    )
    output: Array | None = None
    for (tile_y, zone_y, crop_y), (tile_x, zone_x, crop_x) in product(rows, columns):
        block = subject.run(padded[Box(tile_y, tile_x).slices()])
        if output is None:
            shape = geometry.y.output_size(sizes[0]), geometry.x.output_size(sizes[1])
            output = np.empty((block.shape[0], *shape), block.dtype)
        output[:, *Box(zone_y, zone_x).slices()] = block[:, *Box(crop_y, crop_x).slices()]
    if output is None:
        raise PlanError("no tile fits the image")
    return output, len(rows) * len(columns)


def axis_tiles(axis: AxisGeometry, size: int, tile: int, margins: Margins) -> Iterator[tuple[Span, Span, Span]]:
    """Yield (tile in input pixels, its zone in output pixels, the zone in the tile's output), along one axis."""
    tile = min(axis.accepted_size(tile), size)
    output_size, zone_start, boundary = axis.output_size(size), 0, 0
    while zone_start < output_size:
        start = boundary - margins.before + margins.offset if boundary else 0
        if start + tile >= size:
            start, zone_stop = size - tile, output_size
        else:
            stop = round_down(start + tile - margins.after, axis.stride)
            if stop <= boundary:
                raise PlanError(
                    f"a tile of {tile} pixels leaves nothing between halos of {margins.before} and {margins.after}; "
                    "give a larger --tile"
                )
            boundary, zone_stop = stop, axis.output_position(stop)
        origin = int(start * axis.scale)
        zone = Span(zone_start, zone_stop)
        yield Span(start, start + tile), zone, zone.shift(-origin)
        zone_start = zone_stop


def _point(
    tiled: Array,
    tiles: int,
    tile: tuple[int, int],
    whole: WholePass,
    *,
    halo: int,
    offset: int,
    probability: bool,
) -> tuple[SweepPoint, Array]:
    mine = tiled[:, : whole.result[0], : whole.result[1]]
    difference = compare(mine, whole.cropped, probability=probability)
    point = SweepPoint(
        halo_px=halo,
        offset_px=offset,
        tiles=tiles,
        computed_over_wanted=tiles * tile[0] * tile[1] / (whole.padded.shape[0] * whole.padded.shape[1]),
        rmse=probability_rmse(mine, whole.cropped, already=probability),
        max_abs=difference.max_abs,
        different_labels=difference.different_labels,
    )
    return point, difference.error_map
