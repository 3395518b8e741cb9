"""Palette images of TIFF as RGB."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.tiff.choice import ChosenPages
from exactile.sources.tiff.layout import ChunkPlane

PALETTE = 3
"""The photometric interpretation of palette images."""


def palette_of(chosen: ChosenPages, name: str) -> NDArray[Any]:
    """Return the colours, (numbers, 3): uint8 if the table holds 8 bits, in any of the ways they are stored, else
    uint16.

    Raises SourceError if there is no table, or samples are not indices of its colours.
    """
    keyframe = chosen.keyframe
    table, bits = keyframe.colormap, keyframe.bitspersample
    if table is None or len(chosen.pages) != 1 or keyframe.shaped[4] != 1 or keyframe.shaped[0] != 1 or bits > 16:
        raise SourceError(
            f"{name}: its samples are numbers of palette colours, but it is not one page with a table of colours;"
            " convert the image to RGB or grey"
        )
    colors = np.ascontiguousarray(np.asarray(table, np.uint16).T)
    if colors.shape != (1 << bits, 3):
        raise SourceError(
            f"{name}: has a damaged structure: {colors.shape[0]} palette colours for samples of {bits} bits"
        )
    return as_stored(colors)


def as_stored(colors: NDArray[np.uint16]) -> NDArray[Any]:
    """Return a table's colours as uint8 if they are 8 bits, in any of the ways that these are stored."""
    if not (colors % 257).any():
        return (colors // 257).astype(np.uint8)
    if not (colors % 256).any():
        return (colors // 256).astype(np.uint8)
    # Tables of 8 bits despite the specification; libtiff accepts them, too.
    return colors.astype(np.uint8) if colors.max() < 256 else colors


def colored(plane: ChunkPlane, colors: NDArray[Any], name: str) -> ChunkPlane:
    """Return ``plane``, decoded to RGB. Raises SourceError if chunks are missing, whose colour is not known."""
    if not plane.sizes_bytes.all():
        raise SourceError(f"{name}: some chunks of this palette image are not stored; convert it to RGB or grey")
    numbers = plane.decode

    def decode(data: bytes, index: int) -> NDArray[Any]:
        return colors[numbers(data, index)[:, :, 0]]

    return replace(plane, decode=decode)
