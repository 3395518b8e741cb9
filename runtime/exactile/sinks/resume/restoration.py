"""Restore what an earlier run left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box
from exactile.sinks.resume.journal import Journal, PartialTile
from exactile.sinks.tiles.store import StoredTile, TileKey, TileStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """Finished boxes, stored tiles, and the pixels of incomplete tiles."""

    boxes: tuple[Box, ...]
    tiles: frozenset[TileKey]
    parts: tuple[PartialTile, ...]


def restore(journal: Journal, store: TileStore) -> Restored:
    """Follow ``journal`` as far as it and the tiles are undamaged; cut off what follows the last finished box."""
    boxes: list[Box] = []
    tiles: list[StoredTile] = []
    parts: dict[tuple[Box, int], PartialTile] = {}
    safe_tiles, safe_bytes = 0, 0
    for record, end_bytes in journal.read():
        if isinstance(record, StoredTile):
            if not store.holds(record):
                break
            tiles.append(record)
        elif isinstance(record, PartialTile):
            parts[record.box, record.tile] = record  # a box that was cut off may have left some of its own
        else:
            boxes.append(record)
            safe_tiles, safe_bytes = len(tiles), end_bytes
    if boxes:
        journal.cut(safe_bytes)
    for tile in tiles[:safe_tiles]:
        store.restore(tile)
    store.settle()
    stored = frozenset(tile.key for tile in tiles[:safe_tiles])
    done = set(boxes)
    return Restored(
        boxes=tuple(boxes),
        tiles=stored,
        parts=tuple(p for p in parts.values() if p.box in done and TileKey(plane=0, tile=p.tile) not in stored),
    )


def packed(planes: NDArray[Any]) -> bytes:
    """Return the ``data`` of a part whose pixels are ``planes``, (C, H, W)."""
    import imagecodecs

    codecs: Any = imagecodecs  # its type stubs know bytes only; arrays are taken as they are
    # The fastest codec: the file is not kept for long.
    return bytes(codecs.lz4_encode(np.ascontiguousarray(planes).data, header=True))


def unpacked(part: PartialTile, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the pixels of a part, (C, H, W)."""
    import imagecodecs

    return np.frombuffer(imagecodecs.lz4_decode(part.data, header=True), dtype).reshape(-1, *part.part.shape)
