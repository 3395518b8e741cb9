"""Chunks that could not be decoded and were filled instead: their areas, and the results that they influence."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

from exactile.errors import OptionError
from exactile.geometry import AxisGeometry, Box, Geometry, Span, round_down, round_up

OnCorrupt = Literal["fail", "fill"]
ON_CORRUPT: tuple[OnCorrupt, ...] = get_args(OnCorrupt)


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedArea:
    """``box``, in image pixels, was filled because of ``reason``."""

    box: Box
    reason: str


@runtime_checkable
class ReportsDamage(Protocol):
    """A source that may fill what it cannot decode."""

    @property
    def damaged(self) -> tuple[DamagedArea, ...]:
        """Every area filled so far, from top to bottom."""


class CorruptFilling:
    """What to do with a chunk that cannot be decoded, and the chunks that were filled. For several threads.

    ``value`` is the value of every sample of such a chunk (default 0). Raises OptionError for another ``on_corrupt``,
    and for a ``value`` that samples of ``dtype`` cannot have or that is not used.
    """

    def __init__(self, on_corrupt: OnCorrupt, value: float | None, dtype: np.dtype[Any]) -> None:
        if on_corrupt not in ON_CORRUPT:
            raise OptionError(f"on_corrupt must be one of {', '.join(ON_CORRUPT)}, got {on_corrupt!r}")
        if value is not None and on_corrupt == "fail":
            raise OptionError(f"the corrupt value {value:g} was given, but nothing is filled; add --on-corrupt fill")
        self.fills = on_corrupt == "fill"
        self.value = _sample(0 if value is None else value, dtype)
        self._areas: dict[tuple[int, int, int], DamagedArea] = {}
        self._lock = threading.Lock()

    def note(self, key: tuple[int, int, int], box: Box, reason: str) -> None:
        """Note that the chunk ``key`` (plane, row, column), which covers ``box``, was filled."""
        with self._lock:
            self._areas[key] = DamagedArea(box=box, reason=reason)

    def knows(self, key: tuple[int, int, int]) -> bool:
        """Return whether the chunk was filled before, so that it need not be tried again."""
        return key in self._areas

    @property
    def areas(self) -> tuple[DamagedArea, ...]:
        with self._lock:
            return tuple(sorted(self._areas.values(), key=lambda area: (area.box.y, area.box.x)))


def _sample(value: float, dtype: np.dtype[Any]) -> float:
    """Return ``value`` if a sample of ``dtype`` can have it."""
    if dtype.kind == "f":
        if math.isfinite(value):
            return value
        raise OptionError(f"the corrupt value must be a finite number, got {value}")
    least, largest = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not (float(value).is_integer() and least <= value <= largest):
        raise OptionError(
            f"the corrupt value must be a whole number from {least} to {largest} for {dtype}, got {value:g}"
        )
    return int(value)


NOTHING_FILLED = CorruptFilling("fail", None, np.dtype(np.uint8))
"""For sources whose damaged chunks are always errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageReport:
    """What a run filled: ``boxes`` in image pixels, merged, together ``pixels``; ``reasons``, each once.

    ``affected``: boxes of the result; outside them it equals that of an undamaged image. They may overlap.
    """

    boxes: tuple[Box, ...] = ()
    pixels: int = 0
    affected: tuple[Box, ...] = ()
    reasons: tuple[str, ...] = ()


NO_DAMAGE = DamageReport()


def report_damage(source: object, geometry: Geometry, result_shape: tuple[int, int], *, whole: bool) -> DamageReport:
    """Return what ``source`` filled, and the part of a result (H', W') that it may have changed.

    ``whole``: every pixel of the result depends on every pixel of the image, through its statistics.
    """
    areas = source.damaged if isinstance(source, ReportsDamage) else ()
    if not areas:
        return NO_DAMAGE
    boxes = merge_boxes(area.box for area in areas)
    everything = Box(Span(0, result_shape[0]), Span(0, result_shape[1]))
    grown = tuple(_affected(box, geometry).intersect(everything) for box in boxes)
    return DamageReport(
        boxes=boxes,
        pixels=sum(box.area for box in boxes),
        affected=(everything,) if whole else tuple(box for box in grown if box.area),
        reasons=tuple(dict.fromkeys(area.reason for area in areas)),
    )


def merge_boxes(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """Return the same pixels in fewer boxes. ``boxes`` are equal or disjoint, as the chunks of a grid are."""
    rows = _joined(sorted(set(boxes), key=lambda box: (box.y, box.x)), along_x=True)
    columns = _joined(sorted(rows, key=lambda box: (box.x, box.y)), along_x=False)
    return tuple(sorted(columns, key=lambda box: (box.y, box.x)))


def _joined(boxes: list[Box], *, along_x: bool) -> list[Box]:
    """Join neighbours in the list that touch along one axis, and have the same span on the other."""
    found: list[Box] = []
    for box in boxes:
        last = found[-1] if found else None
        if last is not None and along_x and last.y == box.y and last.x.stop == box.x.start:
            found[-1] = Box(box.y, Span(last.x.start, box.x.stop))
        elif last is not None and not along_x and last.x == box.x and last.y.stop == box.y.start:
            found[-1] = Box(Span(last.y.start, box.y.stop), box.x)
        else:
            found.append(box)
    return found


def _affected(box: Box, geometry: Geometry) -> Box:
    """Return result pixels that depend on ``box``, in whole steps of the stride."""
    return Box(_affected_span(box.y, geometry.y), _affected_span(box.x, geometry.x))


def _affected_span(span: Span, axis: AxisGeometry) -> Span:
    # Borders that mirror the image carry damage to the other side, so both sides get the larger reach.
    reach = max(axis.margin_before, axis.margin_after, axis.halo_before, axis.halo_after, 0)
    if axis.origin:
        reach += axis.stride + abs(axis.offset)
    start, stop = round_down(span.start - reach, axis.stride), round_up(span.stop + reach, axis.stride)
    return Span(max(0, axis.output_position(start)), max(0, axis.output_position(stop)))
