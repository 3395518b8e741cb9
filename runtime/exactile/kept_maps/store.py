"""Maps that are kept between passes, in memory and in scratch files."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.contract.kept_map import KeptMap
from exactile.geometry import Box, Span
from exactile.kept_maps.scratch import ScratchMap
from exactile.plan.prediction import Plan
from exactile.plan.tiles import TilePlan
from exactile.plan.zones import TO_THE_END, zone_of

Array = NDArray[Any]

SETS = 2
"""Sets of parts of maps in files: one is read or written while the network uses the other."""


class Buffers:
    """Memory for the parts of a tile: the same each time, as large as requested."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: str) -> Array:
        """Return memory for the part called ``name``; its earlier content is overwritten."""
        size = prod(shape) * np.dtype(dtype).itemsize
        known = self._held.get(name)
        if known is None or known.nbytes < size:
            known = self._held[name] = np.empty(size, np.uint8)
        return known[:size].view(dtype).reshape(shape)

    def clear(self) -> None:
        self._held.clear()


class MapStore:
    """Keep whole maps of an image of ``size``, (height, width), from the pass that writes them to the last that reads
    them.

    At most ``memory_bytes`` of them are in memory; others are in files in ``folder``. Memory of dropped maps is reused
    for others of the same size: pages that are touched for the first time cost more than their samples. Several threads
    may read and write parts, each with its own buffers; maps are opened and dropped between passes.
    """

    def __init__(self, size: tuple[int, int], *, memory_bytes: int, folder: Path) -> None:
        self._size = size
        self._room = _Room(memory_bytes)
        self._folder = folder
        self._maps: dict[str, Array | ScratchMap] = {}
        self._dropped: list[Array] = []
        self._buffers: list[Buffers] = []

    def open(self, maps: Sequence[KeptMap]) -> None:
        """Make room for ``maps``. Raises MemoryError, and SinkError if the disk has no room."""
        for one in maps:
            found: Array | ScratchMap | None = self._in_memory(one)
            if found is None:
                shape, (rows, columns) = one.shape_at(self._size), one.axes
                found = ScratchMap(shape, one.dtype, rows=rows, columns=columns, folder=self._folder)
            self._maps[one.output] = found

    def _in_memory(self, one: KeptMap) -> Array | None:
        """Return room for a map, None if there is none."""
        size, shape = one.bytes_at(self._size), one.shape_at(self._size)
        again = next((index for index, old in enumerate(self._dropped) if old.nbytes == size), None)
        found = self._room.take(size)
        if again is not None:
            return self._dropped.pop(again).view(one.dtype).reshape(shape)
        while len(self._dropped) > len(self._room.free):
            self._dropped.pop(0)
        return np.empty(shape, one.dtype) if found else None

    def drop(self, names: Sequence[str]) -> None:
        """Drop maps that nothing reads any more."""
        for name in names:
            kept = self._maps.pop(name, None)
            if isinstance(kept, ScratchMap):
                kept.close()
            elif kept is not None:
                self._dropped.append(kept.reshape(-1).view(np.uint8))
                self._room.give(kept.nbytes)

    def lay_out(self, maps: Sequence[KeptMap], plan: TilePlan) -> None:
        """Prepare ``maps`` for writing by the tiles of ``plan``."""
        first_row = tuple(islice(plan, len(plan.x.starts)))
        for one in self.divided(maps)[1]:
            kept = self._maps[one.output]
            assert isinstance(kept, ScratchMap)
            zones = []
            for step in first_row:
                rows, columns = _of_tile(one, step.tile)
                within = _of_zone(one, zone_of(plan, step), rows.length, columns.length)[1]
                zones.append(within.shift(columns.start))
            kept.lay_out(zones)

    def divided(self, maps: Sequence[KeptMap]) -> tuple[tuple[KeptMap, ...], tuple[KeptMap, ...]]:
        """Return those of ``maps`` that are in memory, and those in files."""
        on_disk = self.on_disk
        return (
            tuple(one for one in maps if one.output not in on_disk),
            tuple(one for one in maps if one.output in on_disk),
        )

    @property
    def on_disk(self) -> frozenset[str]:
        """Names of the open maps that are in files."""
        return frozenset(name for name, kept in self._maps.items() if isinstance(kept, ScratchMap))

    def buffers(self) -> Buffers:
        """Return memory for what ``read`` and ``parts`` return, until the pass ends."""
        self._buffers.append(Buffers())
        return self._buffers[-1]

    def end_pass(self) -> None:
        """Release all buffers; no thread reads or writes any more."""
        while self._buffers:
            self._buffers.pop().clear()

    def close(self) -> None:
        """Drop all; safe to call twice."""
        self.drop(list(self._maps))
        self._dropped.clear()
        self.end_pass()

    def read(self, maps: Sequence[KeptMap], tile: Box, buffers: Buffers) -> dict[str, Array]:
        """Return the parts of ``maps`` for ``tile``, in image pixels, by the names of graph inputs.

        They are read-only, and valid until ``buffers`` are used again. Raises SinkError.
        """
        return {one.input: self._read(one, *_of_tile(one, tile), buffers) for one in maps}

    def parts(self, maps: Sequence[KeptMap], tile: Box, zone: NDArray[np.int64], buffers: Buffers) -> dict[str, Array]:
        """Return arrays for the parts of ``maps`` that ``tile`` computes, for ``write``, by the names of graph outputs.

        They are valid until ``buffers`` are used again.
        """
        found = {}
        for one in maps:
            kept, (rows, columns) = self._maps[one.output], _of_tile(one, tile)
            shape = one.shape_at(tile.shape)
            within = _of_zone(one, zone, rows.length, columns.length)
            alone = within == (Span(0, rows.length), Span(0, columns.length))
            if alone and not isinstance(kept, ScratchMap) and kept.shape == shape:
                found[one.output] = kept
            else:
                found[one.output] = buffers.array(one.output, shape, one.dtype)
        return found

    def write(self, maps: Sequence[KeptMap], tile: Box, zone: NDArray[np.int64], made: Mapping[str, Array]) -> None:
        """Store ``made``, the parts of ``maps`` for ``tile``, as far as they lie in its zone.

        Raises SinkError.
        """
        for one in maps:
            kept, (rows, columns) = self._maps[one.output], _of_tile(one, tile)
            if made[one.output] is kept:
                continue
            within = _of_zone(one, zone, rows.length, columns.length)
            part = made[one.output][_slices(one, *within)]
            rows, columns = within[0].shift(rows.start), within[1].shift(columns.start)
            if isinstance(kept, ScratchMap):
                kept.write(rows, columns, part)
            else:
                kept[_slices(one, rows, columns)] = part

    def _read(self, one: KeptMap, rows: Span, columns: Span, buffers: Buffers) -> Array:
        kept = self._maps[one.output]
        if isinstance(kept, ScratchMap):
            found = dict(zip(one.axes, (rows.length, columns.length), strict=True))
            shape = tuple(found[dim] if size is None else size for dim, size in enumerate(one.shape))
            buffer = buffers.array(one.input, shape, one.dtype)
            kept.read(rows, columns, buffer)
            return buffer
        part: Array = kept[_slices(one, rows, columns)]
        if part.flags.c_contiguous:
            return part
        buffer = buffers.array(one.input, part.shape, one.dtype)
        np.copyto(buffer, part)
        return buffer


