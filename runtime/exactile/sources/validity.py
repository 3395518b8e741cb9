"""Masks of valid pixels that come with an image: of the same size, 0 where there is no data."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.geometry import Box, Span
from exactile.sources.protocol import Source

BLOCK_ROWS = 256


class ValidMask(Protocol):
    """An image of one channel; a source is one."""

    height: int
    width: int
    dtype: np.dtype[Any]

    def read(self, box: Box, out: NDArray[Any]) -> None:
        """Fill ``out`` (H, W, 1)."""

    def close(self) -> None:
        """Release the file."""


@runtime_checkable
class HasMasks(Protocol):
    """A source whose file may hold masks."""

    height: int
    width: int

    def open_masks(self) -> tuple[ValidMask, ...]:
        """Return the masks, each to be closed by the caller. Raises SourceError."""


def open_masks(source: object) -> tuple[ValidMask, ...]:
    """Return the masks of ``source``. Raises SourceError if one is of another size."""
    if not isinstance(source, HasMasks):
        return ()
    masks = source.open_masks()
    for mask in masks:
        if (mask.height, mask.width) != (source.height, source.width):
            for opened in masks:
                opened.close()
            raise SourceError(
                f"the file's mask of valid pixels has {mask.height} x {mask.width} pixels, its image {source.height} x "
                f"{source.width}"
            )
    return masks


class BitMask:
    """A mask in memory, one bit a pixel: where ``source``, of one channel, is not 0. ``source`` is closed."""

    def __init__(self, source: Source) -> None:
        self.height, self.width, self.dtype = source.height, source.width, np.dtype(np.uint8)
        self._bits = np.empty((self.height, -(-self.width // 8)), np.uint8)
        try:
            for start in range(0, self.height, BLOCK_ROWS):
                rows = Span(start, min(start + BLOCK_ROWS, self.height))
                block = np.empty((rows.length, self.width, 1), source.dtype)
                source.read(Box(rows, Span(0, self.width)), block)
                self._bits[rows.start : rows.stop] = np.packbits(block[..., 0] != 0, axis=1)
        finally:
            source.close()

    def read(self, box: Box, out: NDArray[Any]) -> None:
        rows = np.unpackbits(self._bits[box.y.start : box.y.stop], axis=1, count=self.width)
        out[..., 0] = rows[:, box.x.start : box.x.stop]

    def close(self) -> None:
        """Nothing to close."""
