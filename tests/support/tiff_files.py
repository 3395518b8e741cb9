"""A builder of TIFF files with full control over tags and chunks, for what no writer would write."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

ASCII, SHORT, LONG, BYTES, LONG8 = 2, 3, 4, 7, 16
_CODES = {SHORT: "H", LONG: "I", LONG8: "Q", BYTES: "B", ASCII: "B"}

Tag = tuple[int, Sequence[int] | bytes]
"""Field type and values."""

TILE_OFFSETS, TILE_SIZES, STRIP_OFFSETS, STRIP_SIZES = 324, 325, 273, 279


def image_tags(height: int, width: int, *, samples: int = 1, bits: int = 8, compression: int = 1) -> dict[int, Tag]:
    """The tags of an image without its chunks: grey, or RGB for three samples."""
    return {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [bits] * samples),
        259: (SHORT, [compression]),
        262: (SHORT, [2 if samples == 3 else 1]),
        277: (SHORT, [samples]),
    }


def tile_tags(rows: int, columns: int) -> dict[int, Tag]:
    return {322: (LONG, [columns]), 323: (LONG, [rows])}


def strip_tags(rows: int) -> dict[int, Tag]:
    return {278: (LONG, [rows])}


def tiles_of(array: np.ndarray, rows: int, columns: int) -> list[np.ndarray]:
    """``array`` (H, W[, C]) cut into full tiles, row by row, those at the edges padded with 7."""
    height, width = array.shape[:2]
    tiles = []
    for y in range(0, height, rows):
        for x in range(0, width, columns):
            tile = np.full((rows, columns, *array.shape[2:]), 7, array.dtype)
            part = array[y : y + rows, x : x + columns]
            tile[: part.shape[0], : part.shape[1]] = part
            tiles.append(tile)
    return tiles


def write_tiff(
    path: Path,
    tags: Mapping[int, Tag],
    chunks: Sequence[bytes | None],
    *,
    byteorder: str = "<",
    big: bool = False,
) -> Path:
    """Write one page: chunks first, then the directory. A chunk of None is stored as empty (offset and size 0).

    ``tags`` may hold its own offsets or sizes to replace the right ones.
    """
    tiled = 322 in tags
    start = 16 if big else 8
    body = bytearray()
    offsets, sizes = [], []
    for chunk in chunks:
        offsets.append(start + len(body) if chunk is not None else 0)
        sizes.append(len(chunk) if chunk is not None else 0)
        body += chunk or b""
        body += b"\0" * (-len(body) % 2)
    entry_type = LONG8 if big else LONG
    places = {
        (TILE_OFFSETS if tiled else STRIP_OFFSETS): (entry_type, offsets),
        (TILE_SIZES if tiled else STRIP_SIZES): (entry_type, sizes),
    }
    directory = _directory({**places, **tags}, start + len(body), byteorder, big=big)
    mark = {"<": b"II", ">": b"MM"}[byteorder]
    header = struct.pack(byteorder + "HHHQ", 43, 8, 0, start + len(body)) if big else None
    header = header or struct.pack(byteorder + "HI", 42, start + len(body))
    path.write_bytes(mark + header + bytes(body) + directory)
    return path


def _directory(tags: Mapping[int, Tag], position: int, byteorder: str, *, big: bool) -> bytes:
    inline_bytes, entry_bytes = (8, 20) if big else (4, 12)
    extra_at = position + (8 if big else 2) + entry_bytes * len(tags) + (8 if big else 4)
    entries, extra = bytearray(), bytearray()
    for code, (kind, values) in sorted(tags.items()):
        data = struct.pack(f"{byteorder}{len(values)}{_CODES[kind]}", *values)
        entries += struct.pack(byteorder + ("HHQ" if big else "HHI"), code, kind, len(values))
        if len(data) > inline_bytes:
            entries += struct.pack(byteorder + ("Q" if big else "I"), extra_at + len(extra))
            extra += data + b"\0" * (-len(data) % 8)
        else:
            entries += data.ljust(inline_bytes, b"\0")
    count = struct.pack(byteorder + ("Q" if big else "H"), len(tags))
    return count + bytes(entries) + bytes(8 if big else 4) + bytes(extra)
