"""How large the pixels of a CZI image are, by its metadata."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from exactile.sources.pixel_size import PixelSize, pixel_size, to_microns

_DISTANCES = "Metadata/Scaling/Items/Distance"


def scaling(metadata: str) -> PixelSize | None:
    """Of the full resolution; None where ``metadata``, the file's XML, does not say it."""
    try:
        root = ET.fromstring(metadata)  # noqa: S314 - the library has parsed it before, and expat bounds entities
        found = {distance.get("Id"): _microns(distance.findtext("Value")) for distance in root.findall(_DISTANCES)}
    # Whatever is wrong with what a file says of its pixels' size, the pixels are read all the same.
    except (ET.ParseError, ValueError):
        return None
    return pixel_size(found.get("Y"), found.get("X"))


def _microns(metres: str | None) -> float | None:
    return None if metres is None else to_microns(float(metres), "m")
