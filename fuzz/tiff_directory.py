"""Find the tags of a TIFF file, so that damage can be aimed at them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value of each field type."""

_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
SUB_DIRECTORIES = 330


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Classic or BigTIFF, and its byte order."""

    order: str
    big: bool

    @staticmethod
    def of(data: bytes) -> Format:
        order = "<" if data[:2] == b"II" else ">"
        return Format(order=order, big=struct.unpack_from(order + "H", data, 2)[0] == 43)

    @property
    def offset(self) -> str:
        """The code of an offset, as ``struct`` has it."""
        return self.order + ("Q" if self.big else "I")

    @property
    def offset_bytes(self) -> int:
        return 8 if self.big else 4

    @property
    def entry_bytes(self) -> int:
        return 20 if self.big else 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One tag. ``position`` is that of the entry, ``values_at`` that of its values, there or elsewhere."""

    position: int
    code: int
    kind: int
    count: int
    values_at: int

    @property
    def value_bytes(self) -> int:
        return SIZES.get(self.kind, 1)

    def values(self, data: bytes, form: Format) -> list[int]:
        """Return its values, if they are integers."""
        letter = _INTEGERS.get(self.kind)
        if letter is None:
            return []
        return list(struct.unpack_from(f"{form.order}{self.count}{letter}", data, self.values_at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """One IFD; ``next_at`` is where the offset of the next one stands."""

    position: int
    entries: tuple[Entry, ...]
    next_at: int


def directories(data: bytes) -> list[Directory]:
    """Return all directories of an intact file, sub-directories after their parents; of a damaged one, the remaining
    ones.
    """
    try:
        form = Format.of(data)
        first = struct.unpack_from(form.offset, data, 8 if form.big else 4)[0]
        return list(_follow(data, form, [first]))
    except struct.error:
        return []


def _follow(data: bytes, form: Format, waiting: list[int]) -> Iterator[Directory]:
    seen: set[int] = set()
    while waiting:
        position = waiting.pop(0)
        if position in seen or not 0 < position < len(data):
            continue
        seen.add(position)
        try:
            directory = _read(data, form, position)
            following = [struct.unpack_from(form.offset, data, directory.next_at)[0]]
            for entry in directory.entries:
                if entry.code == SUB_DIRECTORIES and entry.count < 100:
                    following += entry.values(data, form)
        except struct.error:
            continue
        waiting += following
        yield directory


def _read(data: bytes, form: Format, position: int) -> Directory:
    count = struct.unpack_from(form.order + ("Q" if form.big else "H"), data, position)[0]
    start = position + (8 if form.big else 2)
    if count > 1000:
        raise struct.error("no directory")
    entries = tuple(_entry(data, form, start + index * form.entry_bytes) for index in range(count))
    return Directory(position=position, entries=entries, next_at=start + count * form.entry_bytes)


def _entry(data: bytes, form: Format, position: int) -> Entry:
    code, kind, count = struct.unpack_from(form.order + ("HHQ" if form.big else "HHI"), data, position)
    inline_at = position + form.entry_bytes - form.offset_bytes
    inline = SIZES.get(kind, 1) * count <= form.offset_bytes
    values_at = inline_at if inline else struct.unpack_from(form.offset, data, inline_at)[0]
    return Entry(position=position, code=code, kind=kind, count=count, values_at=values_at)
