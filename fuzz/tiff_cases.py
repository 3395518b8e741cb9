"""Damaged TIFF files: what bits, disks, transfers and enemies do to them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache

import imagecodecs
import numpy as np

from fuzz.bytes_damaged import Mutation, Random, cut, inserted, joined, overwritten, truncated
from fuzz.descriptions import DESCRIPTIONS
from fuzz.recipe import Recipe, draw
from fuzz.tiff_bases import BASES, tiff_base
from fuzz.tiff_directory import SIZES, Directory, Entry, Format, directories

OFFSETS, BYTE_COUNTS = (273, 324), (279, 325)
EDGES = (0, 1, 2, 15, 31, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
DESCRIPTION = 270


def tiff_recipe(seed: int) -> Recipe:
    return draw("tiff", list(BASES), list(MUTATIONS), seed)


def tiff_case(recipe: Recipe) -> bytes:
    """Return the file of a recipe."""
    data, rng = bytearray(tiff_base(recipe.base)), recipe.random()
    for mutation in recipe.mutations:
        data = MUTATIONS[mutation](data, rng)
    return bytes(data)


def _pick(items: Sequence, rng: Random):
    return items[int(rng.integers(len(items)))]


def _flip(data: bytearray, rng: Random, positions: Sequence[int]) -> bytearray:
    for _ in range(int(rng.integers(1, 9))):
        if len(positions):
            data[_pick(positions, rng)] ^= 1 << int(rng.integers(8))
    return data


def _in_directories(data: bytearray) -> list[int]:
    """Return bytes of the directories, and of the values that stand elsewhere."""
    found: list[int] = []
    for directory in directories(data):
        found += range(directory.position, min(directory.next_at + 8, len(data)))
        for entry in directory.entries:
            found += range(entry.values_at, min(entry.values_at + entry.count * entry.value_bytes, len(data)))
    return found


def _in_pixels(data: bytearray) -> range:
    """Return bytes of some chunk."""
    form = Format.of(data)
    for directory in directories(data):
        tags = {entry.code: entry for entry in directory.entries}
        offsets = next((tags[code].values(data, form) for code in OFFSETS if code in tags), [])
        sizes = next((tags[code].values(data, form) for code in BYTE_COUNTS if code in tags), [])
        if offsets and len(offsets) == len(sizes):
            index = len(offsets) // 2
            return range(min(offsets[index], len(data)), min(offsets[index] + sizes[index], len(data)))
    return range(0)


def _entry(data: bytearray, rng: Random, codes: Sequence[int] = ()) -> Entry | None:
    """Return some tag, of ``codes`` where given."""
    found = [entry for one in directories(data) for entry in one.entries if not codes or entry.code in codes]
    return _pick(found, rng) if found else None


def _set_value(data: bytearray, entry: Entry, value: int, index: int) -> None:
    size = entry.value_bytes
    at = entry.values_at + size * index
    if 0 <= at <= len(data) - size and size <= 8:
        order = "little" if data[:2] == b"II" else "big"
        data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, order)


def _with_value(*codes: int, values: Sequence[int] = EDGES) -> Mutation:
    """Return a mutation that sets some value of one of the tags ``codes`` to one of ``values``."""

    def mutate(data: bytearray, rng: Random) -> bytearray:
        entry = _entry(data, rng, codes)
        if entry is not None:
            _set_value(data, entry, _pick(values, rng), int(rng.integers(min(entry.count, 1000) or 1)))
        return data

    return mutate


def _huge_picture(data: bytearray, rng: Random) -> bytearray:
    """Change width, height and tile together, so that their table of chunks still fits."""
    size = int(rng.choice([1 << 14, 1 << 16, 1 << 20, (1 << 31) - 16, (1 << 32) - 16]))
    for directory in directories(data)[:1]:
        for entry in directory.entries:
            if entry.code in (256, 257, 278, 322, 323) and rng.random() < 0.8:
                _set_value(data, entry, size, 0)
    return data


def _type(data: bytearray, rng: Random) -> bytearray:
    entry = _entry(data, rng)
    if entry is not None:
        struct.pack_into(Format.of(data).order + "H", data, entry.position + 2, int(rng.integers(0, 20)))
    return data


def _count(data: bytearray, rng: Random) -> bytearray:
    entry, form = _entry(data, rng), Format.of(data)
    if entry is not None:
        value = _pick([*EDGES, entry.count + 1, max(0, entry.count - 1)], rng) % (1 << 8 * form.offset_bytes)
        struct.pack_into(form.offset, data, entry.position + 4, value)
    return data


def _code(data: bytearray, rng: Random) -> bytearray:
    """Change a tag to another one, perhaps one that exists already."""
    entry, other = _entry(data, rng), _entry(data, rng)
    if entry is not None and other is not None:
        code = other.code if rng.random() < 0.5 else int(rng.choice([330, 347, 320, 32997, 34665, 512, 33432, 65420]))
        struct.pack_into(Format.of(data).order + "H", data, entry.position, code)
    return data


def _loop(data: bytearray, rng: Random) -> bytearray:
    """Link the last directory to an earlier one, or to itself."""
    found = directories(data)
    if found:
        form = Format.of(data)
        struct.pack_into(form.offset, data, _pick(found, rng).next_at, _pick(found, rng).position)
    return data


def _appended_entry(data: bytearray, directory: Directory, code: int, kind: int, payload: bytes) -> bytearray:
    """Point ``directory``'s tag ``code``, or its last one, to ``payload`` at the end of the file."""
    form = Format.of(data)
    entry = next((entry for entry in directory.entries if entry.code == code), directory.entries[-1])
    count = len(payload) // SIZES[kind]
    struct.pack_into(form.order + "HH", data, entry.position, code, kind)
    struct.pack_into(form.offset, data, entry.position + 4, count)
    place = entry.position + form.entry_bytes - form.offset_bytes
    if len(payload) <= form.offset_bytes:
        data[place : place + form.offset_bytes] = payload.ljust(form.offset_bytes, b"\0")
        return data
    struct.pack_into(form.offset, data, place, len(data))
    return data + payload


