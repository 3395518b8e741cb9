"""The header of a DICOM file: what it holds, and the image and slide that it belongs to."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exactile.errors import SourceError

SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage."""

PREAMBLE_BYTES = 128
_PREFIX = b"DICM"
_META_BYTES = 1024
_VOLUME = "VOLUME"
_AFTER_SIZES = 0x00480008
"""First tag that no header needs: optical paths, with their colour profiles, and frames come after it."""

_KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "ImageType",
    "Modality", "InstanceNumber", "SOPInstanceUIDOfConcatenationSource", "InConcatenationNumber",
    "InConcatenationTotalNumber", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomHeader:
    """The header of a DICOM file; empty texts and 0 for what it does not state.

    ``kind`` is VOLUME for levels of a slide, else LABEL, OVERVIEW or THUMBNAIL. ``whole`` is the instance that a part
    of a concatenation belongs to, of which it is ``part`` (from 1) of ``parts``. The rest describes its frames.
    """

    path: Path
    sop_class: str
    instance: str
    study: str
    series: str
    frame_of_reference: str
    kind: str
    modality: str
    number: int
    whole: str
    part: int
    parts: int
    syntax: str
    colours: str
    samples: int
    rows: int
    columns: int
    allocated_bits: int
    bits: int
    high_bit: int
    signed: bool
    planar: bool

    @property
    def is_slide(self) -> bool:
        return self.sop_class == SLIDE_CLASS

    @property
    def is_level(self) -> bool:
        return self.is_slide and self.kind == _VOLUME

    @property
    def image(self) -> str:
        """The instance whose frames these are: the file's own, or that of its concatenation."""
        return self.whole or self.instance

    @property
    def class_name(self) -> str:
        """``CT Image (modality CT)``"""
        from pydicom.uid import UID

        known = UID(self.sop_class).name if self.sop_class else "no class"
        return known.removesuffix(" Storage") + (f" (modality {self.modality})" if self.modality else "")


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Return whether a file begins like a DICOM file; False if it cannot be read."""
    return first_bytes(path)[PREAMBLE_BYTES : PREAMBLE_BYTES + len(_PREFIX)] == _PREFIX


def names_slide_class(path: str | os.PathLike[str]) -> bool:
    """Return whether a DICOM file is of a slide: its class stands at its beginning in plain text."""
    start = first_bytes(path)
    return any(SLIDE_CLASS.encode() + end in start for end in (b"\0", b"\x02"))


def read_header(path: Path) -> DicomHeader:
    """Read the header. Raises SourceError naming the file if it is damaged."""
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    wanted = [Tag(keyword) for keyword in _KEYWORDS]
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _header(path, read_partial(file, lambda tag, *_: tag >= _AFTER_SIZES, specific_tags=wanted))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error
    # pydicom raises its own errors for some damage, and arbitrary ones for other.
    except Exception as error:
        raise SourceError(f"{path}: has a damaged DICOM header: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """Return the message of another package's error, short and printable."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(error))
    return " ".join(text.split())[:200] or type(error).__name__


def first_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the first bytes; none of what is not a regular file (a named pipe would wait for a writer), or cannot be
    read.
    """
    try:
        if not Path(path).is_file():
            return b""
        with Path(path).open("rb") as file:
            return file.read(PREAMBLE_BYTES + _META_BYTES)
    except (OSError, ValueError):
        return b""


def _header(path: Path, data: Any) -> DicomHeader:
    kinds = data.get("ImageType") or []
    return DicomHeader(
        path=path,
        sop_class=_text(data, "SOPClassUID"),
        instance=_text(data, "SOPInstanceUID"),
        study=_text(data, "StudyInstanceUID"),
        series=_text(data, "SeriesInstanceUID"),
        frame_of_reference=_text(data, "FrameOfReferenceUID"),
        kind=one_line(ValueError(kinds[2]))[:64] if not isinstance(kinds, str) and len(kinds) > 2 else "",
        modality=_text(data, "Modality"),
        number=_number(data, "InstanceNumber"),
        whole=_text(data, "SOPInstanceUIDOfConcatenationSource"),
        part=_number(data, "InConcatenationNumber"),
        parts=_number(data, "InConcatenationTotalNumber"),
        syntax=_text(data.file_meta, "TransferSyntaxUID"),
        colours=_text(data, "PhotometricInterpretation"),
        samples=_number(data, "SamplesPerPixel"),
        rows=_number(data, "Rows"),
        columns=_number(data, "Columns"),
        allocated_bits=_number(data, "BitsAllocated"),
        bits=_number(data, "BitsStored"),
        high_bit=_number(data, "HighBit"),
        signed=_number(data, "PixelRepresentation") != 0,
        planar=_number(data, "PlanarConfiguration") != 0,
    )


def _text(data: Any, keyword: str) -> str:
    value = data.get(keyword)
    return "" if value is None else one_line(ValueError(value))[:64]


def _number(data: Any, keyword: str) -> int:
    value = data.get(keyword)
    return 0 if value is None else int(value)
