"""Compute partial statistics on a GPU: the graph gives numbers for each row of a tile's maps, and the host merges rows.

TensorRT has no float64, and arithmetic on a zone's bounds would run on the CPU in the middle of a graph. So masks tell
the graph which columns of a map belong to the zone (and to which bin), and the rest is done here, in float64: rows of
the zone are selected, and for moments the numbers of rows are merged into those of the zone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import Level
from exactile.contract.device_graph import COLUMNS, MapLine, width_name
from exactile.contract.statistic import Statistic
from exactile.geometry import round_up
from exactile.plan.tiles import AxisTiles, Step, TilePlan
from exactile.plan.zones import zone_of

ALIGNMENT_BYTES = 256
"""Alignment of masks: those of a tile lie in one piece of memory, each at a multiple of this."""

WITHOUT_GPU_PASSES = (
    "--device cpu, or freeze statistics of other images (exactile measure, exactile convert --freeze-statistics)"
)
"""The remedy if passes do not run on a GPU."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePartials:
    """The further inputs of a pass's graph for a tile, and the meaning of its outputs."""

    statistics: tuple[Statistic, ...]
    maps: tuple[tuple[MapLine, MapLine], ...]

    @classmethod
    def of(cls, level: Level) -> DevicePartials:
        """Return it for a pass that has a graph for GPUs."""
        assert level.on_device is not None
        return cls(statistics=level.statistics, maps=level.on_device.maps)

    @property
    def masks(self) -> tuple[tuple[MapLine, int], ...]:
        """The columns and bins of each mask; several statistics may share one."""
        found = [(columns, one.grid[1]) for one, (_, columns) in zip(self.statistics, self.maps, strict=True)]
        return tuple(dict.fromkeys(found))

    def shapes_at(self, width: int) -> dict[str, tuple[int, int]]:
        """Return the shapes of masks, by name, for tiles of ``width`` pixels."""
        return {f"{COLUMNS}{index}": (bins, line.size(width)) for index, (line, bins) in enumerate(self.masks)}

    def dims_at(self, width: int) -> dict[str, int]:
        """Return sizes of the dimensions that graphs have by name."""
        return {width_name(name): columns for name, (_, columns) in self.shapes_at(width).items()}

    def numbers_at(self, height: int) -> int:
        """Return the number of values that the graph gives for tiles of ``height`` pixels."""
        return sum(prod(shape) for shape in self._blocks(height))

    def offsets_at(self, width: int) -> dict[str, int]:
        """Return the offset of each mask, in bytes."""
        found, start = {}, 0
        for name, shape in self.shapes_at(width).items():
            found[name] = start
            start += round_up(prod(shape) * 4, ALIGNMENT_BYTES)
        return found

    def mask_bytes(self, width: int) -> int:
        """Bytes of all masks of a tile."""
        return sum(round_up(prod(shape) * 4, ALIGNMENT_BYTES) for shape in self.shapes_at(width).values())

    def tell(self, plan: TilePlan, step: Step, out: NDArray[np.uint8]) -> None:
        """Fill ``out``, ``mask_bytes``, with the masks of a tile."""
        starts = self.offsets_at(plan.x.tile)
        for name, (line, bins) in zip(starts, self.masks, strict=True):
            mask = self._along(plan, step, line, bins, rows=False).astype(np.float32)
            out[starts[name] : starts[name] + mask.nbytes] = mask.reshape(-1).view(np.uint8)

    def of_zone(self, plan: TilePlan, step: Step, given: Array) -> NDArray[np.float64]:
        """Return partial statistics of the zone of a tile, as in ``Statistic.numbers``, from the graph's output
        ``given``.
        """
        found: list[Array] = []
        start = 0
        for one, (rows, columns), shape in zip(self.statistics, self.maps, self._blocks(plan.y.tile), strict=True):
            block = given[start : start + prod(shape)].reshape(shape)
            start += prod(shape)
            across = self._along(plan, step, columns, one.grid[1], rows=False).sum(1)
            down = self._along(plan, step, rows, one.grid[0], rows=True)
            found += (
                _moments(block, down[0], int(across[0])) if one.kind == "moments" else _bins(one, block, down, across)
            )
        return np.concatenate(found)

    def _blocks(self, height: int) -> Iterator[tuple[int, int, int]]:
        """Yield the shape of the output for each statistic."""
        for one, (rows, _) in zip(self.statistics, self.maps, strict=True):
            yield 3 if one.kind == "moments" else one.grid[1], one.channels, rows.size(height)

    def _along(self, plan: TilePlan, step: Step, line: MapLine, bins: int, *, rows: bool) -> NDArray[np.bool_]:
        top, bottom, left, right = map(int, zone_of(plan, step))
        if rows:
            return _bins_of(line, plan.y, step.tile.y.start + plan.y.domain.image_start, (top, bottom), bins)
        return _bins_of(line, plan.x, step.tile.x.start + plan.x.domain.image_start, (left, right), bins)


def _bins_of(line: MapLine, tiles: AxisTiles, tile_start: int, zone: tuple[int, int], count: int) -> NDArray[np.bool_]:
    """Return (count, n): which of the n rows of a tile's map are in the ``zone``, and in which bin of the whole map.

    ``tile_start`` is the tile's start in the domain; ``zone`` its part, see ``exactile.contract.statistic.ZONE``.
    """
    index = np.arange(line.size(tiles.tile))
    inside: NDArray[np.bool_] = (index >= line.before(zone[0])) & (index < line.before(zone[1]))
    if count == 1:
        return inside[None]
    at, length = line.before(tile_start) + index, line.size(tiles.domain.size)
    number = np.arange(count)[:, None]
    bins: NDArray[np.bool_] = (number * length < (at + 1) * count) & (at * count < (number + 1) * length)
    return inside & bins


def _bins(one: Statistic, block: Array, down: NDArray[np.bool_], across: Array) -> list[Array]:
    """Return the pixels of each bin; then for each channel the sum or extreme of each bin."""
    numbers = np.stack([_over_rows(one, block[:, :, mask]) for mask in down])  # (bins down, bins across, C)
    pixels = np.outer(down.sum(1), across).astype(np.float64)
    return [pixels.ravel(), numbers.transpose(2, 0, 1).ravel()]


def _over_rows(one: Statistic, rows: Array) -> Array:
    exact = rows.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        if one.kind == "maximum":
            return np.asarray(exact.max(-1, initial=-np.inf))
        if one.kind == "minimum":
            return np.asarray(exact.min(-1, initial=np.inf))
        return np.asarray(exact.sum(-1))


def _moments(block: Array, rows: NDArray[np.bool_], columns: int) -> list[Array]:
    """Merge the moments of rows, all of the same number of pixels, into those of the zone."""
    count = int(rows.sum())
    if not count * columns:
        return [np.zeros(1), np.zeros(3 * block.shape[1])]
    with np.errstate(invalid="ignore", over="ignore"):
        near, first, second = block[:, :, rows].astype(np.float64)
        means = near + first / columns
        spreads = np.maximum(second - first * first / columns, 0)
        middle = means.mean(1)
        apart = means - middle[:, None]
        sums = columns * apart.sum(1), (spreads + columns * apart * apart).sum(1)
    return [np.array([float(count * columns)]), middle, *sums]
