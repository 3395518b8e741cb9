"""Open an image, whatever holds it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.array import ArraySource
from exactile.sources.image_choice import ImageChoice, check_single_image
from exactile.sources.positional_file import PositionalFile
from exactile.sources.protocol import Source
from exactile.sources.zarr_store import is_zarr

_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_NPY = b"\x93NUMPY"
_KNOWN_OTHERS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"PK\x03\x04": "a zip archive (.npz?)",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF document",
}


def open_source(
    image: str | os.PathLike[str] | NDArray[Any],
    *,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    level: int = 0,
    mpp: float | None = None,
    series: int = 0,
    z: int | None = None,
    t: int | None = None,
    workers: int | None = None,
) -> Source:
    """Open a TIFF file, a .npy file, a Zarr folder (told apart by content, not by name), an address or an array.

    At addresses (``http://``, ``s3://``, ...) Zarr is read.

    ``axes`` is YX, YXC or CYX; ``channels`` chooses channels in any order; ``level`` chooses from a pyramid by
    number, ``mpp`` by microns per pixel, within 5 %; ``series`` chooses from several images, ``z`` and ``t`` a plane
    of a stack; ``workers`` threads decode. Raises SourceError when there is no image that can be read, OptionError
    for a choice that is not there, ChannelError for ``channels`` that are not there.
    """
    choice = ImageChoice(level=level, mpp=mpp, series=series, z=z, t=t, axes=axes)
    if isinstance(image, np.ndarray):
        check_single_image(choice, "an array")
        return ArraySource(image, axes=axes, channels=channels)
    if is_zarr(image):
        from exactile.sources.zarr import ZarrSource

        return ZarrSource(
            image, axes=axes, channels=channels, level=level, mpp=mpp, series=series, z=z, t=t, workers=workers
        )
    start = _first_bytes(image)
    if start.startswith(_TIFF):
        from exactile.sources.tiff import TiffSource

        return TiffSource(
            image, axes=axes, channels=channels, level=level, mpp=mpp, series=series, z=z, t=t, workers=workers
        )
    if start.startswith(_NPY):
        from exactile.sources.npy import NpySource

        check_single_image(choice, os.fspath(image))
        return NpySource(image, axes=axes, channels=channels)
    found = next((kind for magic, kind in _KNOWN_OTHERS.items() if start.startswith(magic)), "of an unknown format")
    raise SourceError(
        f"{os.fspath(image)}: is {found if start else 'empty'}; TIFF (also BigTIFF, OME-TIFF, SVS) and .npy are read"
    )


def _first_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        file = PositionalFile(path)
    except SourceError as error:
        raise SourceError(f"{error} (TIFF and .npy files are read, whole slides and Zarr folders)") from error
    try:
        return file.stream.read(8)
    finally:
        file.close()
