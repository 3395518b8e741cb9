"""The types of samples that CZI files have, and which of them are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelKind:
    """``name`` is pylibCZIrw's; ``samples`` a pixel, those of colours stored blue, green, red."""

    name: str
    dtype: np.dtype[Any]
    samples: int

    @property
    def pixel_bytes(self) -> int:
        return self.samples * self.dtype.itemsize


READ = {
    0: PixelKind(name="Gray8", dtype=np.dtype(np.uint8), samples=1),
    1: PixelKind(name="Gray16", dtype=np.dtype(np.uint16), samples=1),
    2: PixelKind(name="Gray32Float", dtype=np.dtype(np.float32), samples=1),
    3: PixelKind(name="Bgr24", dtype=np.dtype(np.uint8), samples=3),
    4: PixelKind(name="Bgr48", dtype=np.dtype(np.uint16), samples=3),
}
"""By their number in the file."""

_OTHERS = {
    8: "Bgr96Float",
    9: "Bgra32",
    10: "Gray64ComplexFloat",
    11: "Bgr192ComplexFloat",
    12: "Gray32",
    13: "Gray64Float",
}


def kind_name(number: int) -> str:
    """Return the format's name of a sample type."""
    return READ[number].name if number in READ else _OTHERS.get(number, f"of the unknown type {number}")
