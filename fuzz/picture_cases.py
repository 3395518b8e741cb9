"""Damaged pictures: bits, disks, transfers, and headers that lie."""

from __future__ import annotations

import struct
import zlib

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
from fuzz.picture_bases import BASES, picture_base
from fuzz.recipe import Recipe, draw

SIZES = (0, 1, 2, 44, 46, 61, 63, 255, 256, 4096, 16383, 20000, 65535, 65536, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
HEADER_BYTES = 80


def picture_recipe(seed: int) -> Recipe:
    return draw("picture", list(BASES), list(MUTATIONS), seed)


def picture_case(recipe: Recipe) -> bytes:
    """Return the file of a recipe."""
    return damaged(picture_base(recipe.base), recipe, MUTATIONS)


def _size_at(data: bytearray) -> tuple[str, list[int]]:
    """Return how a size is packed, and where."""
    if data[:4] == b"\x89PNG":
        return ">I", [16, 20]
    if data[:2] == b"\xff\xd8":
        frames = [at for at in range(len(data) - 9) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC1, 0xC2)]
        return ">H", [frames[0] + 5, frames[0] + 7]
    if data[:2] == b"BM":
        return "<I", [2, 10, 14, 18, 22, 34, 46]
    if b"\xff\x4f\xff\x51" in data:
        start = data.index(b"\xff\x4f\xff\x51")
        return ">I", [start + 8 + 4 * number for number in range(8)]
    if data[:4] == b"RIFF":
        return "<H", [24, 26, 27, 30] if data[12:16] != b"VP8L" else [21, 23]
    return "<H", [2, 3, 4]


def _sizes(data: bytearray, rng: Random) -> bytearray:
    """Change a size in the header; the checksum of PNG's header is right."""
    form, places = _size_at(data)
    value = SIZES[int(rng.integers(len(SIZES)))] % (1 << 8 * struct.calcsize(form))
    struct.pack_into(form, data, places[int(rng.integers(len(places)))], value)
    return _summed(data)


def _colours(data: bytearray, rng: Random) -> bytearray:
    """Change bits, colours, components and codings of the header."""
    if data[:4] == b"\x89PNG":
        data[24 + int(rng.integers(5))] = int(rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255]))
    elif data[:2] == b"BM":
        data[int(rng.choice([26, 28, 30, 46, 14]))] = int(rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 24, 32, 40, 108, 124]))
    elif data[:2] == b"\xff\xd8":
        at = _size_at(data)[1][0] + int(rng.choice([-4, -1, 4, 5, 6, 7, 8, 9]))
        data[at] = int(rng.choice([0, 1, 2, 3, 4, 8, 12, 16, 0x11, 0x22, 0x44, 0xC0, 0xC1, 0xC2, 0xC3, 255]))
    elif b"\xff\x4f\xff\x51" in data:
        start = data.index(b"\xff\x4f\xff\x51")
        data[start + 40 + int(rng.integers(2, 12))] = int(rng.choice([0, 1, 2, 3, 4, 7, 8, 11, 15, 0x87, 37, 255]))
    else:
        return flip(data, rng, 0, 40)
    return _summed(data)


def _summed(data: bytearray) -> bytearray:
    if data[:4] == b"\x89PNG":
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return data


def _checksums(data: bytearray, rng: Random) -> bytearray:
    """Change bits of a PNG picture, with checksums that are right again."""
    if data[:4] != b"\x89PNG":
        return flip(data, rng, 0, len(data))
    data = bytearray(flip(data, rng, 0, len(data)))
    at = 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        if at + 12 + length > len(data):
            break
        data[at + 8 + length : at + 12 + length] = struct.pack(">I", zlib.crc32(data[at + 4 : at + 8 + length]))
        at += 12 + length
    return data


MUTATIONS: dict[str, Mutation] = {
    "intact": lambda data, _: data,
    "bits anywhere": lambda data, rng: flip(data, rng, 0, len(data)),
    "bits of the header": lambda data, rng: flip(data, rng, 0, HEADER_BYTES),
    "bits with checksums": _checksums,
    "a byte": byte,
    "truncated": truncated,
    "bytes cut out": cut,
    "bytes inserted": inserted,
    "a sector lost": overwritten,
    "two files": joined(list(BASES), picture_base),
    "something more": appended,
    "a size": _sizes,
    "colours and bits": _colours,
}
