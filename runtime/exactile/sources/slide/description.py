"""Describe a slide that OpenSlide reads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing

from exactile.sources.description import (
    LevelDescription,
    Listing,
    SeriesDescription,
    colour_names,
    downsample,
    grid_of,
    is_reduction,
)
from exactile.sources.pixel_size import PixelSize
from exactile.sources.slide.handle import SlideHandle
from exactile.sources.slide.source import level_pixel_sizes
from exactile.sources.slide.vendor import load_openslide

_ASSOCIATED = "openslide.associated."


def describe_slide(path: str | os.PathLike[str]) -> Listing:
    """Describe the slide. Raises SourceError if OpenSlide is not installed or cannot open the file."""
    version = load_openslide(os.fspath(path)).__library_version__
    with closing(SlideHandle(path)) as handle:
        properties = handle.properties
        levels = tuple(_level(handle, *one) for one in enumerate(level_pixel_sizes(handle)))
        height, width = handle.level_sizes[0]
        series = SeriesDescription(
            series=0,
            name=None,
            axes="YXC",
            shape=(height, width, 3),
            stored_dtype="uint8",
            dtype="uint8",
            channels=3,
            channel_names=colour_names(3),
            z=1,
            t=1,
            levels=levels,
        )
    return Listing(
        kind=f"whole slide ({properties.get('openslide.vendor', 'unknown vendor')})",
        reader="OpenSlide",
        reader_version=version,
        series=(series,),
        series_count=1,
        notes=tuple(_notes(properties)),
    )


def _level(handle: SlideHandle, number: int, size: PixelSize | None) -> LevelDescription:
    full, (height, width) = handle.level_sizes[0], handle.level_sizes[number]
    stated = (handle.properties.get(f"openslide.level[{number}].tile-{side}", "") for side in ("height", "width"))
    rows, columns = (int(side) if side.isdigit() else 0 for side in stated)
    tiled = rows > 0 and columns > 0
    return LevelDescription(
        level=number,
        height=height,
        width=width,
        shape=(height, width, 3),
        pixel_size_um=size,
        downsample=downsample(full, (height, width)),
        reduction=is_reduction(full, (height, width)),
        chunk_kind="tiles" if tiled else None,
        chunk=(rows, columns) if tiled else None,
        chunks=grid_of((height, width), (rows, columns)) if tiled else None,
    )


def _notes(properties: Mapping[str, str]) -> Iterator[str]:
    power = properties.get("openslide.objective-power")
    if power:
        yield f"objective power: {power}"
    sides = [properties.get(f"openslide.bounds-{side}") for side in ("y", "x", "height", "width")]
    if all(sides):
        yield "scanned area: y {}, x {}, height {}, width {} pixels of level 0".format(*sides)
    names = sorted({key[len(_ASSOCIATED) :].rpartition(".")[0] for key in properties if key.startswith(_ASSOCIATED)})
    if names:
        yield f"has pictures beside the image, which are not read: {', '.join(names)}"
    background = properties.get("openslide.background-color")
    if background:
        yield f"its background, where it has no pixels, is #{background}"
