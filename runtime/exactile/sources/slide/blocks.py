"""A level of a slide in blocks of pixels that OpenSlide assembles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.channel_choice import ChannelCopy
from exactile.sources.chunks.cache import ChunkKey
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.grid import ChunkGrid
from exactile.sources.chunks.reader import ChunkForm
from exactile.sources.damage import NOTHING_FILLED, CorruptFilling
from exactile.sources.slide.handle import SlideHandle

BLOCK_SIDE = 1024
"""Pixels a side, rounded to whole tiles of the slide."""

_DECODING_BYTES = 20
"""Bytes for each pixel of a block: OpenSlide's four samples twice, three of our own, and blending."""

_OPAQUE = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideBlocks:
    """Blocks of one level, RGB on the slide's background colour where the slide has missing or transparent pixels."""

    handle: SlideHandle
    level: int
    form: ChunkForm
    pool: DecodePool
    background: tuple[int, int, int]

    @staticmethod
    def of(handle: SlideHandle, level: int, channels: tuple[int, ...], pool: DecodePool) -> SlideBlocks:
        height, width = handle.level_sizes[level]
        rows = min(height, _block_side(handle, level, "height"))
        columns = min(width, _block_side(handle, level, "width"))
        form = ChunkForm(
            grid=ChunkGrid(height=height, width=width, chunk_rows=rows, chunk_columns=columns),
            copies=(ChannelCopy(channels, tuple(range(len(channels)))),),
            samples=3,
            dtype=np.dtype(np.uint8),
            fill=0,
            decoding_bytes=rows * columns * _DECODING_BYTES,
        )
        return SlideBlocks(handle=handle, level=level, form=form, pool=pool, background=_background(handle))

    @property
    def chunks_stored(self) -> int:
        return self.form.grid.rows * self.form.grid.columns

    def decode(self, key: ChunkKey) -> NDArray[Any]:
        pixels = self.handle.read(self.level, self.form.grid.chunk_box(key[1], key[2]))
        return on_background(pixels, self.background)

    @property
    def filling(self) -> CorruptFilling:
        return NOTHING_FILLED

    def failure(self, key: ChunkKey, reason: object) -> SourceError:
        return self.damage(key, reason)

    def damage(self, key: ChunkKey, reason: object) -> SourceError:
        box = self.form.grid.chunk_box(key[1], key[2])
        where = f"level {self.level}, pixels y {box.y.start}:{box.y.stop}, x {box.x.start}:{box.x.stop}"
        return SourceError(f"{self.handle.name}: {where} cannot be read: {reason}; the file is damaged")


def on_background(pixels: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return red, green and blue of ``pixels`` (H, W, 4), not premultiplied, blended with ``background``: (H, W, 3)."""
    colours = np.empty((*pixels.shape[:2], 3), np.uint8)
    opaque = int(pixels[..., 3].min(initial=_OPAQUE)) == _OPAQUE
    alpha = pixels[..., 3].astype(np.uint16)
    # One channel at a time: five times as fast as all three at once.
    for channel, behind in enumerate(background):
        mixed = pixels[..., channel]
        if not opaque:
            weighted = mixed * alpha + np.uint16(behind) * (_OPAQUE - alpha) + np.uint16(_OPAQUE // 2)
            mixed = (weighted // _OPAQUE).astype(np.uint8)
        colours[..., channel] = mixed
    return colours


def _block_side(handle: SlideHandle, level: int, side: str) -> int:
    """Return a multiple of the slide's tiles near BLOCK_SIDE."""
    stated = handle.properties.get(f"openslide.level[{level}].tile-{side}", "")
    tile = int(stated) if stated.isdigit() else 0
    return tile * max(1, BLOCK_SIDE // tile) if 0 < tile <= 2 * BLOCK_SIDE else BLOCK_SIDE


def _background(handle: SlideHandle) -> tuple[int, int, int]:
    """Return the slide's background colour (RRGGBB), white if it has none."""
    stated = handle.properties.get("openslide.background-color", "FFFFFF")
    red, green, blue = bytes.fromhex(stated)
    return red, green, blue
