"""One Zarr that several processes write, each its own chunks: boxes of the result, with the levels above them.

::

    box          edge x edge pixels, edge = tile * 2^n, at multiples of edge: levels 0 to n of it are whole chunks
    levels > n   computed chunk by chunk from the previous level, once all boxes are there

``SharedZarrSink`` creates the arrays, keeps account of boxes and names the folder; ``BlockSink`` writes one box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import OptionError
from exactile.geometry import Box, Span
from exactile.sinks.blocks import plane_count
from exactile.sinks.files.part_folder import PartFolder
from exactile.sinks.protocol import ResultSpec, WritePlan
from exactile.sinks.resume.journal import framed
from exactile.sinks.tiled.sink import TiledSink
from exactile.sinks.tiles.grid import TileGrid
from exactile.sinks.tiles.pyramid import LevelTile, children, halved, level_grids, mean, nearest
from exactile.sinks.tiles.store import TileKey
from exactile.sinks.zarr.sink import ZarrSink, chunk_encoder
from exactile.sinks.zarr.store import ZarrStore


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedZarr:
    """Arrays ``0``, ``1``, ... in ``folder``, one a level, for any process. Plain data.

    Boxes have ``edge`` rows and as many columns, or, ``across``, all columns.
    """

    folder: str
    spec: ResultSpec
    tile_px: int
    edge: int
    across: bool
    levels: int
    compression: str

    @property
    def grids(self) -> tuple[TileGrid, ...]:
        return level_grids(self.spec.height, self.spec.width, self.tile_px, pyramid=True)[: self.levels]

    @property
    def box_levels(self) -> int:
        """The levels above the full resolution of which boxes hold whole chunks."""
        return min(int(log2(self.edge // self.tile_px)), self.levels - 1)

    @property
    def columns(self) -> int:
        """Boxes side by side."""
        return 1 if self.across else -(-self.spec.width // self.edge)

    @property
    def count(self) -> int:
        """Number of boxes."""
        return -(-self.spec.height // self.edge) * self.columns

    def box(self, number: int) -> Box:
        """Return the box of this number; boxes are numbered row by row."""
        row, column = divmod(number, self.columns)
        width = self.spec.width if self.across else self.edge
        y = Span(row * self.edge, min((row + 1) * self.edge, self.spec.height))
        return Box(y, Span(column * width, min((column + 1) * width, self.spec.width)))

    def store(self, box: Box | None = None, grids: Sequence[TileGrid] | None = None) -> ZarrStore:
        """Return the store for chunks in ``box``, by their numbers in ``grids``; by default for the whole."""
        import zarr

        folder = Path(self.folder)
        arrays = [zarr.open_array(folder / str(level), mode="r+") for level in range(self.levels)]
        # A block of an ended run may still be computed when another run begins in a new folder of that name.
        told: dict[str, Any] = {
            "dtype": np.dtype(self.spec.dtype),
            "encode": chunk_encoder(self.compression),
            "held": True,
        }
        if box is None or grids is None:
            return ZarrStore(folder, arrays, self.grids, **told)
        corner = box.y.start // self.tile_px, box.x.start // self.tile_px
        return _BoxStore(folder, arrays, grids, corner=corner, **told)


class _BoxStore(ZarrStore):
    """Numbers of chunks are relative to a box whose first chunk is ``corner``, (row, column), of the
    full resolution.
    """

    def __init__(self, *args: Any, corner: tuple[int, int], **options: Any) -> None:
        super().__init__(*args, **options)
        self._corner = corner

    def _chunk(self, key: TileKey) -> tuple[int, int]:
        row, column = super()._chunk(key)
        return row + (self._corner[0] >> key.level), column + (self._corner[1] >> key.level)


class SharedZarrSink(ZarrSink):
    """A ``ZarrSink`` that others write: ``begin``, then ``target`` for them, ``adopt`` for each box, ``finish``.

    ``edge``, in pixels of the result, is rounded up to the tile times a power of two. With ``resumable``, adopted boxes
    are kept if the run is interrupted.
    """

    def __init__(self, path: Any, *, edge: int, **options: Any) -> None:
        super().__init__(path, **options)
        if edge < 1:
            raise OptionError(f"a block needs a positive edge, got {edge}")
        self._edge, self._across = edge, False
        self._target: SharedZarr | None = None

    @property
    def target(self) -> SharedZarr:
        """Return the target of a sink that was begun."""
        assert self._target is not None
        return self._target

    def span_columns(self) -> None:
        """Let boxes span all columns. Call this before ``begin``."""
        self._across = True

    def buffer_bytes(self, spec: ResultSpec, plan: WritePlan) -> int:
        """Return the bytes of a process that writes one box at a time."""
        edge = self.edge(spec)
        width = spec.width if self._across else min(edge, spec.width)
        box = Box(Span(0, min(edge, spec.height)), Span(0, width))
        return super().buffer_bytes(_within(spec, box), _written(plan, box))

    def edge(self, spec: ResultSpec) -> int:
        """Return the edge of boxes, in pixels."""
        tile_px = self._grids(spec)[0].tile_px
        edge = tile_px
        while edge < self._edge:
            edge *= 2
        return edge

    def adopt(self, box: Box) -> None:
        """Take over a box that another process has written and flushed to the disk. Raises SinkError."""
        with self._lock:
            _, _, coverage = self._open_state()
            coverage.add(box)
            if self._journal is not None:
                self._journal.append([framed(box)])
                self._journal.sync()
                self._keep = True

    def _start(self, part: PartFolder, spec: ResultSpec) -> None:
        grids = self._grids(spec)
        resumed = self._keep
        store = self._make_store(part, spec, grids, resumed=resumed)
        self._target = SharedZarr(
            folder=str(store.folder.resolve()),
            spec=spec,
            tile_px=grids[0].tile_px,
            edge=self.edge(spec),
            across=self._across,
            levels=len(grids),
            compression=self._compression,
        )
        if self._journal is None:
            return
        if not resumed:
            self._journal.start(self._described(spec))
            return
        assert self._coverage is not None
        safe_bytes = 0
        for record, end_bytes in self._journal.read():
            if isinstance(record, Box):
                self._coverage.add(record)
                self._done.add(record)
            safe_bytes = end_bytes
        self._journal.cut(safe_bytes)

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "block": self._edge}

    def _complete(self, part: PartFolder) -> None:  # noqa: ARG002 -- others have written and synced it
        self.target.store().settle()
        self._register()


class _InPlace:
    """A part of an output that has its name, or will get it from another process."""

    published = False

    def publish(self) -> None:
        """Every chunk appeared complete."""

    def keep(self) -> None:
        """Nothing is removed."""

    def discard(self) -> None:
        """Keep what was written: whoever takes the box over writes it again, with the same bytes."""


class BlockSink(TiledSink[_InPlace]):
    """Takes the part of a result in ``box`` of a ``SharedZarr``, and writes its chunks of all levels; in pixels of the
    whole.
    """

    def __init__(self, target: SharedZarr, box: Box, *, workers: int | None = None) -> None:
        super().__init__(
            target.folder,
            tile=target.tile_px,
            workers=workers,
            pyramid=target.levels > 1,
            overwrite=True,
            resumable=False,
        )
        self._target, self._box = target, box

    def buffer_bytes(self, spec: ResultSpec, plan: WritePlan) -> int:
        """Return the bytes of a ``TiledSink``; ``spec`` and ``plan`` are in pixels of the whole result."""
        return super().buffer_bytes(_within(spec, self._box), _written(plan, self._box))

    def begin(self, spec: ResultSpec) -> None:
        """Begin; ``spec`` is that of the whole result."""
        super().begin(_within(spec, self._box))

    def write(self, box: Box, block: NDArray[Any]) -> None:
        """Write ``block``; ``box`` is in pixels of the whole result."""
        super().write(box.shift(-self._box.y.start, -self._box.x.start), block)

    def _grids(self, spec: ResultSpec) -> tuple[TileGrid, ...]:  # noqa: ARG002 -- the box is that of the target
        """Return all levels of boxes: those at the edges of the image may reach one chunk before the last level."""
        return tuple(islice(halved(*self._box.shape, self._target.tile_px), self._target.box_levels + 1))

    def _make_part(self, spec: ResultSpec, *, kept_name: bool, resumed: bool) -> _InPlace:  # noqa: ARG002
        return _InPlace()

    def _make_store(self, part: _InPlace, spec: ResultSpec, grids: Sequence[TileGrid], *, resumed: bool) -> ZarrStore:  # noqa: ARG002
        return self._target.store(self._box, grids)

    def _options(self) -> dict[str, Any]:
        return {}


def _within(spec: ResultSpec, box: Box) -> ResultSpec:
    return replace(spec, height=box.y.length, width=box.x.length)


def _written(plan: WritePlan, box: Box) -> WritePlan:
    """Return the part of ``plan`` in ``box``, in pixels from its corner."""

    def within(spans: Sequence[Span], own: Span) -> list[Span]:
        found = (own.intersect(span).shift(-own.start) for span in spans)
        return [span for span in found if span.length]

    return WritePlan(rows=within(plan.rows, box.y), columns=within(plan.columns, box.x))


def make_chunks(target: SharedZarr, level: int, numbers: range) -> int:
    """Compute chunks of ``level``, by their ``numbers``, from the previous level, and flush them to the disk."""
    spec, grids, store = target.spec, target.grids, target.store()
    reduce, planes = mean if spec.channels else nearest, range(plane_count(spec))
    grid, below = grids[level], grids[level - 1]
    for number in numbers:
        row, column = divmod(number, grid.columns)
        pixels = np.zeros((len(planes), target.tile_px, target.tile_px), spec.dtype)
        made = LevelTile(grid, level, number, pixels, below=children(grids, level, number))
        for y in range(2 * row, min(2 * row + 2, below.rows)):
            for x in range(2 * column, min(2 * column + 2, below.columns)):
                tile = y * below.columns + x
                stored = [store.pixels(TileKey(level=level - 1, plane=plane, tile=tile)) for plane in planes]
                under = LevelTile(below, level - 1, tile, np.stack(stored))
                under.above = made
                for plane in planes:
                    under.reduce(plane, reduce)
        for plane in planes:
            key = TileKey(level=level, plane=plane, tile=number)
            store.append(key, store.encode(key, pixels[plane]))
    store.complete()
    return len(numbers)
