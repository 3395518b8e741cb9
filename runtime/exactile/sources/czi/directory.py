"""The list of sub-blocks in a CZI file, read before the library reads it.

The library trusts its numbers (a count of dimensions beyond its table overwrites memory), so all of them are checked
here.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.positional_file import DamagedDataError, PositionalFile

Column = NDArray[np.int64]
Entries = dict[int, tuple[Column, Any]]
"""By their number of dimensions: the numbers of sub-blocks, and their entries as a structured array."""

PLANE_LETTERS = "ZCTRIHVB"
"""Dimensions that tell planes apart, by the letters of the format."""

ABSENT = np.iinfo(np.int64).min
"""The position of a sub-block along a dimension that it does not have."""

SEGMENT_BYTES = 32
ENTRY_BYTES = 32
DIMENSION_BYTES = 20
MOST_DIMENSIONS = 40

_HEADER_BYTES = 80
_DIRECTORY_BYTES = 128
_COUNT_AT = 28
_END = 1 << 31
_UPPER = 0xDF
_DIMENSION = np.dtype(
    [("letter", "u1"), ("_", "V3"), ("start", "<i4"), ("size", "<i4"), ("_at", "<f4"), ("stored", "<i4")]
)
_ENTRY = [
    ("schema", "S2"), ("pixel_type", "<i4"), ("position", "<i8"), ("part", "<i4"), ("compression", "<i4"),
    ("_pyramid", "V6"), ("count", "<i4"),
]  # fmt: skip
_JOIN = "save it as one file with ZEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class CziDirectory:
    """Columns with a number for each sub-block, in the file's order.

    ``x``, ``y``, ``width``, ``height``: what it covers, in pixels of the full resolution; ``stored_width`` and
    ``stored_height``: its own pixels, fewer in reduced levels. ``at``: its position along S, M and PLANE_LETTERS,
    ABSENT where it has none. ``position``: its first byte in the file. ``pending``: the file says that it is not
    written to its end.
    """

    x: Column
    y: Column
    width: Column
    height: Column
    stored_width: Column
    stored_height: Column
    at: dict[str, Column]
    pixel_type: Column
    compression: Column
    position: Column
    pending: bool

    @property
    def full(self) -> NDArray[np.bool_]:
        """Return which are of full resolution."""
        return np.asarray((self.width == self.stored_width) & (self.height == self.stored_height))

    def extent(self, letter: str) -> tuple[int, int]:
        """Return the first position along a dimension, and the number up to the last; (0, 0) if it is absent."""
        found = self.at[letter][self.at[letter] != ABSENT]
        return (int(found.min()), int(found.max() - found.min() + 1)) if found.size else (0, 0)


def read_directory(file: PositionalFile) -> CziDirectory:
    """Return the directory of a CZI file. Raises SourceError when it is damaged, empty or lies in several files."""
    try:
        position, pending = _read_header(file)
        data, count = _read_segment(file, position)
        directory = _columns(_parse(data, count, file.name), count, pending)
        _check(directory, file)
    except DamagedDataError as error:
        raise SourceError(f"{file.name}: this CZI file is damaged: {error}; copy it again") from error
    return directory


def _read_header(file: PositionalFile) -> tuple[int, bool]:
    """Return where the directory lies, and whether writing is pending."""
    header = file.read(SEGMENT_BYTES, _HEADER_BYTES)
    part, position, _, pending, _ = struct.unpack_from("<iqqiq", header, 48)
    if part:
        raise SourceError(f"{file.name}: is part {part} of a CZI image in several files, which is not read; {_JOIN}")
    return position, bool(pending)


def _read_segment(file: PositionalFile, position: int) -> tuple[bytes, int]:
    """Return the bytes of all entries, and how many there are."""
    if not 0 < position < file.size_bytes:
        raise DamagedDataError(f"its directory would lie at byte {position} of {file.size_bytes}")
    name, allocated, used = struct.unpack("<16sqq", file.read(position, SEGMENT_BYTES))
    if name.rstrip(b"\0") != b"ZISRAWDIRECTORY":
        raise DamagedDataError(f"its directory should lie at byte {position}, but does not")
    size = used or allocated
    if not _DIRECTORY_BYTES <= size <= file.size_bytes - position - SEGMENT_BYTES:
        raise DamagedDataError(f"its directory would have {size} bytes at byte {position} of {file.size_bytes}")
    data = file.read(position + SEGMENT_BYTES, size)
    return data[_DIRECTORY_BYTES:], struct.unpack_from("<i", data)[0]


def _parse(data: bytes, count: int, name: str) -> Entries:
    if not 0 <= count <= len(data) // ENTRY_BYTES:
        raise DamagedDataError(f"its directory would hold {count} sub-blocks in {len(data)} bytes")
    if not count:
        raise SourceError(f"{name}: holds no image")
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    at = 0
    for number in range(count):
        if at + ENTRY_BYTES > len(data):
            raise DamagedDataError(f"its directory ends before sub-block {number} of {count}")
        dimensions = struct.unpack_from("<i", data, at + _COUNT_AT)[0]
        if data[at : at + 2] != b"DV" or not 2 <= dimensions <= MOST_DIMENSIONS:
            raise DamagedDataError(f"the directory's entry of sub-block {number} is none")
        places[dimensions].append((number, at))
        at += ENTRY_BYTES + DIMENSION_BYTES * dimensions
    if at > len(data):
        raise DamagedDataError(f"its directory ends within sub-block {count - 1}")
    return {dimensions: _entries(data, dimensions, found) for dimensions, found in places.items()}


def _entries(data: bytes, dimensions: int, found: list[tuple[int, int]]) -> tuple[Column, Any]:
    numbers, starts = np.asarray(found, np.int64).T
    kind = np.dtype([*_ENTRY, ("dimensions", _DIMENSION, (dimensions,))])
    joined = b"".join([data[at : at + kind.itemsize] for at in starts.tolist()])
    return numbers, np.frombuffer(joined, kind)


def _columns(parsed: Entries, count: int, pending: bool) -> CziDirectory:
    starts = {letter: np.full(count, ABSENT, np.int64) for letter in "XYSM" + PLANE_LETTERS}
    sizes = {name: np.zeros(count, np.int64) for name in ("X", "Y", "stored X", "stored Y")}
    fields = {name: np.zeros(count, np.int64) for name in ("pixel_type", "compression", "position", "part")}
    for numbers, entries in parsed.values():
        for name, column in fields.items():
            column[numbers] = entries[name]
        dimensions, letters = entries["dimensions"], entries["dimensions"]["letter"] & _UPPER
        _check_letters(letters)
        for letter, column in starts.items():
            rows, columns = np.nonzero(letters == ord(letter))
            column[numbers[rows]] = dimensions["start"][rows, columns]
            if letter in "XY":
                sizes[letter][numbers[rows]] = dimensions["size"][rows, columns]
                sizes[f"stored {letter}"][numbers[rows]] = dimensions["stored"][rows, columns]
    if fields.pop("part").any():
        raise DamagedDataError(f"some of its pixels lie in other files, which is not read; {_JOIN}")
    return CziDirectory(
        x=starts.pop("X"),
        y=starts.pop("Y"),
        width=sizes["X"],
        height=sizes["Y"],
        stored_width=sizes["stored X"],
        stored_height=sizes["stored Y"],
        at=starts,
        pending=pending,
        **fields,
    )


def _check_letters(letters: NDArray[np.uint8]) -> None:
    """Raise DamagedDataError unless every row has X and Y, all letters are known, and each is there once."""
    left = letters.shape[1]
    for letter in "XYSM" + PLANE_LETTERS:
        found = (letters == ord(letter)).sum(axis=1)
        if found.max() > 1 or (letter in "XY" and found.min() < 1):
            raise DamagedDataError(f"a sub-block has dimension {letter} {found.max()} times, another {found.min()}")
        left = left - found
    if np.any(left):
        raise DamagedDataError(f"a sub-block has a dimension that is not one of X, Y, S, M, {', '.join(PLANE_LETTERS)}")


def _check(directory: CziDirectory, file: PositionalFile) -> None:
    """Raise DamagedDataError for places and sizes that no sub-block has."""
    places = directory.position
    if places.min() <= 0 or places.max() > file.size_bytes - SEGMENT_BYTES:
        raise DamagedDataError(f"sub-blocks would lie at bytes {places.min()} to {places.max()} of {file.size_bytes}")
    for side in (directory.width, directory.height, directory.stored_width, directory.stored_height):
        if side.min() < 1:
            raise DamagedDataError(f"a sub-block would have a side of {side.min()} pixels")
    for first, size in ((directory.x, directory.width), (directory.y, directory.height)):
        if (first + size).max() >= _END or (first + size).max() - first.min() >= _END:
            raise DamagedDataError(f"its sub-blocks would reach from pixel {first.min()} to {(first + size).max()}")
