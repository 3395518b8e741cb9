"""Pixel sizes, and the level of a pyramid with a wanted pixel size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from exactile.errors import OptionError
from exactile.sources.image_choice import ImageChoice, check_number

PixelSize = tuple[float, float]
"""Height and width of a pixel in micrometres."""

TOLERANCE = 0.05
"""A level matches the requested microns per pixel if both sides of its pixels are within this fraction."""

_MICRONS = {
    "m": 1e6, "meter": 1e6, "metre": 1e6,
    "cm": 1e4, "centimeter": 1e4,
    "mm": 1e3, "millimeter": 1e3,
    "um": 1.0, "micrometer": 1.0, "micron": 1.0, "microns": 1.0,
    "nm": 1e-3, "nanometer": 1e-3,
    "pm": 1e-6, "picometer": 1e-6,
    "å": 1e-4, "angstrom": 1e-4,
    "in": 25400.0, "inch": 25400.0,
}  # fmt: skip


def to_microns(value: float, unit: str | None) -> float | None:
    """Return ``value`` of ``unit`` (a symbol or an English name) in micrometres; None if the unit is not a known
    length.
    """
    # The micro sign and the Greek letter mu are both in use, and ImageJ writes the sign as an escape.
    symbol = (unit or "").strip().lower().replace("\\u00b5", "u").replace("\u00b5", "u").replace("\u03bc", "u")
    factor = _MICRONS.get(symbol)
    return None if factor is None else value * factor


def pixel_size(height: float | None, width: float | None) -> PixelSize | None:
    """Return both sides together; None unless both are positive numbers."""
    if height is None or width is None:
        return None
    usable = all(math.isfinite(side) and side > 0 for side in (height, width))
    return (float(height), float(width)) if usable else None


def scaled(size: PixelSize | None, full: tuple[int, int], level: tuple[int, int]) -> PixelSize | None:
    """Return the pixel size of a level of ``level`` (H, W) pixels, if ``full`` (H, W) pixels of ``size`` cover the
    same.
    """
    return size and pixel_size(size[0] * full[0] / level[0], size[1] * full[1] / level[1])


def choose_level(choice: ImageChoice, sizes: Sequence[PixelSize | None], name: str) -> int:
    """Return the number of the level that ``choice`` means, among levels of pixels of ``sizes``.

    Raises OptionError for a level that does not exist, or when no level is within TOLERANCE of ``choice.mpp``.
    """
    if choice.mpp is None:
        return check_number(choice.level, len(sizes), "level", name)
    known = {number: size for number, size in enumerate(sizes) if size is not None}
    if not known:
        raise OptionError(
            f"{name}: {choice.mpp:g} microns per pixel were requested, but the file does not say how large its pixels"
            " are; choose a level by its number (--level)"
        )
    best = min(known, key=lambda number: _deviation(known[number], choice.mpp or 1.0))
    if _deviation(known[best], choice.mpp) > TOLERANCE:
        found = ", ".join(f"level {number} has {_shown(size)}" for number, size in known.items())
        raise OptionError(
            f"{name}: {choice.mpp:g} microns per pixel were requested, but no level is within {TOLERANCE:.0%}: {found};"
            " choose one of these, pixels are never resampled"
        )
    return best


def _deviation(size: PixelSize, mpp: float) -> float:
    return max(abs(side / mpp - 1) for side in size)


def _shown(size: PixelSize) -> str:
    height, width = (f"{side:.4g}" for side in size)
    return height if height == width else f"{height} x {width} (height x width)"
