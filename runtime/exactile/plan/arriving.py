"""Decide which strips can run when rows arrive one after another and their number is not known.

Pure arithmetic: rows of the image go in, strips come out. While rows still arrive, a strip runs as soon as its rows
have arrived and enough others wait for the last strip; at the end the rest runs, as in ``AxisStrips``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from exactile.contract import StripModel, StripRole
from exactile.geometry import AxisGeometry, Span
from exactile.plan.border import Border
from exactile.plan.strips import least_rows
from exactile.plan.tiles import AxisDomain


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivingStrip:
    """One strip: ``rows`` in image pixels (beyond the image: the border's part), ``zor`` in result pixels.

    ``output_rows`` is what the network gives, ``crop`` where the zor begins in it.
    """

    role: StripRole
    rows: Span
    output_rows: int
    zor: Span
    crop: int


class ArrivingRows:
    """The strips along rows for one network, strip height and border; the first has ``first_rows`` (default: few)."""

    def __init__(
        self, geometry: AxisGeometry, strips: StripModel, rows: int, border: Border, *, first_rows: int | None = None
    ) -> None:
        self._first_rows = first_rows or strips.startup_rows
        self._geometry, self._strips, self._rows, self._border = geometry, strips, rows, border
        self._done = 0  # rows of the domain that strips took
        self._emitted = 0  # rows of the domain's result that strips gave
        self.arrived = 0

    @property
    def started(self) -> bool:
        """Whether a strip ran."""
        return self._done > 0

    @property
    def first_needed(self) -> int:
        """The first image row that a later strip may read, except for the reflection at the end."""
        return max(0, self._done - self._image_start) if self.started else 0

    @property
    def most_below(self) -> int:
        """Rows that the border may put below the image."""
        probe = 4 * max(self._geometry.stride, self._geometry.margin_before + self._geometry.margin_after, 64)
        sizes = (AxisDomain.of(self._geometry, probe + extra, self._border) for extra in range(self._geometry.stride))
        return max(domain.size - domain.image_start - domain.image_size for domain in sizes)

    @property
    def least_height(self) -> int:
        """The lowest image that the network accepts."""
        return self._geometry.accepted_size(1)

    def result_rows(self, height: int) -> int:
        """Return the result rows of an image of ``height`` rows."""
        return AxisDomain.of(self._geometry, height, self._border).result_size

    def domain_of(self, height: int) -> AxisDomain:
        """Return the rows as the network sees them, of an image of ``height`` rows."""
        return AxisDomain.of(self._geometry, height, self._border)

    def ready(self) -> Iterator[ArrivingStrip]:
        """Yield the strips that can run now, in order; run them before more rows arrive."""
        while (strip := self._next(closed=False)) is not None:
            yield strip

    def rest(self) -> Iterator[ArrivingStrip]:
        """Yield the strips that remain after the last row. Only after a strip has run."""
        while (strip := self._next(closed=True)) is not None:
            yield strip

    @property
    def too_low(self) -> bool:
        """Whether the image, complete now, is too low for a first and a last strip."""
        return not self.started and self._domain.size < least_rows(self._strips)

    @property
    def _domain(self) -> AxisDomain:
        return AxisDomain.of(self._geometry, self.arrived, self._border)

    @property
    def _image_start(self) -> int:
        return AxisDomain.of(self._geometry, 1 << 20, self._border).image_start

    def _next(self, *, closed: bool) -> ArrivingStrip | None:
        if not closed and self.arrived < self.least_height:
            return None
        if self._done >= (domain := self._domain).size:
            return None
        # How far the image is extended depends on its last rows, which may still come.
        unsettled = self._geometry.others and self._border == "model" and not closed
        waiting = self.arrived if unsettled else domain.size
        left = waiting - self._done
        height = self._rows if self.started else self._first_rows
        if left - height >= self._strips.least_last_rows:
            # Rows above the image by reflection need as many rows of it, and one more.
            below = self._done + height - domain.image_start
            known = self._geometry.output_position(self._done + height) - self._strips.lag
            beyond = known > domain.result_start + domain.result_size
            if not closed and (below > self.arrived or self.arrived <= domain.image_start or beyond):
                return None
            return self._take(domain, height, "body" if self.started else "first")
        return self._take(domain, left, "last") if closed else None

    def _take(self, domain: AxisDomain, height: int, role: StripRole) -> ArrivingStrip | None:
        start, stop = self._done, self._done + height
        known = self._geometry.output_position(stop) - self._strips.lag
        end = domain.geometry.output_size(domain.size) if role == "last" else known
        result = Span(domain.result_start, domain.result_start + domain.result_size)
        zor = Span(self._emitted, end).intersect(result)
        strip = ArrivingStrip(
            role=role,
            rows=Span(start, stop).shift(-domain.image_start),
            output_rows=end - self._emitted,
            zor=zor.shift(-domain.result_start),
            crop=zor.start - self._emitted,
        )
        self._done, self._emitted = stop, end
        return strip