class _Room:
    """Account for memory of kept maps: ``left`` bytes, and the sizes in ``free`` that were returned and are held."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.free: list[int] = []

    def take(self, size: int) -> bool:
        """Reserve room for a map, and return whether there is room. Held memory is released if necessary, the oldest
        first.
        """
        if size in self.free:
            self.free.remove(size)
            return True
        while size > self.left and self.free:
            self.left += self.free.pop(0)
        if size > self.left:
            return False
        self.left -= size
        return True

    def give(self, size: int) -> None:
        self.free.append(size)


def part_bytes(maps: Sequence[KeptMap], plan: Plan, on_disk: Container[str] | None) -> int:
    """Return the bytes of the parts of ``maps`` for tiles of ``plan``; ``on_disk`` are maps in files, None: all."""
    sets = min(len(plan), SETS)
    return sum(
        one.bytes_at(plan.tile_shape) * (sets if on_disk is None or one.output in on_disk else 1) for one in maps
    )


def most_kept_bytes(model: DeployedModel, size: tuple[int, int]) -> int:
    """Return the most bytes of kept maps at any time, for an image of ``size``, (height, width)."""
    most, kept = 0, dict[str, int]()
    for opened, dropped in lifetimes(model):
        kept.update((one.output, one.bytes_at(size)) for one in opened)
        most = max(most, sum(kept.values()))
        for name in dropped:
            kept.pop(name)
    return most


def most_on_disk(model: DeployedModel, size: tuple[int, int], memory_bytes: int) -> int:
    """Return the most bytes of scratch files at any time, if ``memory_bytes`` of kept maps are in memory."""
    return max((sum(held.values()) for held in _on_disk(model, size, memory_bytes)), default=0)


def maps_on_disk(model: DeployedModel, size: tuple[int, int], memory_bytes: int) -> frozenset[str]:
    """Return the maps that are then in scratch files, by output."""
    return frozenset(name for held in _on_disk(model, size, memory_bytes) for name in held)


def _on_disk(model: DeployedModel, size: tuple[int, int], memory_bytes: int) -> Iterator[Mapping[str, int]]:
    """Yield the bytes of maps in scratch files while each pass runs, by output."""
    room = _Room(memory_bytes)
    in_memory, on_disk = dict[str, int](), dict[str, int]()
    for opened, dropped in lifetimes(model):
        for one in opened:
            held = in_memory if room.take(one.bytes_at(size)) else on_disk
            held[one.output] = one.bytes_at(size)
        yield dict(on_disk)
        for name in dropped:
            on_disk.pop(name, None)
            if name in in_memory:
                room.give(in_memory.pop(name))


def lifetimes(model: DeployedModel) -> list[tuple[tuple[KeptMap, ...], tuple[str, ...]]]:
    """Return for each pass, the result's last, the maps that begin in it, and those that are read no more after it."""
    passes = [*(level.model for level in model.levels), model]
    last = {one.output: index for index, found in enumerate(passes) for one in found.reads}
    return [
        (found.writes, tuple(name for name, ends in last.items() if ends == index))
        for index, found in enumerate(passes)
    ]


def _of_tile(one: KeptMap, tile: Box) -> tuple[Span, Span]:
    """Return the rows and columns of a whole map that a tile holds."""
    rows, columns = one.sizes_at(tile.shape)
    first = int(tile.y.start * one.scale[0]), int(tile.x.start * one.scale[1])
    return Span(first[0], first[0] + rows), Span(first[1], first[1] + columns)


def _of_zone(one: KeptMap, zone: NDArray[np.int64], rows: int, columns: int) -> tuple[Span, Span]:
    """Return the rows and columns of a tile's part, of so many, that its zone holds."""
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
