"""Frames of a slide in DICOM files: the supported encodings, and the check of a frame before it is decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np

from exactile.errors import SourceError
from exactile.sources.chunks.reader import MOST_CHUNK_BYTES
from exactile.sources.dicom.header import DicomHeader
from exactile.sources.jpeg2000_markers import CODESTREAM, check_jpeg2000_end
from exactile.sources.jpeg_markers import check_jpeg
from exactile.sources.positional_file import DamagedDataError

_GREY = "MONOCHROME2"
_RGB = "RGB"
_JPEG_COLOURS = (_GREY, _RGB, "YBR_FULL_422", "YBR_FULL")
_JPEG2000_COLOURS = (_GREY, _RGB, "YBR_ICT", "YBR_RCT")
_PLAIN_COLOURS = (_GREY, _RGB)


_END_OF_IMAGE = b"\xff\xd9"


class Coding(Enum):
    """How the frames of a transfer syntax are stored."""

    native = auto()
    rle = auto()
    jpeg = auto()
    jpeg_ls = auto()
    jpeg2000 = auto()


_CODINGS = {
    "1.2.840.10008.1.2": Coding.native,
    "1.2.840.10008.1.2.1": Coding.native,
    "1.2.840.10008.1.2.2": Coding.native,
    "1.2.840.10008.1.2.5": Coding.rle,
    "1.2.840.10008.1.2.4.50": Coding.jpeg,
    "1.2.840.10008.1.2.4.51": Coding.jpeg,
    "1.2.840.10008.1.2.4.57": Coding.jpeg,
    "1.2.840.10008.1.2.4.70": Coding.jpeg,
    "1.2.840.10008.1.2.4.80": Coding.jpeg_ls,
    "1.2.840.10008.1.2.4.81": Coding.jpeg_ls,
    "1.2.840.10008.1.2.4.90": Coding.jpeg2000,
    "1.2.840.10008.1.2.4.91": Coding.jpeg2000,
    "1.2.840.10008.1.2.4.201": Coding.jpeg2000,
    "1.2.840.10008.1.2.4.202": Coding.jpeg2000,
    "1.2.840.10008.1.2.4.203": Coding.jpeg2000,
}
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_READ = "uncompressed, RLE, JPEG, JPEG-LS, JPEG 2000 and HTJ2K frames are read"
_REMEDY = "store the slide with another transfer syntax"

_DECODING_BYTES = {Coding.native: 2, Coding.rle: 3, Coding.jpeg: 3, Coding.jpeg_ls: 3}
"""Bytes for each byte of a decoded frame: the frame, its encoded bytes, and what is reordered."""

_JPEG2000_DECODING_BYTES = 6
"""Bytes for each sample besides the frame and its encoded bytes: OpenJPEG's own, of four bytes, and its wavelets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameForm:
    """What each frame of an instance decodes to: (rows, columns, samples) of ``bits`` stored bits a sample."""

    coding: Coding
    big_endian: bool
    colours: str
    rows: int
    columns: int
    samples: int
    bits: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.rows, self.columns, self.samples

    @property
    def frame_bytes(self) -> int:
        """Bytes of a decoded frame."""
        return self.rows * self.columns * self.samples * self.dtype.itemsize

    @property
    def fill(self) -> int:
        """The value that wsidicom shows for a missing tile: black in fluorescence, else white."""
        return 0 if self.colours == _GREY else 255

    @property
    def decoding_bytes(self) -> int:
        """Bytes of a frame while it is decoded."""
        if self.coding is Coding.jpeg2000:
            return 2 * self.frame_bytes + self.rows * self.columns * self.samples * _JPEG2000_DECODING_BYTES
        return _DECODING_BYTES[self.coding] * self.frame_bytes

    def check(self, frame: bytes) -> None:
        """Raise DamagedDataError for an encoded frame that cannot decode to this form, or not to all of it."""
        _CHECKS.get(self.coding, _check_nothing)(frame, self)


def frame_form(header: DicomHeader) -> FrameForm:
    """Return the form of a file's frames. Raises SourceError, with the reason, for those that are not read exactly."""
    name, syntax = header.path, _syntax_name(header.syntax)
    coding = _CODINGS.get(header.syntax)
    if coding is None:
        raise SourceError(f"{name}: has the transfer syntax {syntax}; {_READ}, so {_REMEDY}")
    if header.colours not in _colours_of(coding, header.syntax):
        taken = ", ".join(_colours_of(coding, header.syntax))
        raise SourceError(
            f"{name}: has colours {header.colours} with {syntax}, but {taken} are read with it; {_REMEDY}"
        )
    if header.samples != (1 if header.colours == _GREY else 3) or not (header.rows and header.columns):
        raise SourceError(
            f"{name}: says {header.colours}, {header.samples} samples a pixel and frames of {header.rows} x "
            f"{header.columns} pixels, which contradicts itself; it is damaged"
        )
    _check_samples(header, coding)
    form = FrameForm(
        coding=coding,
        big_endian=header.syntax == _BIG_ENDIAN,
        colours=header.colours,
        rows=header.rows,
        columns=header.columns,
        samples=header.samples,
        bits=header.bits,
    )
    if form.frame_bytes > MOST_CHUNK_BYTES:
        raise SourceError(
            f"{name}: has frames of {form.frame_bytes} bytes, but at most {MOST_CHUNK_BYTES} are taken; store it "
            "in tiles"
        )
    return form


