"""Damaged CZI files: bits, disks, transfers, and directories, segments and streams that lie."""

from __future__ import annotations

import struct

from fuzz.bytes_damaged import (
    Mutation,
    Random,
    appended,
    byte,
    cut,
    damaged,
    flip,
    inserted,
    joined,
    overwritten,
    truncated,
)
from fuzz.czi_bases import BASES, czi_base
from fuzz.recipe import Recipe, draw

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    9,
    12,
    31,
    33,
    45,
    62,
    255,
    1000,
    4096,
    65535,
    2**20,
    2**30,
    2**31 - 1,
    -1,
    -2,
    -(2**31),
)
LONG = (0, 1, 31, 32, 543, 544, 545, 2**20, 2**31, 2**32, 2**40, 2**62, -1, -(2**62))
FILE_FIELDS = {"i": (80, 84, 100), "q": (16, 24, 84, 92, 104)}
_SUBBLOCK, _DIRECTORY = b"ZISRAWSUBBLOCK\0\0", b"ZISRAWDIRECTORY\0"


def czi_recipe(seed: int) -> Recipe:
    return draw("czi", list(BASES), list(MUTATIONS), seed)


def czi_case(recipe: Recipe) -> bytes:
    """Return the file of a recipe."""
    return damaged(czi_base(recipe.base), recipe, MUTATIONS)


def _put(data: bytearray, rng: Random, form: str, at: int) -> bytearray:
    """Replace a number: by any of the usual ones, or by a little more or less than the right one."""
    usual = NUMBERS if form == "i" else LONG
    right = struct.unpack_from(f"<{form}", data, at)[0]
    near = int(rng.integers(-40, 41))
    value = right + near if rng.random() < 0.4 else usual[int(rng.integers(len(usual)))]
    bits = 8 * struct.calcsize(form)
    struct.pack_into(f"<{form}", data, at, max(-(1 << bits - 1), min((1 << bits - 1) - 1, value)))
    return data


def _header(data: bytearray, rng: Random) -> bytearray:
    """Change a number of the file's header."""
    form = "i" if rng.random() < 0.4 else "q"
    return _put(data, rng, form, int(rng.choice(FILE_FIELDS[form])))


def _found(data: bytearray, name: bytes) -> list[int]:
    at, found = data.find(name), []
    while at >= 0:
        found.append(at)
        at = data.find(name, at + 1)
    return found


def _segment(data: bytearray, rng: Random) -> bytearray:
    """Change a size of a sub-block's segment, or of what it holds."""
    at = int(rng.choice(_found(data, _SUBBLOCK)))
    form, offset = [("q", 16), ("q", 24), ("i", 32), ("i", 36), ("q", 40), ("i", 76)][int(rng.integers(6))]
    return _put(data, rng, form, at + offset)


def _entries(data: bytearray) -> list[int]:
    """Return where the directory's entries begin."""
    at = data.index(_DIRECTORY) + 32
    count = struct.unpack_from("<i", data, at)[0]
    found, at = [], at + 128
    for _ in range(min(count, 99)):
        found.append(at)
        at += 32 + 20 * struct.unpack_from("<i", data, at + 28)[0]
    return found


def _entry(data: bytearray, rng: Random) -> bytearray:
    """Change a number of an entry of the directory: type, place, part, compression, count of dimensions."""
    at = int(rng.choice(_entries(data)))
    form, offset = [("i", 2), ("q", 6), ("i", 14), ("i", 18), ("i", 28)][int(rng.integers(5))]
    return _put(data, rng, form, at + offset)


def _dimension(data: bytearray, rng: Random) -> bytearray:
    """Change a letter, start or size of a dimension of an entry."""
    at = int(rng.choice(_entries(data)))
    at += 32 + 20 * int(rng.integers(struct.unpack_from("<i", data, at + 28)[0]))
    if rng.random() < 0.3:
        data[at] = int(rng.choice(list(b"XYZCTSRIHVBMQxyz\0")))
        return data
    return _put(data, rng, "i", at + int(rng.choice([4, 8, 16])))


def _agreeing(data: bytearray, rng: Random) -> bytearray:
    """Change a number of an entry, in the directory and in the sub-block's own copy."""
    at = int(rng.choice(_entries(data)))
    own = struct.unpack_from("<q", data, at + 6)[0] + 32 + 16
    dimension = 32 + 20 * int(rng.integers(struct.unpack_from("<i", data, at + 28)[0]))
    offset = int(rng.choice([2, 18, dimension + 4, dimension + 8, dimension + 16]))
    _put(data, rng, "i", at + offset)
    data[own + offset : own + offset + 4] = data[at + offset : at + offset + 4]
    return data


def _sides(data: bytearray, rng: Random) -> bytearray:
    """Change the height or width, of what is covered and stored alike, in both copies."""
    at = int(rng.choice(_entries(data)))
    own = struct.unpack_from("<q", data, at + 6)[0] + 32 + 16
    dimension = 32 + 20 * int(rng.integers(2))
    _put(data, rng, "i", at + dimension + 8)
    for place in (at + dimension + 16, own + dimension + 8, own + dimension + 16):
        data[place : place + 4] = data[at + dimension + 8 : at + dimension + 12]
    return data


def _swapped(data: bytearray, rng: Random) -> bytearray:
    """Swap two entries, so that each points to the other's sub-block."""
    one, other = (int(at) for at in rng.choice(_entries(data), 2))
    data[one + 6 : one + 14], data[other + 6 : other + 14] = data[other + 6 : other + 14], data[one + 6 : one + 14]
    return data


def _stream(data: bytearray, rng: Random) -> bytearray:
    """Change bits of the first stored bytes of a sub-block, where compressed streams have their headers."""
    at = int(rng.choice(_found(data, _SUBBLOCK))) + 32 + 256
    return flip(data, rng, at, at + int(rng.choice([8, 24, 180])))


def _stored(data: bytearray, rng: Random) -> bytearray:
    """Change bits of stored pixels."""
    at = int(rng.choice(_found(data, _SUBBLOCK)))
    used = struct.unpack_from("<q", data, at + 24)[0]
    return flip(data, rng, at + 32 + 256, at + 32 + used)


MUTATIONS: dict[str, Mutation] = {
    "intact": lambda data, _: data,
    "bits anywhere": lambda data, rng: flip(data, rng, 0, len(data)),
    "a byte": byte,
    "truncated": truncated,
    "bytes cut out": cut,
    "bytes inserted": inserted,
    "a sector lost": overwritten,
    "two files": joined(list(BASES), czi_base),
    "something more": appended,
    "the header": _header,
    "a segment's size": _segment,
    "an entry": _entry,
    "a dimension": _dimension,
    "both copies": _agreeing,
    "another side": _sides,
    "entries swapped": _swapped,
    "a stream's start": _stream,
    "stored bits": _stored,
}
