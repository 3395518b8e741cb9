"""The grid of stored chunks (tiles or strips) that an image is cut into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from exactile.geometry import Box, Span


class Cut(NamedTuple):
    """A cut along one axis: the chunk ``number``, the pixels ``inside`` it, and the corresponding ones of the box."""

    number: int
    inside: slice
    of_box: slice


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkGrid:
    """An image of ``height`` x ``width`` pixels in chunks of ``chunk_rows`` x ``chunk_columns`` pixels."""

    height: int
    width: int
    chunk_rows: int
    chunk_columns: int

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.chunk_rows, self.chunk_columns) < 1:
            raise ValueError(
                f"an image of {self.height} x {self.width} pixels"
                f" cannot be cut into chunks of {self.chunk_rows} x {self.chunk_columns}"
            )

    @property
    def rows(self) -> int:
        """Chunks from top to bottom."""
        return -(-self.height // self.chunk_rows)

    @property
    def columns(self) -> int:
        """Chunks from left to right."""
        return -(-self.width // self.chunk_columns)

    def cells(self, box: Box) -> tuple[range, range]:
        """Return rows and columns of the chunks that ``box`` touches."""
        return _touched(box.y, self.chunk_rows), _touched(box.x, self.chunk_columns)

    def chunk_shape(self, row: int, column: int) -> tuple[int, int]:
        """Return height and width of one chunk's pixels that lie in the image."""
        return (
            min(self.chunk_rows, self.height - row * self.chunk_rows),
            min(self.chunk_columns, self.width - column * self.chunk_columns),
        )

    def cut(self, box: Box) -> tuple[list[Cut], list[Cut]]:
        """Cut ``box`` at the edges of chunks, along rows and columns."""
        return _cuts(box.y, self.chunk_rows), _cuts(box.x, self.chunk_columns)

    def chunk_box(self, row: int, column: int) -> Box:
        """Return the pixels of one chunk; at the right and lower edge a chunk ends with the image."""
        y, x = row * self.chunk_rows, column * self.chunk_columns
        return Box(
            Span(y, min(y + self.chunk_rows, self.height)),
            Span(x, min(x + self.chunk_columns, self.width)),
        )


def _cuts(span: Span, size: int) -> list[Cut]:
    cuts = []
    for index in _touched(span, size):
        first, origin = max(span.start, index * size), index * size
        stop = min(span.stop, origin + size)
        cuts.append(Cut(index, slice(first - origin, stop - origin), slice(first - span.start, stop - span.start)))
    return cuts


def _touched(span: Span, size: int) -> range:
    return range(span.start // size, -(-span.stop // size)) if span.length else range(0)


@runtime_checkable
class HasGrid(Protocol):
    """A source that exposes the grid of its chunks."""

    @property
    def grid(self) -> ChunkGrid: ...
