"""Describe a TIFF file by the tags of its pages, without any table of chunks."""

from __future__ import annotations

import os
from contextlib import closing
from itertools import islice
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import tifffile

from exactile.errors import SourceError
from exactile.sources.description import (
    MOST_LISTED,
    LevelDescription,
    Listing,
    SeriesDescription,
    colour_names,
    delivered_name,
    downsample,
    grid_of,
    is_reduction,
    length_along,
)
from exactile.sources.pixel_size import PixelSize
from exactile.sources.positional_file import PositionalFile
from exactile.sources.tiff.limits import check_limits
from exactile.sources.tiff.palette import PALETTE, as_stored
from exactile.sources.tiff.pixel_size import level_pixel_sizes, ome_pixels
from exactile.sources.tifffile_log import structure_errors

_FLAVOURS = (
    ("is_ome", "OME-TIFF"), ("is_svs", "SVS (Aperio)"), ("is_qpi", "QPTIFF (Akoya)"), ("is_lsm", "LSM (Zeiss)"),
    ("is_imagej", "ImageJ TIFF"), ("is_geotiff", "GeoTIFF"), ("is_ndpi", "NDPI (Hamamatsu)"), ("is_scn", "SCN (Leica)"),
    ("is_stk", "STK (MetaMorph)"), ("is_fluoview", "FluoView TIFF"), ("is_scanimage", "ScanImage TIFF"),
)  # fmt: skip
_COMPRESSIONS = {
    1: "none", 5: "LZW", 7: "JPEG", 8: "deflate", 32946: "deflate", 32773: "PackBits", 33003: "JPEG 2000",
    33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "zstd",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_PREDICTORS = {2: "horizontal predictor", 3: "floating point predictor"}
_COLOURS = (2, 5, 6)  # RGB, separated and YCbCr; of these the second keeps its own names
_SEPARATED = 5
_ALPHA = (1, 2)
_GDAL_METADATA = 42112


def describe_tiff(path: str | os.PathLike[str]) -> Listing:
    """Describe the file. Raises SourceError for what is not TIFF, or has a damaged structure."""
    with (
        closing(PositionalFile(path)) as file,
        structure_errors(file.name),
        tifffile.TiffFile(file.stream, name=file.name) as tiff,
    ):
        return _listing(tiff, file.name)


def _listing(tiff: Any, name: str) -> Listing:
    pages = len(tiff.pages)
    notes: tuple[str, ...] = ()
    try:
        check_limits(tiff, name)
        found, count = list(islice(tiff.series, MOST_LISTED)), len(tiff.series)
    except SourceError as error:
        found, count, notes = [], 0, (f"its images cannot be told apart, only its pages: {error}",)
    series = tuple(_series(tiff, number, one) for number, one in enumerate(found))
    stacks = frozenset(number for number, one in enumerate(found) if _needs_page(one))
    return Listing(
        kind=_kind(tiff),
        reader="tifffile",
        reader_version=tifffile.__version__,
        series=series,
        series_count=count,
        pages=pages,
        axes_values=("CYX",) if any(len(_planes(found[number])) == 1 for number in stacks) else (),
        planes_need_pages=stacks,
        notes=notes,
    )


def _kind(tiff: Any) -> str:
    first = tiff.pages.first
    known = (name for sign, name in _FLAVOURS if getattr(tiff, sign, False) or getattr(first, sign, False))
    return next(known, "TIFF") + (", BigTIFF" if tiff.is_bigtiff else "")


def _series(tiff: Any, number: int, series: Any) -> SeriesDescription:
    keyframe = series.keyframe
    axes, shape = series.axes, tuple(series.shape)
    channels = length_along("C", axes, shape) * length_along("S", axes, shape)
    stored = np.dtype(keyframe.dtype or "V1")
    if keyframe.photometric == PALETTE:  # its colours are read
        channels, stored = 3 * channels, as_stored(np.asarray(keyframe.colormap, np.uint16)).dtype
    sizes = level_pixel_sizes(tiff, number)
    return SeriesDescription(
        series=number,
        name=series.name or None,
        axes=axes.translate(str.maketrans("QI", "??")),
        shape=shape,
        stored_dtype=stored.newbyteorder("=").name,
        dtype=delivered_name(stored),
        channels=channels,
        channel_names=_channel_names(tiff, number, keyframe, channels),
        z=length_along("Z", axes, shape),
        t=length_along("T", axes, shape),
        levels=tuple(_level(at, level, series, sizes[at]) for at, level in enumerate(series.levels)),
        first_page=_first_page(series),
    )


def _level(number: int, level: Any, series: Any, size: PixelSize | None) -> LevelDescription:
    keyframe = level.keyframe
    full, own = tuple(series.keyframe.shaped[2:4]), tuple(keyframe.shaped[2:4])
    chunk = (keyframe.tilelength, keyframe.tilewidth) if keyframe.is_tiled else (keyframe.rowsperstrip, own[1])
    chunk = (min(int(chunk[0]), own[0]) if not keyframe.is_tiled else int(chunk[0]), int(chunk[1]))
    return LevelDescription(
        level=number,
        height=own[0],
        width=own[1],
        shape=tuple(level.shape),
        pixel_size_um=size,
        downsample=downsample(full, own) if all(own) else (1.0, 1.0),
        reduction=is_reduction(full, own),
        chunk_kind="tiles" if keyframe.is_tiled else "strips",
        chunk=chunk if min(chunk) > 0 else None,
        chunks=grid_of(own, chunk) if min(chunk) > 0 else None,
        compression=_compression(keyframe),
    )


def _compression(keyframe: Any) -> str:
    code = int(keyframe.compression)
    name = _COMPRESSIONS.get(code) or str(getattr(keyframe.compression, "name", code)).lower()
    predictor = _PREDICTORS.get(int(keyframe.predictor))
    return f"{name}, {predictor}" if predictor else name


def _planes(series: Any) -> list[str]:
    """Return letters of the axes along which pages are stacked, other than channels, Z and T."""
    return [axis for axis, size in zip(series.axes, series.shape, strict=True) if size > 1 and axis not in "YXSCZT"]


def _needs_page(series: Any) -> bool:
    """Return whether ``--z`` and ``--t`` do not lead to one image with channels."""
    both = all(length_along(axis, series.axes, series.shape) > 1 for axis in "CS")
    return both or bool(_planes(series))


def _first_page(series: Any) -> int | None:
    page = series[0] if len(series) else None
    index = getattr(page, "index", None)
    return index if isinstance(index, int) else None


def _channel_names(tiff: Any, number: int, keyframe: Any, channels: int) -> tuple[str, ...]:
    """Return channel names from OME-XML, GDAL's metadata, or the sample types."""
    told = _ome_names(tiff, number) if tiff.is_ome else _gdal_names(keyframe, channels)
    if len(told) == channels and any(told):
        return told
    if keyframe.photometric == PALETTE and channels == 3:
        return colour_names(3)
    if keyframe.photometric not in _COLOURS or keyframe.photometric == _SEPARATED:
        return ()
    extra = [int(kind) for kind in keyframe.extrasamples]
    alpha = channels - len(extra) if len(extra) == 1 and extra[0] in _ALPHA else None
    return colour_names(channels, alpha)


def _ome_names(tiff: Any, number: int) -> tuple[str, ...]:
    pixels = ome_pixels(tiff, number)
    found = [] if pixels is None else [one for one in pixels if one.tag.rpartition("}")[2] == "Channel"]
    return tuple(one.get("Name") or "" for one in found)


def _gdal_names(keyframe: Any, channels: int) -> tuple[str, ...]:
    """Return descriptions of bands."""
    tag = keyframe.tags.get(_GDAL_METADATA)
    try:
        root = ET.fromstring(tag.value.strip("\0")) if tag is not None else ()  # noqa: S314 - expat bounds entities
    except (ET.ParseError, AttributeError):
        return ()
    described = {one.get("sample"): one.text or "" for one in root if one.get("role") == "description"}
    return tuple(described.get(str(band), "") for band in range(channels)) if described else ()
