"""Parse the command line's description of background."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exactile.errors import OptionError
from exactile.geometry import Box, Span
from exactile.plan.background import LARGEST_MASK_PIXELS, Background, Mask, Threshold
from exactile.sources.metadata import nodata_of
from exactile.sources.nodata import Nodata, nodata_rule
from exactile.sources.protocol import Source


def parse_background(text: str | None, label: int, image: Source, nodata: float | None = None) -> Background | None:
    """Parse ``220`` or ``>220`` (brighter), ``<10`` (darker), ``nodata`` (no data), or a mask image (0
    is background).
    """
    if text is None:
        return None
    if text == "nodata":
        rule = nodata_rule(image, nodata)
        if rule is None:
            raise OptionError("--skip-background nodata: the image declares no such value; give it with --nodata")
        value = nodata_of(image, nodata)
        return Nodata(rule=rule, described="mask" if value is None else str(value), label=label)
    if not names_a_mask(text):
        number = float(text.lstrip("<>"))
        return Threshold(value=number, beyond="below" if text.startswith("<") else "above", label=label)
    if not Path(text).exists():
        raise OptionError(
            f"--skip-background {text}: neither a number (220: brighter is background; '<10': darker) nor a mask image"
        )
    return Mask(wanted=_read_mask(text), image_shape=(image.height, image.width), label=label)


def names_a_mask(text: str) -> bool:
    """Return whether ``text`` is the path of a mask image: neither ``nodata`` nor a number."""
    if text == "nodata":
        return False
    try:
        float(text.lstrip("<>"))
    except ValueError:
        return True
    return False


def _read_mask(path: str) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    from exactile.sources.open import open_source

    mask = open_source(path)
    try:
        if mask.height * mask.width > LARGEST_MASK_PIXELS:
            raise OptionError(
                f"{path}: a mask of {mask.height} x {mask.width} pixels is too large; take a lower level of it, of at "
                f"most {LARGEST_MASK_PIXELS} pixels"
            )
        pixels = np.empty((mask.height, mask.width, mask.channels), mask.dtype)
        mask.read(Box(Span(0, mask.height), Span(0, mask.width)), pixels)
        return np.asarray(pixels.any(axis=2))
    finally:
        mask.close()
