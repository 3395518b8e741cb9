"""Describe a file with named axes."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version

from exactile.errors import SourceError
from exactile.sources.description import (
    MOST_LISTED,
    LevelDescription,
    Listing,
    SeriesDescription,
    delivered_name,
    grid_of,
    length_along,
)
from exactile.sources.named.images import NamedFile, NamedImage
from exactile.sources.positional_file import PositionalFile


def describe_named(path: str | os.PathLike[str], open_file: Callable[[PositionalFile], NamedFile]) -> Listing:
    """Describe the images; those that are not read are listed without sizes, each with a note.

    Raises SourceError if ``open_file`` cannot open the file.
    """
    with closing(PositionalFile(path)) as file, closing(open_file(file)) as library:
        series, notes = [], []
        for number in range(min(library.count, MOST_LISTED)):
            try:
                series.append(_series(number, library.image(number)))
            except SourceError as error:
                series.append(_unread(number, library.title(number)))
                notes.append(f"series {number} is not read: {error}")
        return Listing(
            kind=library.format,
            reader=library.reader,
            reader_version=version(library.reader),
            series=tuple(series),
            series_count=library.count,
            notes=tuple(notes),
        )


def _series(number: int, image: NamedImage) -> SeriesDescription:
    height, width = (length_along(axis, image.axes, image.shape) for axis in "YX")
    rows, columns = (length_along(axis, image.axes, image.chunks) for axis in "YX")
    level = LevelDescription(
        level=0,
        height=height,
        width=width,
        shape=image.shape,
        pixel_size_um=image.pixel_size_um,
        chunk_kind="blocks",
        chunk=(rows, columns),
        chunks=grid_of((height, width), (rows, columns)),
        compression=image.compression,
    )
    return SeriesDescription(
        series=number,
        name=image.title,
        axes=image.axes,
        shape=image.shape,
        stored_dtype=image.dtype.newbyteorder("=").name,
        dtype=delivered_name(image.dtype),
        channels=length_along("C", image.axes, image.shape),
        channel_names=image.channel_names,
        z=length_along("Z", image.axes, image.shape),
        t=length_along("T", image.axes, image.shape),
        levels=(level,),
    )


def _unread(number: int, title: str | None) -> SeriesDescription:
    return SeriesDescription(
        series=number,
        name=title,
        axes="",
        shape=(),
        stored_dtype="",
        dtype=None,
        channels=0,
        channel_names=(),
        z=1,
        t=1,
        levels=(),
    )
