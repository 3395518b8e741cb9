"""A builder of CZI files with full control over sub-blocks, for what pylibCZIrw's own writer does not write."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np

PIXEL_TYPES = {("uint8", 1): 0, ("uint16", 1): 1, ("float32", 1): 2, ("uint8", 3): 3, ("uint16", 3): 4}
COMPRESSIONS = {"none": 0, "jpeg": 1, "jpegxr": 4, "zstd0": 5, "zstd1": 6, "packed": 6}

SCALING = (
    "<ImageDocument><Metadata><Scaling><Items>"
    '<Distance Id="X"><Value>{x}</Value></Distance><Distance Id="Y"><Value>{y}</Value></Distance>'
    "</Items></Scaling></Metadata></ImageDocument>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A sub-block: ``pixels`` (H, W) or (H, W, 3), red first, at ``x``, ``y``; ``scale`` of its level.

    ``at`` are its coordinates by letter; ``data`` are its stored bytes, ``logical`` (height, width) what it says to
    cover, ``pixel_type`` its number, where they are not those of ``pixels``.
    """

    pixels: np.ndarray
    x: int = 0
    y: int = 0
    scale: int = 1
    at: Mapping[str, int] = field(default_factory=dict)
    compression: str = "none"
    data: bytes | None = None
    logical: tuple[int, int] | None = None
    pixel_type: int | None = None
    part: int = 0

    def stored(self) -> bytes:
        """The bytes of its pixels."""
        if self.data is not None:
            return self.data
        pixels = self.pixels
        if self.compression == "jpegxr":
            return jpegxr(pixels)
        raw = np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels).tobytes()
        if self.compression == "packed":
            halves = np.frombuffer(raw, np.uint8).reshape(-1, 2).T.tobytes()
            return b"\x03\x01\x01" + imagecodecs.zstd_encode(halves)
        if self.compression.startswith("zstd"):
            return b"\x01" * (self.compression == "zstd1") + imagecodecs.zstd_encode(raw)
        return raw

    def entry(self, position: int) -> bytes:
        """Its entry in the directory."""
        height, width = self.pixels.shape[:2]
        tall, wide = self.logical or (height * self.scale, width * self.scale)
        samples = 3 if self.pixels.ndim == 3 else 1
        kind = PIXEL_TYPES[self.pixels.dtype.name, samples] if self.pixel_type is None else self.pixel_type
        dimensions = [("X", self.x, wide, width), ("Y", self.y, tall, height)]
        dimensions += [(letter, start, 1, 1) for letter, start in self.at.items()]
        head = b"DV" + struct.pack(
            "<iqii6si", kind, position, self.part, COMPRESSIONS[self.compression], b"", len(dimensions)
        )
        return head + b"".join(
            struct.pack("<4siifi", letter.encode(), start, size, 0.0, stored)
            for letter, start, size, stored in dimensions
        )


def jpegxr(pixels: np.ndarray) -> bytes:
    """Lossless; colours with the pixel format that CZI files have."""
    data = bytearray(imagecodecs.jpegxr_encode(pixels, level=100))
    if pixels.ndim == 3 and pixels.dtype == np.uint8:
        data[data.index(bytes.fromhex("24c3dd6f034efe4bb1853d77768dc9")) + 15] = 0x0C
    return bytes(data)


def write_czi(
    path: Path,
    blocks: Sequence[Block],
    *,
    metadata: str | None = None,
    pending: int = 0,
    part: int = 0,
    entries: bytes | None = None,
) -> Path:
    """A file of ``blocks``, their directory (or the bytes of ``entries``), and metadata."""
    path.write_bytes(czi_bytes(blocks, metadata=metadata, pending=pending, part=part, entries=entries))
    return path


def czi_bytes(
    blocks: Sequence[Block],
    *,
    metadata: str | None = None,
    pending: int = 0,
    part: int = 0,
    entries: bytes | None = None,
) -> bytes:
    """What ``write_czi`` writes."""
    body, listed, at = bytearray(), bytearray(), 32 + 512
    for block in blocks:
        entry, data = block.entry(at + len(body)), block.stored()
        listed += entry
        head = (struct.pack("<iiq", 0, 0, len(data)) + entry).ljust(256, b"\0")
        body += _segment(b"ZISRAWSUBBLOCK", head + data)
    metadata_at = at + len(body) if metadata is not None else 0
    if metadata is not None:
        xml = metadata.encode()
        body += _segment(b"ZISRAWMETADATA", struct.pack("<ii", len(xml), 0).ljust(256, b"\0") + xml)
    directory_at = at + len(body)
    listed = listed if entries is None else bytearray(entries)
    body += _segment(b"ZISRAWDIRECTORY", struct.pack("<i", len(blocks)).ljust(128, b"\0") + bytes(listed))
    header = struct.pack("<iiii32siqqiq", 1, 0, 0, 0, b"", part, directory_at, metadata_at, pending, 0)
    return _segment(b"ZISRAWFILE", header.ljust(512, b"\0")) + bytes(body)


def _segment(name: bytes, data: bytes) -> bytes:
    allocated = -(-len(data) // 32) * 32
    return name.ljust(16, b"\0") + struct.pack("<qq", allocated, len(data)) + data.ljust(allocated, b"\0")
