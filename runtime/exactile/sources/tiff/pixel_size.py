"""The pixel size of a TIFF image: from OME-XML, Aperio's description, ImageJ's, or the resolution tags."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

from exactile.sources.pixel_size import PixelSize, pixel_size, scaled, to_microns

_RESOLUTION_UNITS = {2: "inch", 3: "cm"}
_APERIO_MPP = re.compile(r"\|\s*MPP\s*=\s*([0-9.]+)")


def level_pixel_sizes(tiff: Any, number: int) -> list[PixelSize | None]:
    """Return the pixel size of every level of series ``number`` of an open ``tifffile.TiffFile``."""
    series = tiff.series[number]
    try:
        base = _ome_pixel_size(tiff, number) if tiff.is_ome else _described_pixel_size(tiff, series.keyframe)
    # Wrong metadata on the pixel size must not prevent reading the pixels.
    except Exception:  # noqa: BLE001
        base = None
    if base is None:
        base = page_pixel_size(series.keyframe)
    full = series.keyframe.shaped[2:4]
    return [scaled(base, full, level.keyframe.shaped[2:4]) if all(full) else None for level in series.levels]


def page_pixel_size(page: Any) -> PixelSize | None:
    """Return the pixel size in the resolution tags of one page; None if they have no unit."""
    unit = _RESOLUTION_UNITS.get(_tag(page, 296))
    return pixel_size(_per_pixel(_tag(page, 283), unit), _per_pixel(_tag(page, 282), unit))


def _tag(page: Any, code: int) -> Any:
    """Return a tag's number, or tuple of numbers; None if it is missing."""
    tag = page.tags.get(code)
    return None if tag is None or isinstance(tag.value, (bytes, str)) else tag.value


def _per_pixel(resolution: Any, unit: str | None) -> float | None:
    """Return micrometres of a pixel, from pixels for each ``unit`` as a fraction (numerator, denominator)."""
    if not isinstance(resolution, tuple) or len(resolution) != 2:
        return None
    if not all(isinstance(part, int) and part > 0 for part in resolution):
        return None
    return to_microns(resolution[1] / resolution[0], unit)


def _described_pixel_size(tiff: Any, page: Any) -> PixelSize | None:
    """Return the pixel size in what Aperio and ImageJ write besides the tags."""
    found = _APERIO_MPP.search(page.description) if page.is_svs else None
    if found:
        side = to_microns(_number(found[1]) or 0.0, "um")
        return pixel_size(side, side)
    unit = (tiff.imagej_metadata or {}).get("unit") if tiff.is_imagej else None
    if not isinstance(unit, str):
        return None
    return pixel_size(_per_pixel(_tag(page, 283), unit), _per_pixel(_tag(page, 282), unit))


def _ome_pixel_size(tiff: Any, number: int) -> PixelSize | None:
    """Return the pixel size in the Pixels element of the series' Image."""
    pixels = ome_pixels(tiff, number)
    return None if pixels is None else pixel_size(_physical(pixels, "Y"), _physical(pixels, "X"))


def ome_pixels(tiff: Any, number: int) -> ET.Element | None:
    """Return the Pixels element of the Image that is series ``number`` of an OME-TIFF; None if that is not certain."""
    try:
        root = ET.fromstring(tiff.ome_metadata)  # noqa: S314 - tifffile has parsed it before, and expat bounds entities
    except (ET.ParseError, TypeError):
        return None
    images = [element for element in root if element.tag.endswith("Image")]
    if len(images) != len(tiff.series):  # images whose pages are missing have no series
        images = [image for image in images if image.get("Name") == tiff.series[number].name]
        number = 0
        if len(images) != 1:
            return None
    return next((element for element in images[number] if element.tag.endswith("Pixels")), None)


def _physical(pixels: Any, axis: str) -> float | None:
    size = _number(pixels.get(f"PhysicalSize{axis}"))
    # The schema's default unit is the micrometre.
    return None if size is None else to_microns(size, pixels.get(f"PhysicalSize{axis}Unit", "um"))


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
