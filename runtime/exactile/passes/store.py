"""Maps that are kept between passes, in memory and in scratch files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.geometry import Box, Span
from exactile.passes.kept_map import KeptMap
from exactile.passes.scratch import ScratchMap
from exactile.passes.zones import TO_THE_END

Array = NDArray[Any]


class MapStore:
    """Keeps whole maps of an image of ``size``, (height, width), from the pass that makes them to the last that reads
    them.

    At most ``memory_bytes`` of them are in memory; others are in files in ``folder``.
    """

    def __init__(self, size: tuple[int, int], *, memory_bytes: int, folder: Path) -> None:
        self._size = size
        self._left_bytes = memory_bytes
        self._folder = folder
        self._maps: dict[str, Array | ScratchMap] = {}

    def open(self, maps: Sequence[KeptMap]) -> None:
        """Make room for ``maps``. Raises MemoryError, and SinkError where the disk has no room."""
        for one in maps:
            shape, size = one.shape_at(self._size), one.bytes_at(self._size)
            if size <= self._left_bytes:
                self._maps[one.output] = np.empty(shape, one.dtype)
                self._left_bytes -= size
            else:
                rows, columns = one.axes
                self._maps[one.output] = ScratchMap(shape, one.dtype, rows=rows, columns=columns, folder=self._folder)

    def drop(self, names: Sequence[str]) -> None:
        """Nothing reads these any more."""
        for name in names:
            kept = self._maps.pop(name, None)
            if isinstance(kept, ScratchMap):
                kept.close()
            elif kept is not None:
                self._left_bytes += kept.nbytes

    def close(self) -> None:
        """Drop all; safe to call twice."""
        self.drop(list(self._maps))

    def read(self, maps: Sequence[KeptMap], tile: Box) -> dict[str, Array]:
        """The parts of ``maps`` that belong to ``tile``, in image pixels, by the names of graph inputs."""
        return {one.input: self._read(one, *_of_tile(one, tile)) for one in maps}

    def write(self, maps: Sequence[KeptMap], tile: Box, zone: NDArray[np.int64], made: Mapping[str, Array]) -> None:
        """Take ``made``, the parts of ``maps`` that belong to ``tile``, as far as they lie in its zone."""
        for one in maps:
            rows, columns = _of_tile(one, tile)
            within = _of_zone(one, zone, rows.length, columns.length)
            part = made[one.output][_slices(one, *within)]
            rows, columns = within[0].shift(rows.start), within[1].shift(columns.start)
            kept = self._maps[one.output]
            if isinstance(kept, ScratchMap):
                kept.write(rows, columns, part)
            else:
                kept[_slices(one, rows, columns)] = part

    def _read(self, one: KeptMap, rows: Span, columns: Span) -> Array:
        kept = self._maps[one.output]
        if isinstance(kept, ScratchMap):
            found = dict(zip(one.axes, (rows.length, columns.length), strict=True))
            shape = tuple(found[dim] if size is None else size for dim, size in enumerate(one.shape))
            return kept.read(rows, columns, shape)
        return np.ascontiguousarray(kept[_slices(one, rows, columns)])


def empty_parts(maps: Sequence[KeptMap], shape: tuple[int, int]) -> dict[str, Array]:
    """Arrays for what a tile of ``shape``, (height, width), makes of ``maps``, by the names of graph outputs."""
    return {one.output: np.empty(one.shape_at(shape), one.dtype) for one in maps}


def part_bytes(maps: Sequence[KeptMap], shape: tuple[int, int]) -> int:
    """What the parts of ``maps`` take that belong to a tile of ``shape``."""
    return sum(one.bytes_at(shape) for one in maps)


def most_kept_bytes(model: DeployedModel, size: tuple[int, int]) -> int:
    """The most bytes of kept maps at any time, for an image of ``size``, (height, width)."""
    most, kept = 0, dict[str, int]()
    for opened, dropped in lifetimes(model):
        kept.update((one.output, one.bytes_at(size)) for one in opened)
        most = max(most, sum(kept.values()))
        for name in dropped:
            kept.pop(name)
    return most


def lifetimes(model: DeployedModel) -> list[tuple[tuple[KeptMap, ...], tuple[str, ...]]]:
    """For each pass, that of the result the last: the maps that begin in it, and those that are read no more after."""
    passes = [*(level.model for level in model.levels), model]
    last = {one.output: index for index, found in enumerate(passes) for one in found.reads}
    return [
        (found.writes, tuple(name for name, ends in last.items() if ends == index))
        for index, found in enumerate(passes)
    ]


def _of_tile(one: KeptMap, tile: Box) -> tuple[Span, Span]:
    """The rows and columns of a whole map that a tile holds."""
    rows, columns = one.sizes_at(tile.shape)
    first = int(tile.y.start * one.scale[0]), int(tile.x.start * one.scale[1])
    return Span(first[0], first[0] + rows), Span(first[1], first[1] + columns)


def _of_zone(one: KeptMap, zone: NDArray[np.int64], rows: int, columns: int) -> tuple[Span, Span]:
    """The rows and columns of a tile's part, of so many, that its zone holds."""
    return _scaled(zone[:2], one.scale[0], rows), _scaled(zone[2:], one.scale[1], columns)


def _scaled(bounds: NDArray[np.int64], scale: Fraction, size: int) -> Span:
    start, stop = int(bounds[0]), int(bounds[1])
    first = min(size, int(start * scale))
    return Span(first, size if stop >= TO_THE_END else max(first, min(size, int(stop * scale))))


def _slices(one: KeptMap, rows: Span, columns: Span) -> tuple[slice, ...]:
    found = dict(zip(one.axes, (rows, columns), strict=True))
    return tuple(
        slice(found[dim].start, found[dim].stop) if dim in found else slice(None) for dim in range(len(one.shape))
    )
