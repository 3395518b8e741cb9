"""The result as a tiled, compressed BigTIFF file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from exactile.errors import OptionError, SinkError
from exactile.geometry import round_up
from exactile.sinks.blocks import pixel_bytes, plane_count
from exactile.sinks.files.part_file import PartFile
from exactile.sinks.protocol import ResultSpec
from exactile.sinks.tiff.store import ALIGNMENT_BYTES, TiffStore
from exactile.sinks.tiff.tables import empty_tiff, ome_metadata
from exactile.sinks.tiled.sink import TiledSink
from exactile.sinks.tiles.codec import DEFAULT_COMPRESSION, as_compression, tile_decoder, tile_encoder
from exactile.sinks.tiles.grid import TileGrid
from exactile.sinks.tiles.store import TileStore

_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32")
_OME_SUFFIXES = (".ome.tif", ".ome.tiff")


class TiffSink(TiledSink[PartFile]):
    """Writes a tiled BigTIFF; named ``.ome.tif`` or ``.ome.tiff``, it is an OME-TIFF.

    ``(H, W)`` becomes one page. ``(C, H, W)`` becomes one page a channel, and reads back as ``(C, H, W)``; a single
    channel, too, except that OME-TIFF readers drop an axis of length 1 and give ``(H, W)``.

    compression: ``zlib``, which every reader knows, ``zstd``, ``lzw`` or ``none``. pyramid: in SubIFDs for OME-TIFF, in
    further pages of a plain one, which supports it for ``(H, W)`` only. The default is a pyramid if supported. tile,
    workers, resumable: as for every TiledSink.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        compression: str = DEFAULT_COMPRESSION,
        tile: int | None = None,
        workers: int | None = None,
        pyramid: bool | None = None,
        overwrite: bool = False,
        resumable: bool = False,
    ) -> None:
        super().__init__(
            path, tile=tile, workers=workers, pyramid=pyramid is not False, overwrite=overwrite, resumable=resumable
        )
        self._pyramid_asked = pyramid is True
        self._compression = as_compression(compression)
        self._ome = self.path.name.lower().endswith(_OME_SUFFIXES)

    def _has_levels(self, spec: ResultSpec) -> bool:
        if spec.channels and not self._ome:
            if self._pyramid_asked:
                raise OptionError(f"{self.path}: a pyramid of several channels needs the name to end with .ome.tif")
            return False
        return super()._has_levels(spec)

    def _make_part(self, spec: ResultSpec, *, kept_name: bool, resumed: bool) -> PartFile:
        if np.dtype(spec.dtype).name not in _DTYPES:
            raise SinkError(
                f"TIFF readers do not agree on {spec.dtype} pixels. What to do: write a .npy file "
                f"(TIFF takes {', '.join(_DTYPES)})"
            )
        return PartFile(self.path, overwrite=self._overwrite, kept_name=kept_name, resumed=resumed)

    def _make_store(self, part: PartFile, spec: ResultSpec, grids: Sequence[TileGrid], *, resumed: bool) -> TileStore:
        dtype = np.dtype(spec.dtype)
        ome = ome_metadata(spec, self._uuid(spec)) if self._ome else None
        start = empty_tiff(spec, grids, compression=self._compression, ome=ome)
        # Up to the first tile: what an earlier run left in the gap may be damaged.
        start = start.ljust(round_up(len(start), ALIGNMENT_BYTES), b"\0")
        part.write_at(start, 0)
        codec = tile_encoder(self._compression, dtype), tile_decoder(self._compression, dtype, grids[0].tile_px)
        store = TiffStore(part, grids, planes=plane_count(spec), first_bytes=len(start), codec=codec)
        if self._compression == "none" and not resumed:
            part.preallocate(len(start) + sum(grid.count for grid in grids) * grids[0].tile_px ** 2 * pixel_bytes(spec))
        return store

    def _options(self) -> dict[str, Any]:
        import tifffile

        return {"format": "OME-TIFF" if self._ome else "TIFF", "compression": self._compression,
                "tifffile": tifffile.__version__}  # fmt: skip

    def _uuid(self, spec: ResultSpec) -> str:
        """Return a UUID of the run, so that equal runs write equal files."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(self._described(spec), sort_keys=True)))
