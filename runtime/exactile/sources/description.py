"""The content of a file: images, levels, planes, channels, and the options that choose among them; as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from exactile.errors import SourceError
from exactile.json_schema import schema_of
from exactile.sources.pixel_size import PixelSize
from exactile.sources.sample_types import delivered_type, native_sample_type

FORMAT, VERSION = "exactile.image", 1

MOST_LISTED = 64
"""Images of a file that are described one by one."""

ChunkKind = Literal["tiles", "strips", "chunks", "blocks", "whole image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelDescription:
    """A level of a pyramid; 0 is full resolution.

    ``shape`` are its lengths along the axes of the series. ``pixel_size_um`` is the height and width of a pixel in
    micrometres. ``downsample`` says how many pixels of level 0 lie along the height and width of one of its own.
    ``reduction``: it shows all of level 0, reduced by one factor in both directions, up to rounding. ``chunk``: rows
    and columns of a stored chunk, and ``chunks``: how many of them there are from top to bottom and left to right.
    """

    level: int
    height: int
    width: int
    shape: tuple[int, ...]
    pixel_size_um: PixelSize | None = None
    downsample: tuple[float, float] = (1.0, 1.0)
    reduction: bool = True
    chunk_kind: ChunkKind | None = None
    chunk: tuple[int, int] | None = None
    chunks: tuple[int, int] | None = None
    compression: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesDescription:
    """One of the images of a file, with its levels.

    ``axes`` has a letter for each axis as it is stored, ? where that is not known; ``shape`` the lengths of level 0.
    ``stored_dtype`` is the type of its samples, ``dtype`` what they are delivered as, null where they are not read.
    ``channel_names`` is empty where no names are known. ``z`` and ``t`` are the lengths of a stack. ``first_page`` is
    the number of its first page in a TIFF file.
    """

    series: int
    name: str | None
    axes: str
    shape: tuple[int, ...]
    stored_dtype: str
    dtype: str | None
    channels: int
    channel_names: tuple[str, ...]
    z: int
    t: int
    levels: tuple[LevelDescription, ...]
    first_page: int | None = None

    def length(self, axis: str, level: LevelDescription | None = None) -> int:
        """Return the length of ``axis`` (Z or T) in a level, or the first one; 1 if there is no such axis."""
        if level is not None and axis in self.axes and len(self.axes) == len(level.shape):
            return level.shape[self.axes.index(axis)]
        return self.z if axis == "Z" else self.t


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaDescription:
    """The opacity channel. It is left out for a network that takes only the other channels."""

    channel: int
    premultiplied: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenImage:
    """The image that the command line reads: one level and plane of one series, or one page.

    ``chunks_stored`` is the number of its chunks, 0 where rows are read as they lie. ``crs`` names the system of its
    georeference (``EPSG:32633``), where it says so by a number. ``pixel_scale`` and ``tiepoints`` are GeoTIFF's.
    """

    series: int
    level: int
    z: int | None
    t: int | None
    page: int | None
    axes: str | None
    height: int
    width: int
    channels: int
    stored_dtype: str
    dtype: str
    pixel_size_um: PixelSize | None
    chunks_stored: int
    alpha: AlphaDescription | None
    nodata: str | None
    mask_page: int | None
    orientation: int
    georeferenced: bool
    crs: str | None
    pixel_scale: tuple[float, ...]
    tiepoints: tuple[float, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceOption:
    """An option that chooses: whole numbers from ``least`` to ``most``, or one of ``values``.

    ``needed``: without it, or another that is needed, the image is not read. ``note`` says what it does here.
    """

    option: str
    needed: bool
    least: int | None = None
    most: int | None = None
    values: tuple[str, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThumbnailDescription:
    """The picture that was written from level ``level`` of the chosen image. ``notes`` say how its pixels were made."""

    path: str
    level: int
    height: int
    width: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDescription:
    """The output of ``exactile info IMAGE --json``.

    ``file_bytes`` is null for a folder or an address. ``series_count`` may be more than the series that are listed.
    ``options`` are those of the chosen series. ``problem`` says why the chosen image cannot be read; ``chosen`` and
    ``command`` are null then. ``command`` reads the chosen image, whatever ``MODEL`` is.
    """

    format: Literal["exactile.image"]
    version: Literal[1]
    exactile: str
    image: str
    kind: str
    reader: str
    reader_version: str | None
    file_bytes: int | None
    pages: int | None
    series_count: int
    series: tuple[SeriesDescription, ...]
    options: tuple[ChoiceOption, ...]
    chosen: ChosenImage | None
    command: str | None
    problem: str | None
    notes: tuple[str, ...]
    thumbnail: ThumbnailDescription | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a format's own reader finds in a file, before any image in it was chosen.

    ``axes_values`` are values of ``--axes`` that make a difference. ``planes_need_pages``: numbers of series that hold
    planes along axes other than Z and T, which only ``--page`` or ``--axes`` can choose.
    """

    kind: str
    reader: str
    reader_version: str | None
    series: tuple[SeriesDescription, ...]
    series_count: int
    pages: int | None = None
    axes_values: tuple[str, ...] = ()
    planes_need_pages: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


def is_reduction(full: tuple[int, int], level: tuple[int, int]) -> bool:
    """Return whether ``level`` (H, W) may be all of ``full`` divided by one factor, each side rounded up or down."""
    factors = [(size / (reduced + 1), size / max(reduced - 1, 1e-9)) for size, reduced in zip(full, level, strict=True)]
    smaller = all(reduced <= size for size, reduced in zip(full, level, strict=True))
    return smaller and max(low for low, _ in factors) < min(high for _, high in factors)


def downsample(full: tuple[int, int], level: tuple[int, int]) -> tuple[float, float]:
    """Return pixels of ``full`` (H, W) along a pixel of ``level`` (H, W)."""
    return full[0] / level[0], full[1] / level[1]


def grid_of(size: tuple[int, int], chunk: tuple[int, int]) -> tuple[int, int]:
    """Return how many chunks of ``chunk`` rows and columns cover ``size`` (H, W)."""
    return -(-size[0] // chunk[0]), -(-size[1] // chunk[1])


def colour_names(channels: int, alpha: int | None = None) -> tuple[str, ...]:
    """Return names of the channels of RGB, also with an alpha channel; none for other numbers of channels."""
    named = tuple("alpha" if channel == alpha else "" for channel in range(channels))
    colours = iter(("red", "green", "blue"))
    if named.count("") != 3:
        return ()
    return tuple(name or next(colours) for name in named)


def delivered_name(stored: np.dtype[Any]) -> str | None:
    """Return the delivered type of samples of ``stored``; None if they are not read."""
    try:
        return delivered_type(native_sample_type(stored, "")).name
    except SourceError:
        return None


def as_object(description: ImageDescription) -> dict[str, Any]:
    """Return plain data; ``image_schema`` is its JSON Schema."""
    return asdict(description)


def image_schema() -> dict[str, Any]:
    return {**schema_of(ImageDescription), "title": FORMAT}


def length_along(letter: str, axes: str, shape: Sequence[int]) -> int:
    """Return the length of the axis ``letter``, 1 where there is none."""
    return shape[axes.index(letter)] if letter in axes else 1
