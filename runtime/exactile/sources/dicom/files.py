"""Find the DICOM files of a slide by their headers, before any pixel is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from exactile.errors import SourceError
from exactile.sources.dicom.header import (
    PREAMBLE_BYTES,
    DicomHeader,
    first_bytes,
    is_dicom,
    names_slide_class,
    read_header,
)

_SUFFIX = ".dcm"
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_NPY = b"\x93NUMPY"


def is_dicom_folder(folder: str | os.PathLike[str], image_suffixes: tuple[str, ...]) -> bool:
    """Return whether a folder holds a DICOM file of a slide, and no other image (``image_suffixes``) and no folder.

    Hidden files and folders do not count.
    """
    try:
        entries = _entries(Path(folder))
    except OSError:
        return False
    if any(entry.name.lower().endswith(image_suffixes) or entry.is_dir() for entry in entries):
        return False
    return any(_is_file_of_dicom(entry) and names_slide_class(entry) for entry in entries)


def is_dicom_image(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is read as DICOM: a folder with a DICOM file in it, or a file by content and name.

    A DICOM file may also be a TIFF file; it is read as that, unless its name ends in .dcm. A file with this name and no
    other known first bytes is a DICOM file, too, if a damaged one.
    """
    try:
        if Path(path).is_dir():
            return any(map(_is_file_of_dicom, _entries(Path(path))))
    except (OSError, ValueError):
        return False
    named, start = Path(path).suffix.lower() == _SUFFIX, first_bytes(path)
    if is_dicom(path):
        return named or not start.startswith(_TIFF)
    return named and bool(start) and not start.startswith((*_TIFF, _NPY))


def slide_headers(path: str | os.PathLike[str]) -> list[DicomHeader]:
    """Return the levels of the slide in a folder, or of one file and the parts of the same instance beside it.

    Sorted by instance number, then by name. Raises SourceError if there is no slide, or more than one.
    """
    found = _of_folder(Path(path)) if Path(path).is_dir() else _of_file(Path(path))
    _check_one_slide(found, os.fspath(path))
    _check_no_copies(found, os.fspath(path))
    return sorted(found, key=lambda header: (header.number, header.path.name))


def _entries(folder: Path) -> list[Path]:
    return [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]


def _is_file_of_dicom(entry: Path) -> bool:
    return entry.is_file() and is_dicom(entry)


def _of_folder(folder: Path) -> list[DicomHeader]:
    try:
        files = [entry for entry in _entries(folder) if _is_file_of_dicom(entry)]
    except OSError as error:
        raise SourceError(f"{folder}: cannot be listed: {error.strerror}") from error
    if not files:
        raise SourceError(f"{folder}: holds no DICOM files")
    headers = [read_header(file) for file in files]
    levels = [header for header in headers if header.is_level]
    if not levels:
        kinds = dict.fromkeys(header.kind if header.is_slide else header.class_name for header in headers)
        raise SourceError(
            f"{folder}: holds {len(headers)} DICOM files of {', '.join(list(kinds)[:3])}, but no level of a slide "
            "(VL Whole Slide Microscopy Image, VOLUME)"
        )
    return levels


def _of_file(path: Path) -> list[DicomHeader]:
    if not is_dicom(path):
        raise SourceError(
            f"{path}: is no DICOM file, as its name says: DICM is not at byte {PREAMBLE_BYTES}; if it is DICOM without "
            "a preamble, write it again: pydicom.dcmread(path, force=True).save_as(path, enforce_file_format=True)"
        )
    header = read_header(path)
    if not header.is_slide:
        raise SourceError(
            f"{path}: is a DICOM file of {header.class_name}, not of a slide (VL Whole Slide Microscopy Image); "
            "store the image as TIFF, OME-Zarr or .npy, a plane of it or planes as channels"
        )
    if not header.is_level:
        kind = header.kind or "an image without a kind"
        raise SourceError(f"{path}: is {kind} of a slide, not a level of it (VOLUME); give the slide's folder")
    if not header.whole:
        return [header]
    beside = [entry for entry in _entries(path.parent) if entry != path and _is_file_of_dicom(entry)]
    return [header, *(other for other in _readable(beside) if other.is_level and other.whole == header.whole)]


def _readable(paths: Iterable[Path]) -> list[DicomHeader]:
    """Return the headers that can be read: anything may be beside a file."""
    found = []
    for path in paths:
        try:
            found.append(read_header(path))
        except SourceError:
            continue
    return found


def _check_one_slide(headers: Sequence[DicomHeader], name: str) -> None:
    first = headers[0]
    for other in headers[1:]:
        places = {first.frame_of_reference, other.frame_of_reference} - {""}
        if (first.study, first.series) == (other.study, other.series) and len(places) < 2:
            continue
        raise SourceError(
            f"{name}: holds more than one slide: {first.path.name} (series {first.series}) and {other.path.name} "
            f"(series {other.series}) do not belong together; put each slide into its own folder, or name one file "
            "for the level in it"
        )


def _check_no_copies(headers: Sequence[DicomHeader], name: str) -> None:
    known: dict[str, Path] = {}
    for header in headers:
        if header.instance in known:
            raise SourceError(
                f"{name}: {known[header.instance].name} and {header.path.name} hold the same instance "
                f"({header.instance}); remove one of them"
            )
        known[header.instance] = header.path
