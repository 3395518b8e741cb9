"""The parts of a BigTIFF other than pixels: written first with empty tile tables, which are filled in last.

TIFF allows tiles anywhere in the file, so pixels go to their final place as they come and need no second copy. All of
the format itself is tifffile's.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SinkError
from exactile.sinks.blocks import plane_count
from exactile.sinks.protocol import ResultSpec
from exactile.sinks.tiles.codec import Compression
from exactile.sinks.tiles.grid import TileGrid

_ORIENTATION = 274
_TILE_OFFSETS = 324
_TILE_BYTE_COUNTS = 325


@dataclass(frozen=True, slots=True)
class TileTable:
    """Offsets and lengths of the tiles of one level, in bytes: (planes, tiles), 0 until they are stored."""

    offsets_bytes: NDArray[np.uint64]
    sizes_bytes: NDArray[np.uint64]


def empty_tiff(
    spec: ResultSpec, grids: Sequence[TileGrid], *, compression: Compression, ome: Mapping[str, Any] | None
) -> bytes:
    """Return the bytes of a tiled BigTIFF without pixels: one page for each plane, metadata, tables of zeros.

    Further ``grids`` are levels of a pyramid: SubIFDs in an OME-TIFF (``ome``: what its XML says), else pages of their
    own, marked as reduced.
    """
    import tifffile

    common: dict[str, Any] = {
        "dtype": spec.dtype,
        "photometric": "minisblack",
        # Without these two, tifffile would take (C, H, 1) for one page of (C, H).
        "planarconfig": "contig",
        "extrasamples": (),
        "compression": compression,
        "software": "exactile",
    }
    front = (spec.channels,) if spec.channels else ()
    axes = {"axes": "CYX" if spec.channels else "YX"}
    shaped = axes if len(grids) == 1 else None  # tifffile's own description knows no pages of reduced size
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=True, ome=ome is not None) as writer:
        for level, grid in enumerate(grids):
            writer.write(
                _no_pixels(spec, grid),
                shape=(*front, grid.height, grid.width),
                tile=(grid.tile_px, grid.tile_px),
                subifds=len(grids) - 1 if ome is not None and not level else None,
                subfiletype=1 if level else 0,
                metadata=None if level else ({**axes, **ome} if ome is not None else shaped),
                **_resolution(spec, level),
                extratags=() if level else _extra_tags(spec),
                **common,
            )
    return file.getvalue()


def ome_metadata(spec: ResultSpec, uuid: str) -> dict[str, Any]:
    """Return the XML metadata of an OME-TIFF besides shape and type. ``uuid`` is given: equal runs
    write equal files.
    """
    found: dict[str, Any] = {"UUID": f"urn:uuid:{uuid}"}
    if spec.pixel_size_um is not None:
        height, width = spec.pixel_size_um
        found |= {"PhysicalSizeX": width, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": height, "PhysicalSizeYUnit": "µm"}
    return found


def _extra_tags(spec: ResultSpec) -> list[tuple[int, str, int | None, Any, bool]]:
    """Return tags of the full-size pages: the georeference, from which readers derive that of the others, and
    orientation.
    """
    found: list[tuple[int, str, int | None, Any, bool]] = []
    if spec.orientation != 1:
        found.append((_ORIENTATION, "H", 1, spec.orientation, False))
    place = spec.georeference
    if place is None:
        return found
    for code, values, kind in (
        (33550, place.pixel_scale, "d"),
        (33922, place.tiepoints, "d"),
        (34264, place.transformation, "d"),
        (34735, place.keys, "H"),
        (34736, place.numbers, "d"),
    ):
        if values:
            found.append((code, kind, len(values), values, False))
    if place.text:
        found.append((34737, "s", None, place.text, False))
    return found


def _resolution(spec: ResultSpec, level: int) -> dict[str, Any]:
    if spec.pixel_size_um is None:
        return {}
    height, width = (size * 2**level for size in spec.pixel_size_um)
    return {"resolution": (1e4 / width, 1e4 / height), "resolutionunit": "CENTIMETER"}


def fill_tile_tables(path: Path, tables: Sequence[TileTable]) -> None:
    """Fill in where every tile is; one table per level."""
    import tifffile

    if not all(table.offsets_bytes.all() and table.sizes_bytes.all() for table in tables):
        raise SinkError("a tile of the output was never stored; the output is incomplete and was not kept")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        pages = _pages(tiff, [len(table.offsets_bytes) for table in tables])
        for table, planes in zip(tables, pages, strict=True):
            for page, offsets, sizes in zip(planes, table.offsets_bytes, table.sizes_bytes, strict=True):
                page.tags[_TILE_OFFSETS].overwrite(offsets.tolist())
                page.tags[_TILE_BYTE_COUNTS].overwrite(sizes.tolist())


def _pages(tiff: Any, planes: Sequence[int]) -> list[list[Any]]:
    """Return the pages of each level, one a plane: SubIFDs of the first level's, or one level after the other."""
    tiff.pages.useframes = False
    found = list(tiff.pages)
    if len(found) == planes[0]:
        return [found, *([page.pages[level] for page in found] for level in range(len(planes) - 1))]
    if len(found) != sum(planes):
        raise SinkError(f"the output has {len(found)} pages instead of {sum(planes)}: it was changed meanwhile")
    rest = iter(found)
    return [[next(rest) for _ in range(count)] for count in planes]


def _no_pixels(spec: ResultSpec, grid: TileGrid) -> Iterator[bytes]:
    # tifffile requires the pixels of an uncompressed page that is a single whole tile; they stay unused.
    single = grid.height == grid.width == grid.tile_px
    tile = bytes(grid.tile_px**2 * np.dtype(spec.dtype).itemsize) if single else b""
    return (tile for _ in range(plane_count(spec) * grid.count))
