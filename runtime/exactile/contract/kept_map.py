"""Descriptions of maps that are kept between passes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from exactile.geometry import AxisGeometry


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptMap:
    """A feature map that one pass writes and later ones read: graph output ``output``, graph input ``input``.

    ``shape`` has None for rows and columns: ``size * scale + constant`` of them, for images of ``size`` pixels along
    the axis; rows come first, or columns. A tile has the part of them that its own size makes.
    """

    output: str
    input: str
    dtype: str
    shape: tuple[int | None, ...]
    scale: tuple[Fraction, Fraction]
    constant: tuple[Fraction, Fraction]
    rows_first: bool = True

    @property
    def axes(self) -> tuple[int, int]:
        """The dimensions of rows and of columns."""
        first, second = (dim for dim, size in enumerate(self.shape) if size is None)
        return (first, second) if self.rows_first else (second, first)

    @property
    def names(self) -> tuple[str, str]:
        """The names of the dimensions of rows and of columns in graphs."""
        return f"{self.input}_rows", f"{self.input}_columns"

    @property
    def dims(self) -> tuple[int | str, ...]:
        """The shape of the input, with names."""
        named = dict(zip(self.axes, self.names, strict=True))
        return tuple(named[dim] if size is None else size for dim, size in enumerate(self.shape))

    def sizes_at(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return rows and columns, for an image or tile of ``size``, (height, width)."""
        rows, columns = (
            int(px * scale + more) for px, scale, more in zip(size, self.scale, self.constant, strict=True)
        )
        return rows, columns

    def shape_at(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape for an image or tile of ``size``, (height, width)."""
        found = dict(zip(self.axes, self.sizes_at(size), strict=True))
        return tuple(found[dim] if size is None else size for dim, size in enumerate(self.shape))

    def bytes_at(self, size: tuple[int, int]) -> int:
        return math.prod(self.shape_at(size)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAlong:
    """The passes along one axis for images of one remainder modulo the network's stride.

    ``geometry`` is that of each pass, that of the result the last; ``constants`` are those of kept maps, by output.
    """

    geometry: tuple[AxisGeometry, ...]
    constants: Mapping[str, Fraction]

    def extended(self, stride: int, remainder: int) -> KeptAlong:
        """Return the same for images that are extended to a size of ``remainder`` modulo the network's ``stride``.

        The pass of a shorter stride would extend them to another size.
        """
        *zones, result = self.geometry
        longer = [replace(one, stride=stride, remainder=remainder, size_constant=Fraction(stride)) for one in zones]
        return replace(self, geometry=(*longer, replace(result, stride=stride, remainder=remainder)))
