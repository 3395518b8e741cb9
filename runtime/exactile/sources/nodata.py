"""Pixels without data: by a value in every channel, by the file's mask of valid pixels, or by its alpha channel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box, Span
from exactile.sources.metadata import nodata_of
from exactile.sources.protocol import Source
from exactile.sources.validity import ValidMask, open_masks

PIECE_PIXELS = 1 << 18
"""Pixels that are compared at once, so that intermediates take little memory."""


class NodataRule(Protocol):
    """Decides which pixels have no data."""

    def where(self, box: Box, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        """Return a mask (H, W) of the pixels without data in ``box``, whose samples are ``pixels`` (H, W, C)."""

    def close(self) -> None:
        """Release its files."""


def nodata_rule(source: Source, given: float | None = None) -> NodataRule | None:
    """Return the rule of the ``given`` or the file's own value, and of the file's masks; None if there is none.

    An alpha channel counts once it is left out: until then it is one of the samples. Raises SourceError.
    """
    value = nodata_of(source, given)
    rules: list[NodataRule] = [] if value is None else [ByValue(value)]
    rules += [ByMask(mask) for mask in open_masks(source)]
    if len(rules) < 2:
        return rules[0] if rules else None
    return AnyOf(tuple(rules))


def is_nodata(pixels: NDArray[Any], value: float) -> NDArray[np.bool_]:
    """Return a mask (H, W) of pixels (H, W, C) whose channels all are ``value``; NaN equals NaN."""
    if np.isnan(value):
        return np.asarray(np.isnan(pixels).all(axis=2))
    if pixels.dtype.kind in "iu" and not (float(value).is_integer() and 0 <= value <= np.iinfo(pixels.dtype).max):
        return np.zeros(pixels.shape[:2], np.bool_)
    with np.errstate(over="ignore"):
        wanted = np.asarray(value).astype(pixels.dtype)
    return np.asarray((pixels == wanted).all(axis=2))


@dataclass(frozen=True, slots=True)
class ByValue:
    """No data where every channel is ``value``."""

    value: float

    def where(self, box: Box, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        found = np.empty(box.shape, np.bool_)
        for rows in _pieces(box.shape):
            found[rows] = is_nodata(pixels[rows], self.value)
        return found

    def close(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True, slots=True)
class ByMask:
    """No data where ``mask``, an image of one channel and the same size, is 0."""

    mask: ValidMask

    def where(self, box: Box, pixels: NDArray[Any]) -> NDArray[np.bool_]:  # noqa: ARG002 -- the seam's signature
        found = np.empty((*box.shape, 1), self.mask.dtype)
        self.mask.read(box, found)
        return np.asarray(found[..., 0] == 0)

    def close(self) -> None:
        self.mask.close()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """No data where one of ``rules`` says so."""

    rules: tuple[NodataRule, ...]

    def where(self, box: Box, pixels: NDArray[Any]) -> NDArray[np.bool_]:
        found = self.rules[0].where(box, pixels)
        for rule in self.rules[1:]:
            found |= rule.where(box, pixels)
        return found

    def close(self) -> None:
        for rule in self.rules:
            with suppress(OSError):
                rule.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodata:
    """Background is where there is no data, by ``rule``; ``described`` is what it goes by, as plain data."""

    rule: NodataRule
    described: Any
    label: int = 0

    def close(self) -> None:
        self.rule.close()

    def is_empty(self, box: Box, pixels: NDArray[Any]) -> bool:
        for rows in _pieces(box.shape):
            piece = Box(Span(box.y.start + rows.start, box.y.start + rows.stop), box.x)
            if not self.rule.where(piece, pixels[rows]).all():
                return False
        return True

    def describe(self) -> dict[str, Any]:
        return {"nodata": self.described, "label": self.label}


def _pieces(shape: tuple[int, int]) -> Iterator[slice]:
    height, width = shape
    step = max(1, PIECE_PIXELS // max(1, width))
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))
