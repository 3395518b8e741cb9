"""Judge what ``CziSource`` makes of a damaged CZI file, by a reader of the format's specification, and by the library.

The reader accepts a sub-block only if all of its pixels are stored as they should be, so that pixels which the library
made up are failures. JPEG XR has no checksums: a damaged stream is judged by the library's whole reading alone.
"""

from __future__ import annotations

import struct
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np

from exactile.errors import ExactileError
from exactile.geometry import Box, Span
from exactile.sources.open import open_source
from fuzz.outcome import Outcome, judge_message

NAME = "image.czi"
BUDGET_BYTES = 256 << 20
"""What reading may need; beyond, a run is refused before it is read."""

_TYPES = {0: ("u1", 1), 1: ("<u2", 1), 2: ("<f4", 1), 3: ("u1", 3), 4: ("<u2", 3)}


def read_case(path: Path, level: int) -> np.ndarray | str | Outcome:
    """Return pixels (H, W, C); the message of an error; or what went wrong."""
    try:
        with closing(open_source(path, workers=1, level=level)) as source:
            pixels = source.height * source.width * source.channels * source.dtype.itemsize
            if pixels > BUDGET_BYTES:
                return f"{path}: has {pixels} bytes of pixels, which are not compared"
            out = np.empty((source.height, source.width, source.channels), source.dtype)
            source.read(Box(Span(0, source.height), Span(0, source.width)), out)
            return out
    except ExactileError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return Outcome(verdict="failure", detail=f"{type(error).__name__}: {str(error)[:300]}")


def judge(path: Path, found: np.ndarray | str | Outcome, level: int) -> Outcome:
    """Compare ``found`` with what the file holds."""
    if isinstance(found, Outcome):
        return found
    if isinstance(found, str):
        return judge_message(found, path.name)
    try:
        blocks = _blocks(path.read_bytes())
        expected = _painted(blocks, 1 << level, found.shape)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the file
        return Outcome(verdict="failure", detail=f"read, but by the format {type(error).__name__}: {error!s:.200}")
    if found.shape != expected.shape or found.dtype != expected.dtype:
        detail = f"{found.shape} {found.dtype}, but by the format it is {expected.shape} {expected.dtype}"
        return Outcome(verdict="failure", detail=detail)
    if np.array_equal(found, expected, equal_nan=found.dtype.kind == "f"):
        return Outcome(verdict="right")
    if any(block.compression == 4 for block in blocks):
        return _as_library(path, found)
    return Outcome(verdict="failure", detail=f"{np.count_nonzero(found != expected)} samples differ from the format's")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    at: dict[str, int]
    covered: dict[str, tuple[int, int]]
    stored: tuple[int, int]
    kind: int
    compression: int
    file: bytes
    position: int

    def is_of(self, factor: int) -> bool:
        """Return whether it is of the level that is ``factor`` times smaller."""
        return (self.covered["Y"][1], self.covered["X"][1]) == (self.stored[0] * factor, self.stored[1] * factor)


def _blocks(data: bytes) -> list[_Block]:
    at = struct.unpack_from("<q", data, 84)[0] + 32
    count = struct.unpack_from("<i", data, at)[0]
    found, at = [], at + 128
    for _ in range(count):
        kind, position, _, compression, dimensions = struct.unpack_from("<iqii6xi", data, at + 2)
        entries = [struct.unpack_from("<cxxxiifi", data, at + 32 + 20 * n) for n in range(dimensions)]
        named = {letter.decode().upper(): (start, size, stored) for letter, start, size, _, stored in entries}
        found.append(
            _Block(
                at={letter: start for letter, (start, _, _) in named.items() if letter not in "XY"},
                covered={letter: named[letter][:2] for letter in "XY"},
                stored=(named["Y"][2], named["X"][2]),
                kind=kind,
                compression=compression,
                file=data,
                position=position,
            )
        )
        at += 32 + 20 * dimensions
    return found


