"""A plane cut into equal square tiles, the last row and column cropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from exactile.geometry import Box, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """Tiles of ``tile_px`` x ``tile_px`` over ``height`` x ``width`` pixels, numbered row by row."""

    height: int
    width: int
    tile_px: int

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.tile_px) < 1:
            raise ValueError(f"no grid: {self.height} x {self.width} pixels in tiles of {self.tile_px}")

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile_px)

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile_px)

    @property
    def count(self) -> int:
        return self.rows * self.columns

    @property
    def box(self) -> Box:
        """The whole plane."""
        return Box(Span(0, self.height), Span(0, self.width))

    def tile_shape(self, row: int, column: int) -> tuple[int, int]:
        """Return height and width of a tile's pixels that lie in the plane."""
        size = self.tile_px
        return min(size, self.height - row * size), min(size, self.width - column * size)

    def tile_box(self, index: int) -> Box:
        """Return the pixels of tile ``index`` that lie in the plane."""
        row, column = divmod(index, self.columns)
        y0, x0 = row * self.tile_px, column * self.tile_px
        return Box(
            Span(y0, min(y0 + self.tile_px, self.height)),
            Span(x0, min(x0 + self.tile_px, self.width)),
        )

    def touched(self, box: Box) -> Iterator[int]:
        """Yield numbers of the tiles that share pixels with ``box``, which lies in the plane, row by row."""
        if not box.area:
            return
        for row in range(box.y.start // self.tile_px, (box.y.stop - 1) // self.tile_px + 1):
            for column in range(box.x.start // self.tile_px, (box.x.stop - 1) // self.tile_px + 1):
                yield row * self.columns + column
