"""Which pixels of incomplete tiles the journal does not have yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from exactile.geometry import Box
from exactile.sinks.tile_assembly import Placed

MOST_PIECES = 4096
"""So many take a megabyte."""


class Piece(NamedTuple):
    """What ``box`` brought to a tile."""

    box: Box
    placed: Placed


class OpenPieces:
    """Pieces of tiles that wait for other boxes. A complete tile is stored itself, and its pieces are forgotten."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[Piece]] = {}
        self._count = 0

    def came(self, box: Box, placed: Placed) -> None:
        """Part of ``box`` came to a tile; to be called for every one, in order."""
        if placed.complete:
            self._count -= len(self._pieces.pop(placed.tile, ()))
        else:
            self._pieces.setdefault(placed.tile, []).append(Piece(box, placed))
            self._count += 1

    @property
    def many(self) -> bool:
        """Whether they take too much memory, and should be written to the journal."""
        return self._count >= MOST_PIECES

    def take(self) -> Iterator[Piece]:
        """Yield all that came since the last time, of tiles that are not complete."""
        pieces, self._pieces, self._count = self._pieces, {}, 0
        for of_tile in pieces.values():
            yield from of_tile
