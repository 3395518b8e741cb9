"""The result as a tiled, compressed BigTIFF file."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import OptionError, SinkError
from exactile.geometry import Box
from exactile.sinks.blocks import pixel_bytes, plane_count
from exactile.sinks.encode_queue import EncodeQueue, queue_tiles
from exactile.sinks.file_sink import FileSink
from exactile.sinks.part_file import PartFile
from exactile.sinks.protocol import ResultSpec, WritePlan
from exactile.sinks.tiff_tables import fill_tile_tables, write_empty_tiff
from exactile.sinks.tile_assembly import TileAssembly, most_open_tiles
from exactile.sinks.tile_codec import DEFAULT_COMPRESSION, as_compression, most_encoded_bytes, tile_encoder
from exactile.sinks.tile_grid import TileGrid
from exactile.sinks.tile_store import TileKey, TileStore

_TILE_PX_LABELS = 512
_TILE_PX_CHANNELS = 256  # halves the raw pixels held for tiles that straddle boxes
_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32")
_CODEC_STATE_BYTES = 2 << 20  # what a codec allocates for itself while it encodes one tile
_TABLE_BYTES_PER_TILE = 128  # offset and size, in our tables and, at the end, as Python integers in tifffile's


class TiffSink(FileSink):
    """Writes a tiled BigTIFF; named ``.ome.tif`` or ``.ome.tiff``, it is an OME-TIFF.

    ``(H, W)`` becomes one page. ``(C, H, W)`` becomes one page a channel, and reads back as ``(C, H, W)``;
    a single channel, too, except that OME-TIFF readers drop an axis of length 1 and give ``(H, W)``.

    compression: ``zlib``, which every reader knows, ``zstd``, ``lzw`` or ``none``.
    tile: edge of the file's tiles in pixels, a multiple of 16; 512 for labels and 256 for channels by default.
    workers: threads that compress.

    Tiles are compressed and stored as soon as they are complete; only tiles that straddle boxes wait in memory.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        compression: str = DEFAULT_COMPRESSION,
        tile: int | None = None,
        workers: int = 2,
        overwrite: bool = False,
    ) -> None:
        super().__init__(path, overwrite=overwrite)
        if tile is not None and (tile < 16 or tile % 16):
            raise OptionError(f"TIFF tiles measure a multiple of 16 pixels, got {tile}. What to do: use 256 or 512")
        if workers < 1:
            raise OptionError(f"at least one thread has to compress, got workers={workers}")
        self._compression = as_compression(compression)
        self._tile_px = tile
        self._workers = workers
        self._assembly: TileAssembly | None = None
        self._queue: EncodeQueue | None = None
        self._store: TileStore | None = None

    def buffer_bytes(self, spec: ResultSpec, plan: WritePlan) -> int:
        """Raw tiles in assembly, raw and encoded tiles in the queue, the codecs' own state, the tile tables.

        For the boxes of ``plan`` coming row by row; they need not be aligned with the file's tiles, but rows
        of boxes that end on multiples of the tile's edge save a row of raw tiles.
        """
        grid = self._grid(spec)
        planes = plane_count(spec)
        tile_bytes = grid.tile_px**2 * np.dtype(spec.dtype).itemsize
        queued = queue_tiles(self._workers)
        queued_all_planes = (queued + planes - 2) // planes + 1  # tiles of whose planes some are queued
        raw_bytes = (most_open_tiles(plan, grid) + queued_all_planes) * planes * tile_bytes
        encoded_bytes = (queued + self._workers) * most_encoded_bytes(tile_bytes)
        tables_bytes = planes * grid.count * _TABLE_BYTES_PER_TILE
        return raw_bytes + encoded_bytes + tables_bytes + self._workers * _CODEC_STATE_BYTES

    def _start(self, part: PartFile, spec: ResultSpec) -> None:
        dtype = np.dtype(spec.dtype)
        if dtype.name not in _DTYPES:
            raise SinkError(
                f"TIFF readers do not agree on {dtype.name} pixels. What to do: write a .npy file "
                f"(TIFF takes {', '.join(_DTYPES)})"
            )
        grid = self._grid(spec)
        ome = self.path.name.lower().endswith((".ome.tif", ".ome.tiff"))
        write_empty_tiff(part.part_path, spec, grid, compression=self._compression, ome=ome)
        self._store = TileStore(part, planes=plane_count(spec), tiles=grid.count)
        if self._compression == "none":
            part.preallocate(part.size_bytes + grid.count * grid.tile_px**2 * pixel_bytes(spec))
        self._assembly = TileAssembly(grid, planes=plane_count(spec), dtype=dtype)
        self._queue = EncodeQueue(tile_encoder(self._compression, dtype), self._store.append, workers=self._workers)

    def _put(self, part: PartFile, box: Box, planes: NDArray[Any]) -> None:  # noqa: ARG002 -- the store has the part
        assert self._assembly is not None
        assert self._queue is not None
        for tile, pixels in self._assembly.put(box, planes):
            for plane, plane_pixels in enumerate(pixels):
                self._queue.submit(TileKey(plane=plane, tile=tile), plane_pixels)

    def _complete(self, part: PartFile) -> None:
        assert self._queue is not None
        assert self._store is not None
        self._queue.drain()
        fill_tile_tables(part.part_path, self._store.offsets_bytes, self._store.sizes_bytes)

    def _release(self) -> None:
        if self._queue is not None:
            self._queue.close()
        self._queue = self._assembly = self._store = None

    def _grid(self, spec: ResultSpec) -> TileGrid:
        tile_px = self._tile_px or (_TILE_PX_CHANNELS if spec.channels else _TILE_PX_LABELS)
        return TileGrid(height=spec.height, width=spec.width, tile_px=tile_px)
