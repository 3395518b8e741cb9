"""Track the pixels of incomplete tiles that are not in the journal yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from exactile.geometry import Box
from exactile.sinks.tiles.assembly import Placed

MOST_PIECES = 4096
"""This many take a megabyte."""


class Piece(NamedTuple):
    """The part of a tile that came with ``box``."""

    box: Box
    placed: Placed


class OpenPieces:
    """Pieces of tiles that wait for other boxes. A complete tile is stored as a whole, and its pieces are dropped."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[Piece]] = {}
        self._count = 0

    def came(self, box: Box, placed: Placed) -> None:
        """Note that a part of ``box`` came to a tile; call this for every one, in order."""
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
        """Yield all pieces since the last call, of tiles that are not complete."""
        pieces, self._pieces, self._count = self._pieces, {}, 0
        for of_tile in pieces.values():
            yield from of_tile
