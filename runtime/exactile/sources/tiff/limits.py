"""Refuse claims of a TIFF file that would keep tifffile busy for minutes, or take all memory, before
any pixel is read.
"""

from __future__ import annotations

import re
from itertools import islice
from math import prod
from typing import Any

from exactile.errors import SourceError

MOST_PLANES = 1 << 20
"""Most planes that OME-XML may claim; tifffile makes a list of them, whether the file has them or not."""

MOST_SERIES = 1000
"""Most images with separate descriptions; tifffile compares each with all others to find pyramids."""

_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_SIZE = re.compile(r"""\bSize[CZT]\s*=\s*["']\s*(\d+)""")
_PLANE = re.compile(r"""\b(?:IFD|PlaneCount|NumPlanes|First[CZT])\s*=\s*["']\s*(\d+)""")
_LONGEST_NUMBER = 18


def check_limits(tiff: Any, name: str) -> None:
    """Raise SourceError if an open ``tifffile.TiffFile`` claims more images or planes than any real file has."""
    if tiff.is_ome:
        _check_ome(str(tiff.ome_metadata), name)
    _check_sub_directories(tiff, name)
    if tiff.is_shaped and len(tiff.pages) > MOST_SERIES:
        described = (page for page in tiff.pages if page.is_shaped)
        if len(list(islice(described, MOST_SERIES + 1))) > MOST_SERIES:
            raise SourceError(
                f"{name}: holds more than {MOST_SERIES} images, each with its own description; store them in "
                f"several files"
            )


def _check_sub_directories(tiff: Any, name: str) -> None:
    """Raise SourceError for a sub-directory that contains itself: tifffile would recurse until the stack is full."""
    directories = {page.offset for page in islice(tiff.pages, min(len(tiff.pages), MOST_SERIES))}
    for page in islice(tiff.pages, len(directories)):
        inner = directories.intersection(getattr(page, "subifds", None) or ())
        if inner:
            raise SourceError(
                f"{name}: has a damaged structure: the directory at byte {inner.pop()} is among its own sub-directories"
            )


def _check_ome(text: str, name: str) -> None:
    """Check OME-XML by its numbers alone, so that nothing in the text is expanded."""
    planes = sum(prod(map(_number, _SIZE.findall(pixels))) for pixels in _PIXELS.findall(text))
    largest = max([planes, *map(_number, _PLANE.findall(text))])
    if largest > MOST_PLANES:
        raise SourceError(
            f"{name}: its OME-XML claims {largest} planes, but at most {MOST_PLANES} are taken; it is damaged"
        )


def _number(digits: str) -> int:
    return int(digits[:_LONGEST_NUMBER])
