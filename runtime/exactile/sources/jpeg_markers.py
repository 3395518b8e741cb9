"""Check the markers of a JPEG stream before decoding."""

from __future__ import annotations

import struct

from exactile.sources.positional_file import DamagedDataError

_END_OF_IMAGE = b"\xff\xd9"
_NOT_A_FRAME = {0xC4, 0xC8, 0xCC}  # tables and reserved codes among the start-of-frame codes
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


def check_jpeg(data: bytes, most_samples: int) -> None:
    """Raise DamagedDataError for a stream without an end, or one that would decode to more than ``most_samples``.

    The decoder silently fills what is missing at the end of a stream with grey, and it trusts any size.
    """
    if _END_OF_IMAGE not in data[-64:] and _END_OF_IMAGE not in data:
        raise DamagedDataError("the JPEG stream has no end")
    height, width, components = _frame_size(data)
    if height * width * components > most_samples:
        raise DamagedDataError(
            f"the JPEG stream is {height} x {width} x {components} samples, but the chunk has room for {most_samples}"
        )


def _frame_size(data: bytes) -> tuple[int, int, int]:
    """Return height, width and components from the frame header."""
    position = 0
    try:
        while True:
            if data[position] != 0xFF:
                raise DamagedDataError(f"the JPEG stream has no marker at byte {position}")
            code = data[position + 1]
            position += 1 if code == 0xFF else 2  # any number of fill bytes may come before a marker
            if code == 0xFF or code in _WITHOUT_LENGTH:
                continue
            if 0xC0 <= code <= 0xCF and code not in _NOT_A_FRAME:
                _, _, height, width, components = struct.unpack_from(">HBHHB", data, position)
                return height, width, components
            position += struct.unpack_from(">H", data, position)[0]
    except (IndexError, struct.error):
        raise DamagedDataError("the JPEG stream has no frame header") from None
