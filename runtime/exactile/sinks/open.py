"""Open the sink for the name of an output."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from exactile.errors import OptionError
from exactile.sinks.files.target import check_writable
from exactile.sinks.npy import NpySink
from exactile.sinks.protocol import Sink
from exactile.sinks.tiff.sink import TiffSink
from exactile.sinks.tiles.codec import DEFAULT_COMPRESSION
from exactile.sinks.zarr.sink import ZarrSink, zarr_target

_TIFF_SUFFIXES = (".tif", ".tiff")  # .ome.tif and .ome.tiff end like this
_NPY_SUFFIX = ".npy"
_DICOM_SUFFIX = ".dcm"


def open_sink(
    path: str | PathLike[str],
    *,
    overwrite: bool = False,
    compression: str | None = None,
    tile: int | None = None,
    pyramid: bool | None = None,
    resumable: bool = False,
    label: str | None = None,
) -> Sink:
    """Return a sink for ``path`` by its suffix; touches no file.

    ``compression``, ``tile``, ``pyramid`` and ``resumable`` are TiffSink's and ZarrSink's, ``label`` the latter's; a
    .npy file and a DICOM Segmentation (.dcm) are never resumable.
    Raises OptionError for another suffix, or options it does not take.
    """
    target = Path(path)
    if zarr_target(target):
        return ZarrSink(
            target, label=label, compression=compression or "zstd", tile=tile, pyramid=pyramid, overwrite=overwrite,
            resumable=resumable,
        )  # fmt: skip
    _check_suffix(target)
    if label is not None:
        raise OptionError(f"{target}: only a .zarr folder has labels with names. What to do: omit --label-name")
    if target.suffix.lower() == _DICOM_SUFFIX:
        return _dicom_sink(target, overwrite=overwrite, chosen=(compression, tile, pyramid))
    if target.suffix.lower() != _NPY_SUFFIX:
        chosen = DEFAULT_COMPRESSION if compression is None else compression
        return TiffSink(
            target, compression=chosen, tile=tile, pyramid=pyramid, overwrite=overwrite, resumable=resumable
        )
    if compression is not None or tile is not None or pyramid:
        raise OptionError(
            f"{target}: a {_NPY_SUFFIX} file has neither compression nor tiles nor a pyramid. "
            "What to do: omit these options, or write a .tif file"
        )
    return NpySink(target, overwrite=overwrite)


def _dicom_sink(target: Path, *, overwrite: bool, chosen: tuple[object, ...]) -> Sink:
    from exactile.sinks.dicom.segmentation import DicomSegmentationSink

    if any(chosen):
        raise OptionError(
            f"{target}: a DICOM Segmentation has tiles of 512, RLE frames and no pyramid. What to do: omit "
            f"--compression and --pyramid, or write .ome.tif"
        )
    return DicomSegmentationSink(target, overwrite=overwrite)


def check_target(path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Check that a sink could start writing ``path`` now; call this before any long work.

    Raises OptionError for its suffix, OutputExistsError if it exists and ``overwrite`` is false, and SinkError if its
    folder does not exist or cannot be written.
    """
    target = Path(path)
    if zarr_target(target):
        return  # a container may hold other labels; its content is checked when the sink begins
    _check_suffix(target)
    check_writable(target, overwrite=overwrite)


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in (*_TIFF_SUFFIXES, _NPY_SUFFIX, _DICOM_SUFFIX):
        raise OptionError(
            f"the name of the output {path} has no known suffix. "
            "What to do: end it with .tif, .tiff, .ome.tif, .ome.tiff, .zarr, .npy or .dcm"
        )
