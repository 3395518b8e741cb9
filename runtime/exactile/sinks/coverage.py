"""Keep account of the pixels that were written: every one, and none twice."""

from __future__ import annotations

from exactile.errors import SinkError
from exactile.geometry import Box, Span
from exactile.sinks.tiles.grid import TileGrid

_CELL_PX = 1024


class Coverage:
    """Boxes written so far on a plane of ``height`` x ``width`` pixels.

    Exact, at the cost of a few boxes per cell of the plane: a cell remembers the boxes written in it
    until it is full, and a box is compared with those of the cells that it touches.
    """

    def __init__(self, height: int, width: int, *, cell_px: int = _CELL_PX) -> None:
        self._grid = TileGrid(height=height, width=width, tile_px=cell_px)
        self._parts: dict[int, list[Box]] = {}
        self._full: set[int] = set()
        self._missing_px = height * width

    def add(self, box: Box) -> None:
        """Note that ``box`` was written. Raises SinkError if it leaves the plane or was written before."""
        if not self._grid.box.contains(box):
            raise SinkError(f"{_text(box)} does not lie within the result, {_text(self._grid.box)}")
        for index in self._grid.touched(box):
            cell = self._grid.tile_box(index)
            self._add_to_cell(index, cell, cell.intersect(box))
        self._missing_px -= box.area

    def check_complete(self) -> None:
        """Raise SinkError if a pixel was never written."""
        if not self._missing_px:
            return
        index = next(i for i in range(self._grid.count) if i not in self._full)
        raise SinkError(
            f"{self._missing_px} of {self._grid.box.area} pixels were never written, "
            f"the first of them in {_text(self._grid.tile_box(index))}; the output is incomplete and was not kept"
        )

    def _add_to_cell(self, index: int, cell: Box, part: Box) -> None:
        parts = self._parts.setdefault(index, [])
        if index in self._full or any(part.intersect(other).area for other in parts):
            raise SinkError(f"{_text(part)} was written before; every pixel may be written only once")
        if parts and parts[-1].x == part.x and parts[-1].y.stop == part.y.start:
            # Rows pushed one after the other stay one box, however many they are.
            part = Box(Span(parts.pop().y.start, part.y.stop), part.x)
        parts.append(part)
        if sum(other.area for other in parts) == cell.area:
            self._full.add(index)
            del self._parts[index]


def _text(box: Box) -> str:
    return f"rows {box.y.start} to {box.y.stop}, columns {box.x.start} to {box.x.stop}"
