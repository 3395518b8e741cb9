"""Describe a picture by its header."""

from __future__ import annotations

import os
from contextlib import closing

import imagecodecs

from exactile.errors import SourceError
from exactile.sources.description import LevelDescription, Listing, SeriesDescription, colour_names
from exactile.sources.picture.formats import picture_format, read_header
from exactile.sources.positional_file import PositionalFile

START_BYTES = 16


def describe_picture(path: str | os.PathLike[str]) -> Listing:
    """Describe the picture. Raises SourceError if it is damaged, or not one of the pictures that are read."""
    with closing(PositionalFile(path)) as file:
        kind = picture_format(file.stream.read(START_BYTES))
        if kind is None:
            raise SourceError(f"{file.name}: is none of the pictures that are read")
        header = read_header(kind, file)
    size = header.height, header.width
    level = LevelDescription(
        level=0,
        height=header.height,
        width=header.width,
        shape=(*size, header.channels),
        chunk_kind="whole image",
        chunk=size,
        chunks=(1, 1),
        compression=kind.name,
    )
    series = SeriesDescription(
        series=0,
        name=None,
        axes="YXC",
        shape=level.shape,
        stored_dtype=header.dtype.name,
        dtype=header.dtype.name,
        channels=header.channels,
        channel_names=colour_names(header.channels, header.alpha),
        z=1,
        t=1,
        levels=(level,),
    )
    return Listing(
        kind=f"{kind.name} picture",
        reader="imagecodecs",
        reader_version=imagecodecs.__version__,
        series=(series,),
        series_count=1,
        notes=(f"is decoded whole, to {header.decoded_bytes} bytes",),
    )
