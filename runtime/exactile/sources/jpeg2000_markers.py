"""Check the markers of a JPEG 2000 codestream before decoding."""

from __future__ import annotations

import struct

from exactile.sources.positional_file import DamagedDataError

CODESTREAM = b"\xff\x4f\xff\x51"
_TILE_PART, _END = b"\xff\x90", b"\xff\xd9"


def check_jpeg2000_end(data: bytes) -> None:
    """Raise DamagedDataError for a codestream that does not end where its parts claim."""
    position = data.index(CODESTREAM) + 2
    while data[position : position + 2] not in (_TILE_PART, _END):
        if position + 4 > len(data):
            raise DamagedDataError("it ends early")
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    while data[position : position + 2] == _TILE_PART and position + 10 <= len(data):
        length = struct.unpack_from(">I", data, position + 6)[0]
        if length == 0:  # up to the end
            position = max(position + 12, data.rfind(_END))
        elif length < 14:
            raise DamagedDataError(f"a part of its codestream has {length} bytes")
        else:
            position += length
    if data[position : position + 2] != _END:
        raise DamagedDataError("it ends early")
