"""The pixel size of a CZI image, from its metadata."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from exactile.sources.pixel_size import PixelSize, pixel_size, to_microns

_DISTANCES = "Metadata/Scaling/Items/Distance"


def scaling(metadata: str) -> PixelSize | None:
    """Return that of the full resolution; None if ``metadata``, the file's XML, does not state it."""
    try:
        root = ET.fromstring(metadata)  # noqa: S314 - the library has parsed it before, and expat bounds entities
        found = {distance.get("Id"): _microns(distance.findtext("Value")) for distance in root.findall(_DISTANCES)}
    # Wrong metadata on the pixel size must not prevent reading the pixels.
    except (ET.ParseError, ValueError):
        return None
    return pixel_size(found.get("Y"), found.get("X"))


def _microns(metres: str | None) -> float | None:
    return None if metres is None else to_microns(float(metres), "m")