def _sub_loop(data: bytearray, rng: Random) -> bytearray:
    """Add sub-directories that are their own parents, many times over."""
    found = directories(data)
    if not found:
        return data
    form = Format.of(data)
    places = [_pick(found, rng).position for _ in range(int(rng.choice([1, 3, 2000])))]
    payload = b"".join(struct.pack(form.offset, place) for place in places)
    return _appended_entry(data, _pick(found, rng), 330, 18 if form.big else 13, payload)


def _many_directories(data: bytearray, rng: Random) -> bytearray:
    """Add thousands of directories that follow each other, each a copy of the first."""
    found = directories(data)
    if not found:
        return data
    form, first = Format.of(data), found[0]
    copy = bytes(data[first.position : first.next_at])
    place = first.next_at
    for _ in range(int(rng.choice([100, 3000]))):
        struct.pack_into(form.offset, data, place, len(data))
        data += copy + bytes(form.offset_bytes)
        place = len(data) - form.offset_bytes
    return data


def _overlapping(data: bytearray, rng: Random) -> bytearray:
    """Make two chunks share their bytes, wholly or in part."""
    entry = _entry(data, rng, OFFSETS)
    if entry is not None and entry.count > 1:
        values = entry.values(data, Format.of(data))
        shift = int(rng.choice([0, 0, 1, -1, 7]))
        _set_value(data, entry, _pick(values, rng) + shift, int(rng.integers(entry.count)))
    return data


def _described(data: bytearray, rng: Random) -> bytearray:
    found = directories(data)
    if not found:
        return data
    text = _pick(list(DESCRIPTIONS.values()), rng)
    return _appended_entry(data, found[0], DESCRIPTION, 2, text + b"\0")


@cache
def _bomb(codec: str) -> bytes:
    """Return a stream that decodes to much more than any chunk of the bases."""
    block = bytes(64 << 20)
    if codec == "zstd":
        return imagecodecs.zstd_encode(block) * 64
    if codec == "lzw":
        return imagecodecs.lzw_encode(block)
    if codec == "packbits":
        return b"\x81\0" * (1 << 20)
    if codec == "jpeg":
        return imagecodecs.jpeg_encode(np.zeros((8000, 8000), np.uint8), level=10)
    return imagecodecs.zlib_encode(bytes(512 << 20), level=1)


def _replaced_chunk(data: bytearray, rng: Random, stream: bytes) -> bytearray:
    """Replace some chunk by ``stream``, at the end of the file, its size in the table set right."""
    form = Format.of(data)
    offsets, sizes = _entry(data, rng, OFFSETS), _entry(data, rng, BYTE_COUNTS)
    if offsets is None or sizes is None:
        return data
    index = int(rng.integers(min(offsets.count, sizes.count, 1000) or 1))
    _set_value(data, offsets, len(data), index)
    _set_value(data, sizes, len(stream), index)
    if sizes.value_bytes < 4 and form:  # tifffile writes small sizes as 16 bits
        stream = stream[: 2 ** (8 * sizes.value_bytes) - 1]
        _set_value(data, sizes, len(stream), index)
    return data + stream


