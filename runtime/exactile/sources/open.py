"""Open an image, whatever holds it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import Enum, auto
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.file_kinds import not_an_image
from exactile.sources.array_like import open_array
from exactile.sources.damage import OnCorrupt
from exactile.sources.dicom.files import is_dicom_image
from exactile.sources.image_choice import ImageChoice, check_no_page, check_single_image
from exactile.sources.picture.formats import picture_format
from exactile.sources.positional_file import PositionalFile
from exactile.sources.protocol import Source
from exactile.sources.slide.vendor import is_named_as_slide, is_other_slide, is_slide_in_tiff
from exactile.sources.zarr.store import is_zarr

_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_NPY = b"\x93NUMPY"
_CZI = b"ZISRAWFILE"
_ND2 = b"\xda\xce\xbe\x0a"
_LIF = b"\x70\0\0\0"
_READ = (
    "TIFF (also BigTIFF, OME-TIFF, SVS), whole slides, Zarr, CZI, ND2, LIF, .npy, PNG, JPEG, BMP, WebP, JPEG 2000 and "
    "JPEG XL are read"
)


class _Kind(Enum):
    czi = auto()
    dicom = auto()
    lif = auto()
    nd2 = auto()
    npy = auto()
    picture = auto()
    slide = auto()
    tiff = auto()
    zarr = auto()


_CLASSES = {
    _Kind.czi: "czi.source.CziSource",
    _Kind.dicom: "dicom.source.DicomSource",
    _Kind.lif: "lif.source.LifSource",
    _Kind.nd2: "nd2.source.Nd2Source",
    _Kind.slide: "slide.source.SlideSource",
    _Kind.tiff: "tiff.source.TiffSource",
    _Kind.zarr: "zarr.source.ZarrSource",
}
"""The module and the class for files that hold several images."""


def open_source(
    image: str | os.PathLike[str] | NDArray[Any] | object,
    *,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    level: int = 0,
    mpp: float | None = None,
    series: int = 0,
    z: int | None = None,
    t: int | None = None,
    page: int | None = None,
    workers: int | None = None,
    on_corrupt: OnCorrupt = "fail",
    corrupt_value: float | None = None,
) -> Source:
    """Open a TIFF or CZI file, a whole slide, a picture, a .npy file, a Zarr folder (recognised by content) or an
    array.

    A picture is PNG, JPEG, BMP, WebP, JPEG 2000 or JPEG XL, and decoded whole: see ``PictureSource``.

    An array is one of numpy, Zarr (also a group), dask, xarray, or anything with ``__array__``: see
    ``exactile.sources.array_like.open_array``.

    Aperio's slides (SVS) are read as TIFF files, slides in DICOM files with wsidicom (a folder of them, or one file for
    its level: see ``DicomSource``), other scanners' with OpenSlide. At addresses (``http://``, ``s3://``, ...) Zarr is
    read. Zeiss's CZI, Nikon's ND2 and Leica's LIF are read with pylibCZIrw, nd2 and liffile: see ``CziSource``,
    ``Nd2Source`` and ``LifSource``.

    ``axes`` is YX, YXC or CYX; ``channels`` chooses channels in any order; ``level`` chooses from a pyramid by number,
    ``mpp`` by microns per pixel, within 5 %; ``series`` chooses from several images, ``z`` and ``t`` a plane of a
    stack; ``page`` instead takes one page of a TIFF file by its number; ``workers`` threads decode. ``on_corrupt``
    "fill" fills chunks of a TIFF file, and pictures, that cannot be decoded with ``corrupt_value`` (default 0);
    elsewhere they are always errors.

    Raises SourceError if there is no image that can be read, OptionError for a choice that does not exist, ChannelError
    for ``channels`` that do not exist.
    """
    choice = ImageChoice(level=level, mpp=mpp, series=series, z=z, t=t, page=page, axes=axes)
    if not isinstance(image, str | os.PathLike):
        return open_array(image, choice, channels=channels, workers=workers)
    kind = _kind_of(image)
    if kind is _Kind.npy:
        from exactile.sources.npy.source import NpySource

        check_single_image(choice, os.fspath(image))
        return NpySource(image, axes=axes, channels=channels)
    if kind is _Kind.picture:
        from exactile.sources.picture.source import PictureSource

        check_single_image(choice, os.fspath(image))
        return PictureSource(image, axes=axes, channels=channels, on_corrupt=on_corrupt, corrupt_value=corrupt_value)
    chosen: dict[str, Any] = {"axes": axes, "channels": channels, "level": level, "mpp": mpp}
    chosen |= {"series": series, "z": z, "t": t, "workers": workers}
    if kind is _Kind.tiff:
        chosen |= {"page": page, "on_corrupt": on_corrupt, "corrupt_value": corrupt_value}
    else:
        check_no_page(choice, os.fspath(image))
    return _class_of(kind)(image, **chosen)


def image_kind(image: str | os.PathLike[str]) -> str:
    """Return the kind of source that reads ``image``, by name. Raises SourceError if none does."""
    return _kind_of(image).name


def _class_of(kind: _Kind) -> Callable[..., Source]:
    """Return the source for a kind of image that holds several. Heavy libraries are imported with it."""
    module, name = _CLASSES[kind].rsplit(".", 1)
    found: Callable[..., Source] = getattr(import_module(f"exactile.sources.{module}"), name)
    return found


def _kind_of(image: str | os.PathLike[str]) -> _Kind:
    """Return the kind, recognised by content. Raises SourceError if nothing reads it."""
    if is_zarr(image):
        return _Kind.zarr
    if is_dicom_image(image):
        return _Kind.dicom
    start = _first_bytes(image)
    known = _kind_by_start(image, start)
    if known is not None:
        return known
    if picture_format(start) is not None and not is_named_as_slide(image):  # MIRAX's file is also a JPEG picture
        return _Kind.picture
    if is_other_slide(image):
        return _Kind.slide
    raise SourceError(not_an_image(image, _READ))


def _kind_by_start(image: str | os.PathLike[str], start: bytes) -> _Kind | None:
    """Return the kind for TIFF, .npy, CZI, ND2 or LIF; None for other files."""
    if start.startswith(_TIFF):
        return _Kind.slide if is_slide_in_tiff(image) else _Kind.tiff
    if start.startswith(_ND2) or (start[4:8] == b"jP  " and os.fspath(image).lower().endswith(".nd2")):
        return _Kind.nd2  # for the older kind, which is JPEG 2000, the source raises an error
    signs = {_NPY: _Kind.npy, _CZI: _Kind.czi, _LIF: _Kind.lif}
    return next((kind for sign, kind in signs.items() if start.startswith(sign)), None)


def _first_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        file = PositionalFile(path)
    except SourceError as error:
        raise SourceError(f"{error} ({_READ})") from error
    try:
        return file.stream.read(16)
    finally:
        file.close()
