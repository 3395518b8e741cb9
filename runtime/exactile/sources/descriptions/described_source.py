"""What any open source says of the image that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exactile.georeference import Georeference
from exactile.sources.description import AlphaDescription, ChosenImage
from exactile.sources.metadata import Alpha, metadata_of
from exactile.sources.protocol import Source
from exactile.sources.sample_types import stored_type

_SYSTEM_KEYS = (3072, 2048)
"""GeoTIFF's keys of a projected and of a geographic system, by EPSG number."""

_USER_DEFINED = 32767


def described_source(source: Source, choice: Mapping[str, Any]) -> ChosenImage:
    """Return the description of ``source``, which was opened with the arguments ``choice``."""
    metadata = metadata_of(source)
    level = choice["level"] if choice["mpp"] is None else int(source.identity()["level"])
    place = metadata.georeference
    return ChosenImage(
        **{name: choice[name] for name in ("series", "z", "t", "page", "axes")},
        level=level,
        height=source.height,
        width=source.width,
        channels=source.channels,
        stored_dtype=stored_type(source).newbyteorder("=").name,
        dtype=source.dtype.name,
        pixel_size_um=source.pixel_size_um,
        chunks_stored=source.count().chunks_stored,
        alpha=_alpha(metadata.alpha),
        nodata=None if metadata.nodata is None else str(metadata.nodata),
        mask_page=metadata.mask_page,
        orientation=metadata.orientation,
        georeferenced=place is not None,
        crs=None if place is None else _crs(place),
        pixel_scale=() if place is None else place.pixel_scale,
        tiepoints=() if place is None else place.tiepoints,
        notes=metadata.told,
    )


def _alpha(alpha: Alpha | None) -> AlphaDescription | None:
    return None if alpha is None else AlphaDescription(channel=alpha.channel, premultiplied=alpha.premultiplied)


def _crs(place: Georeference) -> str | None:
    """Return ``EPSG:`` and the number of the system, projected before geographic."""
    entries = dict(zip(place.keys[4::4], place.keys[7::4], strict=False))
    numbers = (entries.get(key, 0) for key in _SYSTEM_KEYS)
    return next((f"EPSG:{number}" for number in numbers if 0 < number < _USER_DEFINED), None)
