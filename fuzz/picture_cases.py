"""Damaged pictures: bits, disks, transfers, and headers that lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np

from fuzz.picture_bases import BASES, picture_base
from fuzz.recipe import Recipe, draw

Random = np.random.Generator
Mutation = Callable[[bytearray, Random], bytearray]

SIZES = (0, 1, 2, 44, 46, 61, 63, 255, 256, 4096, 16383, 20000, 65535, 65536, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
HEADER_BYTES = 80


def picture_recipe(seed: int) -> Recipe:
    return draw("picture", list(BASES), list(MUTATIONS), seed)


def picture_case(recipe: Recipe) -> bytes:
    """The file of a recipe."""
    data, rng = bytearray(picture_base(recipe.base)), recipe.random()
    for mutation in recipe.mutations:
        try:
            data = MUTATIONS[mutation](data, rng)
        except (struct.error, ValueError, IndexError):  # an earlier mutation left nothing to aim at
            continue
    return bytes(data)


def _flip(data: bytearray, rng: Random, stop: int) -> bytearray:
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(min(stop, len(data))))] ^= 1 << int(rng.integers(8))
    return data


def _byte(data: bytearray, rng: Random) -> bytearray:
    data[int(rng.integers(len(data)))] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))]))
    return data


def _truncated(data: bytearray, rng: Random) -> bytearray:
    return data[: int(rng.integers(len(data) + 1))]


def _cut(data: bytearray, rng: Random) -> bytearray:
    start = int(rng.integers(len(data)))
    del data[start : start + int(rng.integers(1, 100))]
    return data


def _inserted(data: bytearray, rng: Random) -> bytearray:
    start = int(rng.integers(len(data)))
    data[start:start] = rng.bytes(int(rng.integers(1, 100)))
    return data


def _overwritten(data: bytearray, rng: Random) -> bytearray:
    start, length = int(rng.integers(len(data))), int(rng.choice([16, 64, 512]))
    end = min(len(data), start + length)
    data[start:end] = bytes(end - start) if rng.random() < 0.5 else rng.bytes(end - start)
    return data


def _joined(data: bytearray, rng: Random) -> bytearray:
    """The beginning of this picture and the end of another."""
    other = picture_base(list(BASES)[int(rng.integers(len(BASES)))])
    cut = int(rng.integers(min(len(data), len(other))))
    return data[:cut] + other[cut:]


def _appended(data: bytearray, rng: Random) -> bytearray:
    return data + rng.bytes(int(rng.integers(1, 3000)))


def _size_at(data: bytearray) -> tuple[str, list[int]]:
    """How a size is packed, and where."""
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
    """A size in the header is another; the checksum of PNG's header is right."""
    form, places = _size_at(data)
    value = SIZES[int(rng.integers(len(SIZES)))] % (1 << 8 * struct.calcsize(form))
    struct.pack_into(form, data, places[int(rng.integers(len(places)))], value)
    return _summed(data)


def _colours(data: bytearray, rng: Random) -> bytearray:
    """Bits, colours, components and codings of the header."""
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
        return _flip(data, rng, 40)
    return _summed(data)


def _summed(data: bytearray) -> bytearray:
    if data[:4] == b"\x89PNG":
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return data


def _checksums(data: bytearray, rng: Random) -> bytearray:
    """Bits of a PNG picture, with checksums that are right again."""
    if data[:4] != b"\x89PNG":
        return _flip(data, rng, len(data))
    data = bytearray(_flip(data, rng, len(data)))
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
    "bits anywhere": lambda data, rng: _flip(data, rng, len(data)),
    "bits of the header": lambda data, rng: _flip(data, rng, HEADER_BYTES),
    "bits with checksums": _checksums,
    "a byte": _byte,
    "truncated": _truncated,
    "bytes cut out": _cut,
    "bytes inserted": _inserted,
    "a sector lost": _overwritten,
    "two files": _joined,
    "something more": _appended,
    "a size": _sizes,
    "colours and bits": _colours,
}