def _painted(blocks: list[_Block], factor: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the first scene, by the order of M, as (H, W, C)."""
    scene = min((b.at["S"] for b in blocks if "S" in b.at and b.is_of(1)), default=None)
    wanted = [b for b in blocks if scene is None or b.at.get("S", scene) == scene]
    full = [b for b in wanted if b.is_of(1)]
    y0, x0 = (min(b.covered[axis][0] for b in full) for axis in "YX")
    channels = sorted({b.at["C"] for b in blocks if "C" in b.at}) or [None]
    dtype, samples = _TYPES[full[0].kind]
    image = np.zeros((shape[0], shape[1], samples * len(channels)), dtype)
    extent = [max(sum(b.covered[axis]) for b in full) - first for axis, first in (("Y", y0), ("X", x0))]
    if factor == 1 and tuple(extent) != shape[:2]:
        raise ValueError(f"it has {extent} pixels, not {shape[:2]}")
    for block in sorted(wanted, key=lambda b: b.at.get("M", -1)):
        if not block.is_of(factor) or (len(channels) > 1 and "C" not in block.at):
            continue
        first = samples * channels.index(block.at.get("C")) if len(channels) > 1 else 0
        y, x = ((block.covered[axis][0] - start) // factor for axis, start in (("Y", y0), ("X", x0)))
        part = image[y : y + block.stored[0], x : x + block.stored[1], first : first + samples]
        part[...] = _decoded(block)[: part.shape[0], : part.shape[1]]
    return image.astype(image.dtype.newbyteorder("="))


def _stored(file: bytes, position: int) -> bytes:
    """Return the bytes of a sub-block's pixels."""
    if file[position : position + 14] != b"ZISRAWSUBBLOCK":
        raise ValueError(f"no sub-block at {position}")
    metadata, _, size = struct.unpack_from("<iiq", file, position + 32)
    dimensions = struct.unpack_from("<i", file, position + 32 + 16 + 28)[0]
    first = position + 32 + max(256, 48 + 20 * dimensions) + metadata
    if len(file) < first + size:
        raise ValueError("cut off")
    return file[first : first + size]


def _decoded(block: _Block) -> np.ndarray:
    data = _stored(block.file, block.position)
    dtype, samples = _TYPES[block.kind]
    shape = (*block.stored, samples)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if block.compression == 4:
        pixels = imagecodecs.jpegxr_decode(data).reshape(shape)
        return pixels if samples == 1 or dtype != "u1" else pixels[..., ::-1]
    raw, packed = data, False
    if block.compression == 6:
        packed = raw[0] == 3 and bool(raw[2] & 1)
        raw = raw[3 if raw[0] == 3 else 1 :]
    if block.compression in (5, 6):
        raw = imagecodecs.zstd_decode(raw)
        if len(raw) != size:
            raise ValueError(f"{len(raw)} bytes instead of {size}")
    if packed:
        raw = np.frombuffer(raw, np.uint8).reshape(2, -1).T.tobytes()
    if len(raw) < size:
        raise ValueError(f"{len(raw)} bytes instead of {size}")
    pixels = np.frombuffer(raw[:size], dtype).reshape(shape)
    return pixels[..., ::-1]


def _as_library(path: Path, found: np.ndarray) -> Outcome:
    """Accept what the library reads, for JPEG XR that another decoder reads differently."""
    from pylibCZIrw import czi

    with czi.open_czi(str(path)) as reader:
        scenes = reader.scenes_bounding_rectangle_no_pyramid
        scene = min(scenes, default=None)
        roi = reader.total_bounding_rectangle_no_pyramid if scene is None else scenes[scene]
        expected = np.array(reader.read(roi=roi, scene=scene))[..., ::-1]
    if np.array_equal(found, expected):
        return Outcome(verdict="right", detail="as the library decodes damaged JPEG XR")
    return Outcome(verdict="failure", detail=f"{np.count_nonzero(found != expected)} samples differ from the library's")
