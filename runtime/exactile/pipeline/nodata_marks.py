"""Give pixels of the result that stand for pixels without data their own label."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box, Span
from exactile.plan.strips import StripPlan, StripStep
from exactile.plan.tiles import AxisDomain, Step, TilePlan
from exactile.sources.nodata import NodataRule

Array = NDArray[Any]
Bits = NDArray[np.uint8]
"""A mask of pixels, eight of a row in a byte."""


class NodataMarks:
    """Find pixels without data in tiles when they are read, and mark results when they are written, in other threads.

    A result pixel has no data if none of the image pixels that it stands for has; it gets ``label``. Between reading
    and writing one bit of each pixel is kept.
    """

    def __init__(self, rule: NodataRule, label: int, plan: TilePlan | StripPlan) -> None:
        self._rule, self._label, self._plan = rule, label, plan
        self._lock = threading.Lock()
        self._tiles: dict[Box, Bits] = {}
        self._bands: dict[int, list[tuple[Span, Bits]]] = {}

    def look(self, step: Step, pixels: Array) -> None:
        """Find pixels without data in ``pixels`` (H, W, C) of the step's tile, border included."""
        image = Box(*(Span(0, size) for size in self._plan.image_shape))
        wanted = step.tile if isinstance(step, StripStep) else self._image_box(step.zor)
        box = Box(wanted.y.intersect(image.y), wanted.x.intersect(image.x))
        bits = np.packbits(self._rule.where(box, pixels[box.slices(step.tile)]), axis=1)
        with self._lock:
            if isinstance(step, StripStep):
                self._bands.setdefault(step.place.band, []).append((box.y, bits))
            else:
                self._tiles[step.zor] = bits

    def mark(self, step: Step, block: Array) -> Array:
        """Return ``block`` (H, W), the labels of the step's zone, with pixels without data marked; it may be changed in
        place.
        """
        box = self._image_box(step.zor)
        found = self._found(step, box)
        for domain, zone, inside in ((self._plan.y, step.zor.y, box.y), (self._plan.x, step.zor.x, box.x)):
            found = _at_scale(found, domain.domain, zone, inside).T  # rows first, then columns
        if not found.any():
            return block
        block = block if block.flags.writeable else block.copy()
        block[found] = self._label
        return block

    def _image_box(self, zone: Box) -> Box:
        return Box(self._plan.y.domain.image_span(zone.y), self._plan.x.domain.image_span(zone.x))

    def _found(self, step: Step, box: Box) -> NDArray[np.bool_]:
        """Return a mask (H, W) of ``box`` without data in the image; rows above it in a band are forgotten."""
        if not isinstance(step, StripStep):
            with self._lock:
                bits = self._tiles.pop(step.zor)
            return np.unpackbits(bits, axis=1, count=box.x.length).astype(np.bool_)
        first = max(0, step.tile.x.start)
        found = np.zeros(box.shape, np.bool_)
        with self._lock:
            kept = [piece for piece in self._bands[step.place.band] if piece[0].stop > box.y.start]
            self._bands[step.place.band] = kept
        for rows, bits in kept:
            common = rows.intersect(box.y)
            if common.length:
                taken = np.unpackbits(bits[common.start - rows.start : common.stop - rows.start], axis=1)
                columns = slice(box.x.start - first, box.x.stop - first)
                found[common.start - box.y.start : common.stop - box.y.start] = taken[:, columns]
        return found


def _at_scale(found: NDArray[np.bool_], domain: AxisDomain, zone: Span, inside: Span) -> NDArray[np.bool_]:
    """Return ``found``, whose rows are the image's in ``inside``, at the result's rows in ``zone``."""
    if domain.geometry.scale == 1 and zone.length == inside.length:
        return found
    spans = [domain.image_span(Span(row, row + 1)) for row in range(zone.start, zone.stop)]
    result = np.ones((zone.length, found.shape[1]), np.bool_)
    for at in range(max(span.length for span in spans)):
        rows = [min(max(span.start + at, inside.start), span.stop - 1, inside.stop - 1) for span in spans]
        result &= found[[row - inside.start for row in rows]]
    return result
