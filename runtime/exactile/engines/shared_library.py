"""Inspect shared libraries on Linux: what a file needs, and which files this process has open."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<qQ")
_ELF_64_LITTLE = b"\x7fELF\x02\x01"
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRINGS, _STRINGS_BYTES, _RPATH, _RUNPATH = 1, 5, 10, 15, 29


@dataclass(frozen=True, slots=True, kw_only=True)
class Dynamic:
    """What the loader reads from a library: names of the libraries it needs, in order, and folders to search first."""

    needed: tuple[str, ...]
    search_path: str


def read_dynamic(path: Path) -> Dynamic:
    """Read the dynamic section of a 64-bit ELF file. Raises OSError, also if the file is not one."""
    try:
        with path.open("rb") as file:
            return _read(file)
    except (struct.error, ValueError, KeyError) as error:
        raise OSError(f"{path} is no 64-bit shared library, or is damaged") from error


def open_files() -> tuple[str, ...]:
    """Return paths of the libraries that this process has open, in the order in which they were opened."""
    found: list[str] = []

    def visit(info: Any, _size: int, _data: Any) -> int:
        found.append((info.contents.name or b"").decode(errors="surrogateescape"))
        return 0

    try:
        iterate = ctypes.CDLL(None).dl_iterate_phdr
    except (AttributeError, OSError, TypeError):  # not Linux
        return ()
    iterate(_VISIT(visit), None)
    return tuple(name for name in found if name)


def open_file(soname: str) -> str:
    """Return the path of the open library of this name; empty if there is none."""
    for path in open_files():
        name = path.rsplit("/", 1)[-1]
        if name == soname or name.startswith(f"{soname}."):
            return path
    return ""


class _Info(ctypes.Structure):
    """The beginning of ``struct dl_phdr_info``."""

    _fields_ = (("address", ctypes.c_void_p), ("name", ctypes.c_char_p))


_VISIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Info), ctypes.c_size_t, ctypes.c_void_p)


def _read(file: BinaryIO) -> Dynamic:
    header = _HEADER.unpack(file.read(_HEADER.size))
    if not header[0].startswith(_ELF_64_LITTLE):
        raise ValueError(header[0])
    offset, count = header[5], header[10]
    file.seek(offset)
    segments = [_SEGMENT.unpack(file.read(_SEGMENT.size)) for _ in range(count)]
    entries = _entries(file, segments)
    values = dict(entries)
    if _STRINGS not in values:
        return Dynamic(needed=(), search_path="")
    file.seek(_offset(segments, values[_STRINGS]))
    strings = file.read(values[_STRINGS_BYTES])
    return Dynamic(
        needed=tuple(_string(strings, value) for tag, value in entries if tag == _NEEDED),
        search_path=":".join(_string(strings, value) for tag, value in entries if tag in (_RPATH, _RUNPATH)),
    )


def _entries(file: BinaryIO, segments: list[tuple[Any, ...]]) -> list[tuple[int, int]]:
    for kind, _, offset, _, _, size, _, _ in segments:
        if kind == _DYNAMIC:
            file.seek(offset)
            data = file.read(size)
            return list(_ENTRY.iter_unpack(data[: len(data) // _ENTRY.size * _ENTRY.size]))
    return []


def _offset(segments: list[tuple[Any, ...]], address: int) -> int:
    """Return the offset in the file of what is loaded at ``address``."""
    for kind, _, offset, begin, _, size, _, _ in segments:
        if kind == _LOAD and begin <= address < begin + size:
            return int(offset + address - begin)
    raise ValueError(address)


def _string(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode(errors="replace")
