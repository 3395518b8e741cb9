"""Open an image, whatever holds it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import OptionError, SourceError
from exactile.sources.array import ArraySource
from exactile.sources.damage import OnCorrupt
from exactile.sources.positional_file import PositionalFile
from exactile.sources.protocol import Source

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
    workers: int | None = None,
    on_corrupt: OnCorrupt = "fail",
    corrupt_value: float | None = None,
) -> Source:
    """Open a TIFF file, a .npy file (told apart by content, not by name) or an array.

    ``axes`` is YX, YXC or CYX; ``channels`` chooses channels in any order; ``level`` chooses from a pyramid;
    ``workers`` threads decode. ``on_corrupt`` "fill" fills chunks of a TIFF file that cannot be decoded with
    ``corrupt_value`` (default 0); arrays and .npy files have no such chunks.

    Raises SourceError when there is no image that can be read, OptionError for a
    level or axes that are not there, ChannelError for ``channels`` that are not there.
    """
    if isinstance(image, np.ndarray):
        _refuse_level(level, "an array")
        return ArraySource(image, axes=axes, channels=channels)
    start = _first_bytes(image)
    if start.startswith(_TIFF):
        from exactile.sources.tiff import TiffSource

        return TiffSource(image, axes=axes, channels=channels, level=level, workers=workers,
                          on_corrupt=on_corrupt, corrupt_value=corrupt_value)  # fmt: skip
    if start.startswith(_NPY):
        from exactile.sources.npy import NpySource

        _refuse_level(level, os.fspath(image))
        return NpySource(image, axes=axes, channels=channels)
    found = next((kind for magic, kind in _KNOWN_OTHERS.items() if start.startswith(magic)), "of an unknown format")
    raise SourceError(
        f"{os.fspath(image)}: is {found if start else 'empty'}; TIFF (also BigTIFF, OME-TIFF, SVS) and .npy are read"
    )


def _first_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        file = PositionalFile(path)
    except SourceError as error:
        raise SourceError(f"{error} (TIFF and .npy files are read)") from error
    try:
        return file.stream.read(8)
    finally:
        file.close()


def _refuse_level(level: int, name: str) -> None:
    if level:
        raise OptionError(f"{name}: level {level} was asked for, but only TIFF pyramids have levels")
