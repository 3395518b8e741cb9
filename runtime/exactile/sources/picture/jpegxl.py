"""The header of a JPEG XL picture, by ISO/IEC 18181-1: a codestream, alone or in boxes. Its fields are bits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from exactile.errors import SourceError
from exactile.sources.picture.header import PictureHeader, sample_type, several_frames
from exactile.sources.positional_file import DamagedDataError, PositionalFile

CODESTREAM = b"\xff\x0a"
_MOST_HEADER_BYTES = 64 << 10
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_ALPHA = 0
_GREY = 1
Way = tuple[int, int]
"""An offset, and bits of a number to add to it."""


@dataclass(slots=True)
class _Bits:
    """The fields of a codestream, lowest bit first."""

    value: int
    count: int
    position: int = 16  # behind the signature

    def take(self, bits: int) -> int:
        if self.position + bits > self.count:
            raise DamagedDataError("it ends within its header")
        found = self.value >> self.position & ((1 << bits) - 1)
        self.position += bits
        return found

    def number(self, *ways: Way) -> int:
        """Read a number in one of four encodings, chosen by two bits."""
        offset, bits = ways[self.take(2)]
        return offset + self.take(bits)

    def enum(self) -> int:
        return self.number((0, 0), (1, 0), (2, 4), (18, 6))


def jpegxl_header(file: PositionalFile) -> PictureHeader:
    """Read the header: grey or RGB and alpha, to 16 bits or float32. Raises DamagedDataError, SourceError."""
    stream = _codestream(file)
    bits = _Bits(int.from_bytes(stream, "little"), 8 * len(stream))
    height, width = _size(bits)
    orientation, dtype, alpha, grey = _metadata(bits, file)
    colours = 1 if grey else 3
    return PictureHeader(
        height=height,
        width=width,
        channels=colours + alpha,
        dtype=dtype,
        alpha=colours if alpha else None,
        scratch=6,
        orientation=orientation,
    )


def _size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)
    ways = (1, 9), (1, 13), (1, 18), (1, 30)
    height = 8 * (bits.take(5) + 1) if small else bits.number(*ways)
    ratio = bits.take(3)
    if ratio:
        over, under = _RATIOS[ratio - 1]
        return height, height * over // under
    return height, 8 * (bits.take(5) + 1) if small else bits.number(*ways)


def _metadata(bits: _Bits, file: PositionalFile) -> tuple[int, np.dtype[np.generic], bool, bool]:
    """Return orientation, sample type, whether there is alpha, whether it is grey."""
    if bits.take(1):  # all defaults: 8 bits of sRGB
        return 1, np.dtype(np.uint8), False, False
    orientation = 1
    if bits.take(1):
        orientation = bits.take(3) + 1
        if bits.take(1):
            _size(bits)  # of its display
        if bits.take(1):
            raise SourceError(f"{file.name}: is a JPEG XL picture with a preview, which is not read; store it as TIFF")
        if bits.take(1):
            raise several_frames(file, "JPEG XL")
    dtype = _depth(bits, file)
    bits.take(1)  # whether 16 bits are enough for decoding
    extra = bits.number((0, 0), (1, 0), (2, 4), (1, 12))
    if extra > 1:
        raise _other_channels(file)
    if extra:
        _check_alpha(bits, dtype, file)
    bits.take(1)  # whether its colours are XYB inside
    usual = bits.take(1)
    if not usual:
        bits.take(1)  # whether it has a colour profile
    return orientation, dtype, bool(extra), not usual and bits.enum() == _GREY


def _depth(bits: _Bits, file: PositionalFile) -> np.dtype[np.generic]:
    if not bits.take(1):
        return sample_type(bits.number((8, 0), (10, 0), (12, 0), (1, 6)), file)
    depth = bits.number((32, 0), (16, 0), (24, 0), (1, 6))
    bits.take(4)  # of the exponent
    if depth != 32:
        raise SourceError(f"{file.name}: has float samples of {depth} bits, but pictures of float32 are read")
    return np.dtype(np.float32)


def _check_alpha(bits: _Bits, dtype: np.dtype[np.generic], file: PositionalFile) -> None:
    """Skip the description of the only extra channel. Raises SourceError unless it is alpha like the colours."""
    if bits.take(1):  # alpha of 8 bits
        return
    kind = bits.enum()
    depth = _depth(bits, file)
    shift = bits.number((0, 0), (3, 0), (4, 0), (1, 3))
    if kind != _ALPHA or depth != dtype or shift:
        raise _other_channels(file)
    name_bytes = bits.number((0, 0), (0, 4), (16, 5), (48, 10))
    bits.take(8 * name_bytes)
    bits.take(1)  # whether colours are multiplied with it


def _other_channels(file: PositionalFile) -> SourceError:
    return SourceError(
        f"{file.name}: is a JPEG XL picture with other channels than colours and alpha, which is not read; "
        "store it as TIFF"
    )


def _codestream(file: PositionalFile) -> bytes:
    """Return the first bytes of the codestream."""
    if file.read(0, 2) == CODESTREAM:
        return file.read(0, min(_MOST_HEADER_BYTES, file.size_bytes))
    for name, start, length in _boxes(file):
        skipped = {b"jxlc": 0, b"jxlp": 4}.get(name)
        if skipped is not None:
            stream = file.read(start + skipped, min(_MOST_HEADER_BYTES, max(0, length - skipped)))
            if not stream.startswith(CODESTREAM):
                raise DamagedDataError("its codestream has no signature")
            return stream
    raise DamagedDataError("it has no codestream")


def _boxes(file: PositionalFile) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and length of the contents of each box; the last one may end with the file."""
    position = 0
    while position + 8 <= file.size_bytes:
        length, name = struct.unpack(">I4s", file.read(position, 8))
        head = 8
        if length == 1:
            length, head = struct.unpack(">Q", file.read(position + 8, 8))[0], 16
        stop = position + length if length else file.size_bytes
        if stop < position + head:
            raise DamagedDataError(f"the box at byte {position} has {length} bytes")
        yield name, position + head, min(stop, file.size_bytes) - position - head
        position = stop
