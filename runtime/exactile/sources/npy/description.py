"""Describe a .npy file by its header."""

from __future__ import annotations

import os
from contextlib import closing

import exactile
from exactile.sources.description import (
    LevelDescription,
    Listing,
    SeriesDescription,
    delivered_name,
    length_along,
)
from exactile.sources.npy.source import read_npy_header
from exactile.sources.positional_file import PositionalFile

_AXES = {2: "YX", 3: "YXC"}


def describe_npy(path: str | os.PathLike[str], axes: str | None = None) -> Listing:
    """Describe the array; ``axes`` are those that were given. Raises SourceError for what is not an
    array of numbers.
    """
    with closing(PositionalFile(path)) as file:
        shape, stored, fortran = read_npy_header(file)
    letters = axes if axes is not None and len(axes) == len(shape) else _AXES.get(len(shape), "?" * len(shape))
    height, width, channels = (length_along(axis, letters, shape) for axis in "YXC")
    level = LevelDescription(level=0, height=height, width=width, shape=shape, compression="none")
    series = SeriesDescription(
        series=0,
        name=None,
        axes=letters,
        shape=shape,
        stored_dtype=stored.newbyteorder("=").name,
        dtype=delivered_name(stored),
        channels=channels,
        channel_names=(),
        z=1,
        t=1,
        levels=(level,),
    )
    return Listing(
        kind="numpy array (.npy)",
        reader="exactile",
        reader_version=exactile.__version__,
        series=(series,),
        series_count=1,
        axes_values=("YXC", "CYX") if len(shape) == 3 else (),
        notes=("is in Fortran order",) if fortran else (),
    )
