"""Arrays of other libraries as images: whatever has ``__array__``, Zarr nodes, dask arrays, xarray's DataArrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from exactile.errors import SourceError
from exactile.sources.array import ArraySource
from exactile.sources.image_choice import ImageChoice, check_single_image, choose_positions
from exactile.sources.protocol import Source

_DIMENSIONS = {
    "y": "Y", "lat": "Y", "latitude": "Y", "row": "Y", "rows": "Y", "height": "Y",
    "x": "X", "lon": "X", "longitude": "X", "column": "X", "columns": "X", "col": "X", "width": "X",
    "c": "C", "channel": "C", "channels": "C", "band": "C", "bands": "C", "s": "C", "sample": "C", "samples": "C",
    "z": "Z", "depth": "Z", "t": "T", "time": "T",
}  # fmt: skip
"""Common names of the dimensions of a DataArray, in any case."""


def open_array(
    image: object, choice: ImageChoice, *, channels: Sequence[int] | None = None, workers: int | None = None
) -> Source:
    """Return a source of ``image``: uint8, uint16 or float32 samples.

    Arrays of numpy and whatever has ``__array__`` or ``__array_interface__`` (PyTorch tensors on a CPU, Pillow images)
    are borrowed; Zarr arrays and groups and dask arrays are read chunk by chunk. The axes of a DataArray are known from
    the names of its dimensions.

    Raises SourceError for what is not an array, OptionError and ChannelError as ``open_source`` does.
    """
    library = type(image).__module__.partition(".")[0]
    if library == "xarray":
        image, choice = _data_of(image, choice)
        library = type(image).__module__.partition(".")[0]
    if library == "zarr":
        from exactile.sources.zarr.source import ZarrSource

        return ZarrSource.of_node(image, choice, channels=channels, workers=workers)
    check_single_image(choice, "an array")
    if library == "dask":
        from exactile.sources.dask_array import DaskSource

        return DaskSource(image, axes=choice.axes, channels=channels, workers=workers)
    return ArraySource(_as_numpy(image), axes=choice.axes, channels=channels)


def _as_numpy(image: object) -> np.ndarray[Any, np.dtype[Any]]:
    if not (hasattr(image, "__array__") or hasattr(image, "__array_interface__")):
        raise SourceError(
            f"an image of type {type(image).__name__} cannot be read; give a path, an address, or an array"
            " (numpy, zarr, dask, xarray, or anything with __array__)"
        )
    try:
        return np.asarray(image)
    # Other libraries raise their own errors, above all for arrays on a GPU.
    except Exception as error:
        raise SourceError(f"an image of type {type(image).__name__} cannot become a numpy array: {error}") from error


def _data_of(image: Any, choice: ImageChoice) -> tuple[Any, ImageChoice]:
    """Return the array of a DataArray as YX, YXC or CYX, and the remaining choice once its planes were chosen."""
    dims = getattr(image, "dims", None)
    if not hasattr(image, "isel") or not hasattr(image, "data") or not isinstance(dims, tuple):
        raise SourceError(
            f"an image of type {type(image).__name__} holds several arrays; give one of them, a DataArray"
        )
    axes = "".join(_DIMENSIONS.get(str(name).lower(), "?") for name in dims)
    if any(axes.count(axis) != 1 for axis in "YX") or axes.count("C") > 1 or "?" in axes:
        raise SourceError(
            f"the dimensions of the array are called {dims}; one must be y, one x, and others channel, z or t."
            " Rename them (DataArray.rename), or give its values with axes"
        )
    choice_of_planes = replace(choice, axes=None)
    positions = choose_positions(axes, image.shape, choice_of_planes, "an array")
    planes = {name: place for name, axis, place in zip(dims, axes, positions, strict=True) if axis in "ZT"}
    kept = "".join(axis for axis in axes if axis in "YXC")
    order = kept if kept in ("YX", "YXC", "CYX") else "YXC"[: len(kept)]
    names = {axis: name for name, axis in zip(dims, axes, strict=True)}
    plain = image.isel(planes).transpose(*(names[axis] for axis in order))
    return plain.data, replace(choice, z=None, t=None, axes=order)
