"""The graph of a pass for GPUs, and the sizes of the maps that it reduces."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from exactile.errors import PlanError

COLUMNS = "exactile_columns_"
"""Prefix of the graph inputs for masks, followed by a number: float32 (bins, columns of the map), 1 for a column in the
zone and in the bin, else 0.
"""


@dataclass(frozen=True, slots=True)
class MapLine:
    """A map has ``size * scale + constant`` rows (or columns) for an image or tile of ``size`` pixels.

    ``constants`` are (remainder, constant) for accepted sizes modulo ``stride``.
    """

    scale: Fraction
    stride: int
    constants: tuple[tuple[int, Fraction], ...]

    def size(self, px: int) -> int:
        """Return the length for ``size``. Raises PlanError for unknown sizes."""
        for remainder, constant in self.constants:
            if px % self.stride == remainder:
                return int(px * self.scale + constant)
        raise PlanError(
            f"how large maps are for {px} pixels is not known; convert the model for images of this size, or run it "
            "with --device cpu"
        )

    def before(self, px: int) -> int:
        """Return the rows (or columns) of the map before a position in pixels that is a multiple of the stride."""
        return px * self.scale.numerator // self.scale.denominator


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePass:
    """The graph of a pass for GPUs; ``maps`` are the lines of rows and of columns of each statistic's map.

    It takes a tile, and masks of columns by inputs called ``COLUMNS`` and a number; it gives ``PARTIALS``, float32
    (L,): of each statistic one after the other (bins along x, C, rows of the map): of each row the sum or extreme of
    its columns; for moments (3, C, rows): the row's mean m, the sum of x - m and that of (x - m)^2.
    """

    graph: bytes
    maps: tuple[tuple[MapLine, MapLine], ...]


def width_name(mask: str) -> str:
    """Return the dimension of columns of the input ``mask``."""
    return f"{mask}_width"