def _check_samples(header: DicomHeader, coding: Coding) -> None:
    name, allocated, bits = header.path, header.allocated_bits, header.bits
    if header.signed or header.high_bit != bits - 1 or (header.planar and header.samples > 1):
        raise SourceError(
            f"{name}: has samples with a sign, in other bits than the lowest, or by colour (PixelRepresentation, "
            f"HighBit {header.high_bit} of {bits}, PlanarConfiguration), which wsidicom does not read; {_REMEDY}"
        )
    if not (allocated == bits == 8 or (allocated == 16 and header.samples == 1 and 8 < bits <= 16)):
        raise SourceError(
            f"{name}: has {bits} bits in {allocated} a sample, {header.samples} samples a pixel, but 8 bits, and up to "
            "16 with one sample a pixel, are read; convert it"
        )
    if bits != 8 and (coding is Coding.rle or (coding is Coding.native and bits != 16)):
        raise SourceError(
            f"{name}: has {bits} bits a sample with {_syntax_name(header.syntax)}, which wsidicom does not read; "
            f"{_REMEDY}, such as JPEG 2000 Image Compression (Lossless Only)"
        )


def _colours_of(coding: Coding, syntax: str) -> tuple[str, ...]:
    """Return the colours that decoders convert to RGB or leave unchanged; others would come out as luma and chroma."""
    if coding is Coding.jpeg and syntax not in _LOSSLESS_JPEG:
        return _JPEG_COLOURS
    return _JPEG2000_COLOURS if coding is Coding.jpeg2000 else _PLAIN_COLOURS


def _syntax_name(syntax: str) -> str:
    from pydicom.uid import UID

    return str(UID(syntax).name) or "none"


def _check_nothing(frame: bytes, form: FrameForm) -> None:
    """Do nothing: decoding finds everything."""


def _check_jpeg(frame: bytes, form: FrameForm) -> None:
    check_jpeg(frame, form.rows * form.columns * form.samples)


def _check_jpeg_ls(frame: bytes, form: FrameForm) -> None:
    start = frame.find(b"\xff\xf7", 0, 4096)
    if start < 0 or start + 10 > len(frame):
        raise DamagedDataError("the JPEG-LS stream has no frame header")
    _, _, height, width, components = struct.unpack_from(">HBHHB", frame, start + 2)
    _check_size(height, width, components, form)
    if not frame.rstrip(b"\0").endswith(_END_OF_IMAGE):  # for some of these the decoder takes a minute to say so
        raise DamagedDataError("the JPEG-LS stream has no end")


def _check_jpeg2000(frame: bytes, form: FrameForm) -> None:
    start = frame.find(CODESTREAM)
    if start < 0 or start + 44 > len(frame):
        raise DamagedDataError("it has no JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    _check_size(bottom - top, right - left, struct.unpack_from(">H", frame, start + 40)[0], form)
    check_jpeg2000_end(frame)
    if form.colours.startswith("YBR") and not _has_colour_transform(frame, start):
        raise DamagedDataError(
            f"the file says {form.colours}, but the codestream has no colour transform, so that its colours are unknown"
        )


def _check_size(height: int, width: int, components: int, form: FrameForm) -> None:
    if (height, width, components) != (form.rows, form.columns, form.samples):
        raise DamagedDataError(
            f"it is {height} x {width} x {components} samples instead of {form.rows} x {form.columns} x {form.samples}"
        )


def _has_colour_transform(frame: bytes, start: int) -> bool:
    """Return whether the coding style (COD) of the main header has a colour transform."""
    position = start + 2
    while position + 9 <= len(frame) and frame[position : position + 2] != b"\xff\x90":
        if frame[position : position + 2] == b"\xff\x52":
            return frame[position + 8] == 1
        position += 2 + struct.unpack_from(">H", frame, position + 2)[0]
    return False


_CHECKS: dict[Coding, Callable[[bytes, FrameForm], None]] = {
    Coding.jpeg: _check_jpeg,
    Coding.jpeg_ls: _check_jpeg_ls,
    Coding.jpeg2000: _check_jpeg2000,
}