_CODECS = {8: "zlib", 32946: "zlib", 5: "lzw", 50000: "zstd", 32773: "packbits", 7: "jpeg"}


def _codec(data: bytearray) -> str:
    for directory in directories(data):
        for entry in directory.entries:
            if entry.code == 259:
                value = struct.unpack_from(Format.of(data).order + "H", data, entry.values_at)[0]
                return _CODECS.get(value, "zlib")
    return "zlib"


def _bombed(data: bytearray, rng: Random) -> bytearray:
    return _replaced_chunk(data, rng, _bomb(_codec(data)))


def _bomb_in_a_huge_chunk(data: bytearray, rng: Random) -> bytearray:
    return _huge_picture(_bombed(data, rng), rng)


def _other_jpeg(data: bytearray, rng: Random) -> bytearray:
    """Replace a chunk by a whole JPEG stream of another size, other channels or other precision."""
    rows, columns = (int(n) for n in rng.choice([1, 8, 16, 31, 32, 33, 64], 2))
    shape = (rows, columns) if rng.random() < 0.5 else (rows, columns, 3)
    return _replaced_chunk(data, rng, imagecodecs.jpeg_encode(np.full(shape, 99, np.uint8)))


def _jpeg_markers(data: bytearray, rng: Random) -> bytearray:
    """Change bytes right after the markers of some JPEG stream, where sizes and tables are."""
    places = [at for at in range(len(data) - 12) if data[at] == 0xFF and 0xC0 <= data[at + 1] <= 0xDF]
    if places:
        data[_pick(places, rng) + int(rng.integers(1, 12))] = int(rng.integers(256))
    return data


def _other_start(data: bytearray, rng: Random) -> bytearray:
    """Move the first directory elsewhere."""
    form = Format.of(data)
    struct.pack_into(form.offset, data, 8 if form.big else 4, int(rng.integers(0, 2 * len(data))))
    return data


def _values(data: bytearray, rng: Random) -> bytearray:
    """Write a random number into a random tag."""
    return _with_value(values=[*EDGES, int(rng.integers(1 << 16)), int(rng.integers(100))])(data, rng)


def _safe(mutation: Mutation) -> Mutation:
    """Return ``mutation`` so that the file stays unchanged if an earlier mutation left nothing to aim at."""

    def mutate(data: bytearray, rng: Random) -> bytearray:
        try:
            return mutation(data, rng)
        except (struct.error, ValueError, IndexError):
            return data

    return mutate


MUTATIONS: dict[str, Mutation] = {
    name: _safe(mutation)
    for name, mutation in {
        "intact": lambda data, _: data,
        "bits anywhere": lambda data, rng: _flip(data, rng, range(len(data))),
        "bits of the header": lambda data, rng: _flip(data, rng, range(min(16, len(data)))),
        "bits of the directories": lambda data, rng: _flip(data, rng, _in_directories(data)),
        "bits of a chunk": lambda data, rng: _flip(data, rng, _in_pixels(data)),
        "truncated": truncated,
        "bytes cut out": lambda data, rng: cut(data, rng, 200),
        "bytes inserted": lambda data, rng: inserted(data, rng, 200),
        "a sector lost": lambda data, rng: overwritten(data, rng, (16, 512, 4096)),
        "another start": _other_start,
        "two files": joined(list(BASES), tiff_base),
        "image size": _with_value(256, 257),
        "chunk size": _with_value(322, 323, 278),
        "a huge picture": _huge_picture,
        "chunk offset": _with_value(*OFFSETS),
        "byte count": _with_value(*BYTE_COUNTS),
        "overlapping chunks": _overlapping,
        "samples": _with_value(258, 277, 284, 338, 339, values=[0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 255, 65535]),
        "compression": _with_value(259, values=[0, 1, 2, 3, 4, 5, 6, 7, 8, 34676, 34887, 34892, 34925, 50000, 50001]),
        "colours": _with_value(262, 266, 317, 530, values=[0, 1, 2, 3, 4, 5, 6, 8, 9, 32803, 65535]),
        "any value": _values,
        "tag type": _type,
        "tag count": _count,
        "tag code": _code,
        "directory loop": _loop,
        "sub-directory loop": _sub_loop,
        "many directories": _many_directories,
        "description": _described,
        "bomb": _bombed,
        "bomb in a huge chunk": _bomb_in_a_huge_chunk,
        "another JPEG": _other_jpeg,
        "JPEG markers": _jpeg_markers,
    }.items()
}
