"""Describe a Zarr array or an OME-Zarr hierarchy by its metadata alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from exactile.errors import SourceError
from exactile.sources.address import shown_name
from exactile.sources.description import (
    MOST_LISTED,
    LevelDescription,
    Listing,
    SeriesDescription,
    delivered_name,
    downsample,
    grid_of,
    is_reduction,
    length_along,
)
from exactile.sources.image_choice import ImageChoice
from exactile.sources.pixel_size import PixelSize
from exactile.sources.zarr.image import level_pixel_size, no_image, ome_axes, plain_axes, series_names
from exactile.sources.zarr.store import is_array, member_names, open_member, open_node

_NO_COMPRESSION = frozenset(("bytes", "transpose", "crc32c", "sharding_indexed"))
_LABELS = "labels"


def describe_zarr(image: str | os.PathLike[str], axes: str | None = None) -> Listing:
    """Describe it; ``axes`` are those given for a plain array. Raises SourceError if there is no image, or damaged
    metadata.
    """
    import zarr

    name, node = shown_name(image), open_node(image)
    try:
        series, count, version, notes = _array(node, name, axes) if is_array(node) else _group(node, name)
    # Metadata is JSON of any shape.
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{name}: has damaged OME metadata: {type(error).__name__}: {error}") from error
    plain = is_array(node) and len(node.shape) == 3 and not _names_axes(node)
    return Listing(
        kind=f"{version}Zarr, format {node.metadata.zarr_format}",
        reader="zarr",
        reader_version=zarr.__version__,
        series=series,
        series_count=count,
        axes_values=("YXC", "CYX") if plain else (),
        notes=notes,
    )


Found = tuple[tuple[SeriesDescription, ...], int, str, tuple[str, ...]]
"""Series, their number, what goes before Zarr in the format's name, and notes."""


def _array(array: Any, name: str, given: str | None) -> Found:
    try:
        axes = plain_axes(array, ImageChoice(axes=given), name)
    except SourceError:  # the reader of the array reports what is wrong with it
        axes = "?" * array.ndim
    level = _level(0, array, axes, (), None)
    return (_series(0, None, axes, (level,), array, ()),), 1, "", ()


def _names_axes(array: Any) -> bool:
    named = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return bool(named and any(named))


def _group(group: Any, name: str) -> Found:
    attributes = group.attrs.asdict()
    ome = attributes.get("ome", attributes)
    if "bioformats2raw.layout" in ome and "multiscales" not in ome:
        numbers = series_names(group) or ["0"]
        images = [_image_of(open_member(group, number, name)) for number in numbers[:MOST_LISTED]]
        found = [(image, own, one) for image, own in images for one in own.get("multiscales", ())[:1]]
        count = len(numbers)
    else:
        found = [(group, ome, one) for one in islice(ome.get("multiscales") or (), MOST_LISTED)]
        count = len(ome.get("multiscales") or ())
    if not found:
        raise no_image(group, ome, name)
    series = tuple(_multiscale(number, *one, name) for number, one in enumerate(found))
    version = str(ome.get("version") or found[0][2].get("version") or "")
    return series, count, f"OME-Zarr {version}, ".replace(" ,", ","), tuple(_label_notes(found[0][0]))


def _image_of(group: Any) -> tuple[Any, Mapping[str, Any]]:
    attributes = group.attrs.asdict()
    return group, attributes.get("ome", attributes)


def _multiscale(
    number: int, group: Any, ome: Mapping[str, Any], multiscale: Mapping[str, Any], name: str
) -> SeriesDescription:
    axes = ome_axes(multiscale, ImageChoice(), name)
    arrays = [open_member(group, dataset["path"], name) for dataset in multiscale["datasets"]]
    full = tuple(length_along(axis, axes, arrays[0].shape) for axis in "YX")
    levels = tuple(
        _level(level, array, axes, full, level_pixel_size(multiscale, dataset))
        for level, (array, dataset) in enumerate(zip(arrays, multiscale["datasets"], strict=True))
    )
    channels = ome.get("omero", {}).get("channels", ())
    names = tuple(str(channel.get("label") or "") for channel in channels)
    return _series(number, multiscale.get("name") or None, axes, levels, arrays[0], names)


def _series(
    number: int, name: str | None, axes: str, levels: tuple[LevelDescription, ...], array: Any, names: tuple[str, ...]
) -> SeriesDescription:
    channels = length_along("C", axes, array.shape)
    stored = np.dtype(array.dtype)
    return SeriesDescription(
        series=number,
        name=name,
        axes=axes,
        shape=tuple(array.shape),
        stored_dtype=stored.newbyteorder("=").name,
        dtype=delivered_name(stored),
        channels=channels,
        channel_names=names if len(names) == channels and any(names) else (),
        z=length_along("Z", axes, array.shape),
        t=length_along("T", axes, array.shape),
        levels=levels,
    )


def _level(number: int, array: Any, axes: str, full: tuple[int, ...], size: PixelSize | None) -> LevelDescription:
    height, width = (length_along(axis, axes, array.shape) for axis in "YX")
    rows, columns = (length_along(axis, axes, array.chunks) for axis in "YX")
    whole = (full[0], full[1]) if full else (height, width)
    usable = min(height, width, rows, columns) > 0
    return LevelDescription(
        level=number,
        height=height,
        width=width,
        shape=tuple(array.shape),
        pixel_size_um=size,
        downsample=downsample(whole, (height, width)) if usable else (1.0, 1.0),
        reduction=is_reduction(whole, (height, width)),
        chunk_kind="chunks",
        chunk=(rows, columns) if usable else None,
        chunks=grid_of((height, width), (rows, columns)) if usable else None,
        compression=", ".join(_compressions(array)) or "none",
    )


def _compressions(array: Any) -> Iterator[str]:
    """Yield the names of compressing codecs, also within shards; and whether there are shards."""
    metadata = array.metadata.to_dict()
    if metadata["zarr_format"] == 2:
        compressor = metadata.get("compressor")
        if compressor is not None:
            yield compressor["id"] if isinstance(compressor, Mapping) else compressor.codec_id
        return
    for codec in metadata["codecs"]:
        yield from _codec_names(codec)
    if array.shards is not None:
        yield "in shards"


def _codec_names(codec: Mapping[str, Any]) -> Iterator[str]:
    if codec["name"] not in _NO_COMPRESSION:
        yield str(codec["name"])
    for inner in codec.get("configuration", {}).get("codecs", ()):
        yield from _codec_names(inner)


def _label_notes(image: Any) -> Iterator[str]:
    """Yield notes on label images within the first image."""
    if _LABELS not in member_names(image):
        return
    group = open_member(image, _LABELS, _LABELS)
    attributes = group.attrs.asdict()
    told = attributes.get("ome", attributes).get("labels") or member_names(group)
    if told:
        yield f"holds labels: {', '.join(map(str, told))}; each is an image of its own, at its path in labels/"
