"""The parts of a BigTIFF that are not pixels: written first with empty tile tables, which are filled in last.

TIFF allows tiles to lie anywhere in the file, so that pixels can go to their final place as they come
and need no second copy. All of the format itself is tifffile's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SinkError
from exactile.sinks.blocks import plane_count
from exactile.sinks.protocol import ResultSpec
from exactile.sinks.tile_codec import Compression
from exactile.sinks.tile_grid import TileGrid

_TILE_OFFSETS = 324
_TILE_BYTE_COUNTS = 325


def write_empty_tiff(path: Path, spec: ResultSpec, grid: TileGrid, *, compression: Compression, ome: bool) -> None:
    """Write a tiled BigTIFF without pixels: one page for each plane, metadata, tables of zeros."""
    import tifffile

    with tifffile.TiffWriter(path, bigtiff=True, ome=ome) as writer:
        writer.write(
            _no_pixels(spec, grid),
            shape=spec.shape,
            dtype=spec.dtype,
            tile=(grid.tile_px, grid.tile_px),
            photometric="minisblack",
            # Without these two, tifffile would take (C, H, 1) for one page of (C, H).
            planarconfig="contig",
            extrasamples=(),
            compression=compression,
            metadata={"axes": "CYX" if spec.channels else "YX"},
            software="exactile",
        )


def fill_tile_tables(path: Path, offsets: NDArray[np.uint64], sizes: NDArray[np.uint64]) -> None:
    """Say where every tile lies: ``offsets`` and ``sizes`` in bytes, (planes, tiles)."""
    import tifffile

    if not (offsets.all() and sizes.all()):
        raise SinkError("a tile of the output was never stored; the output is incomplete and was not kept")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        if len(tiff.pages) != len(offsets):
            raise SinkError(
                f"the output has {len(tiff.pages)} pages in place of {len(offsets)}: it was changed meanwhile"
            )
        for page, page_offsets, page_sizes in zip(tiff.pages, offsets, sizes, strict=True):
            tags = page.aspage().tags
            tags[_TILE_OFFSETS].overwrite(page_offsets.tolist())
            tags[_TILE_BYTE_COUNTS].overwrite(page_sizes.tolist())


def _no_pixels(spec: ResultSpec, grid: TileGrid) -> Iterator[bytes]:
    # tifffile insists on the pixels of an uncompressed page that is a single whole tile; they stay unused.
    single = grid.height == grid.width == grid.tile_px
    tile = bytes(grid.tile_px**2 * np.dtype(spec.dtype).itemsize) if single else b""
    return (tile for _ in range(plane_count(spec) * grid.count))
