"""The strip plan: full-width (or band-width) rows in order, boundary rows carried from strip to strip.

Along the rows (F the stride, all heights but the last multiples of F)::

    domain   |--------------------------------------------------------------|   accepted size
    strips   |==== first ====|=== body ===|=== body ===| ...  |==== last ====|   each row enters once
    results  |== first ==|== body ===|=== body ===|  ...  |====== last ======|   ``lag`` rows behind

Along the columns there is one band as wide as the domain, or there are bands like the tiles of the tile plan, with
halo. All bands advance together, strip by strip, so that the source is read and the result written in rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from exactile.contract import StripModel, StripRole
from exactile.errors import PlanError
from exactile.geometry import AxisGeometry, Box, Geometry, Span, round_up
from exactile.plan.border import Border, needed_span
from exactile.plan.tiles import AxisDomain, AxisTiles, Step


@dataclass(frozen=True, slots=True)
class StripPlace:
    """Which graph runs a strip, and the band (counted from the left) whose carries it takes and hands on."""

    role: StripRole
    band: int


@dataclass(frozen=True, slots=True)
class StripStep(Step):
    """One strip of one band."""

    place: StripPlace
    output_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisStrips:
    """Strips along the rows. ``starts`` in domain pixels; ``zors`` in result pixels; ``crops`` in a strip's output."""

    domain: AxisDomain
    starts: tuple[int, ...]
    heights: tuple[int, ...]
    roles: tuple[StripRole, ...]
    outputs: tuple[int, ...]
    zors: tuple[Span, ...]
    crops: tuple[int, ...]

    @classmethod
    def of(cls, domain: AxisDomain, strips: StripModel, rows: int) -> AxisStrips:
        """Cover ``domain`` with strips of ``rows`` rows, a multiple of the stride; the first may be higher.

        Raises PlanError when the domain is lower than the first and last strip together.
        """
        geometry = domain.geometry
        domain.check_positions()
        if rows < 1 or rows % geometry.stride:
            raise PlanError(
                f"a strip of {rows} rows does not fit the stride of {geometry.stride}; "
                f"try {round_up(max(rows, 1), geometry.stride)}"
            )
        least = least_rows(strips)
        if domain.size < least:
            raise PlanError(f"{domain.size} rows are too few for strips, which need {least}; use --plan auto or tile")
        heights = [min(round_up(strips.startup_rows, rows), _multiple_within(domain, strips))]
        while (left := domain.size - sum(heights)) - rows >= strips.least_last_rows:
            heights.append(rows)
        heights.append(left)
        count = len(heights)
        inner: list[StripRole] = ["body"] * (count - 2)
        roles: tuple[StripRole, ...] = ("first", *inner, "last")
        starts = [0, *itertools.accumulate(heights[:-1])]
        known = [geometry.output_position(start) - strips.lag for start in starts[1:]]
        edges = [0, *known, geometry.output_size(domain.size)]
        result = Span(domain.result_start, domain.result_start + domain.result_size)
        zors = [Span(start, stop).intersect(result) for start, stop in itertools.pairwise(edges)]
        return cls(
            domain=domain,
            starts=tuple(starts),
            heights=tuple(heights),
            roles=roles,
            outputs=tuple(stop - start for start, stop in itertools.pairwise(edges)),
            zors=tuple(zor.shift(-domain.result_start) for zor in zors),
            crops=tuple(zor.start - start for zor, start in zip(zors, edges, strict=False)),
        )

    @property
    def tile_spans(self) -> tuple[Span, ...]:
        """Strips in image pixels; they may begin before 0 and end beyond the image: that is the border's part."""
        return tuple(
            Span(start, start + height).shift(-self.domain.image_start)
            for start, height in zip(self.starts, self.heights, strict=True)
        )

    def needed(self, border: Border) -> tuple[Span, ...]:
        """Return the image pixels that each strip reads."""
        return tuple(needed_span(span, self.domain.image_size, border) for span in self.tile_spans)

    @property
    def tile(self) -> int:
        """Rows of the highest strip."""
        return max(self.heights)

    @property
    def tile_output(self) -> int:
        """Output rows of the strip that gives most."""
        return max(self.outputs)

    @property
    def highest(self) -> dict[StripRole, int]:
        """Rows of the highest strip of each role."""
        found: dict[StripRole, int] = {}
        for height, role in zip(self.heights, self.roles, strict=True):
            found[role] = max(height, found.get(role, 0))
        return found


def least_rows(strips: StripModel) -> int:
    """Return the lowest image that is run in strips."""
    return strips.startup_rows + strips.least_last_rows


def last_rows(strips: StripModel, geometry: AxisGeometry, rows: int) -> tuple[int, int]:
    """Return the lowest and the highest last strip after others of ``rows`` rows, whatever the image's height.

    Of every remainder that the graphs serve; ``geometry`` is the network's, along rows.
    """
    least = {geometry.remainder: strips.least_last_rows, **strips.own_rows}
    most = max(least.values()) + rows - 1
    return min(least.values()), max(most - (most - remainder) % geometry.stride for remainder in least)


def _multiple_within(domain: AxisDomain, strips: StripModel) -> int:
    """Return the highest first strip that leaves enough for the last one."""
    stride = domain.geometry.stride
    return (domain.size - strips.least_last_rows) // stride * stride


@dataclass(frozen=True, slots=True, kw_only=True)
class StripPlan:
    """Strips of all bands, row by row. Band ``i`` is run by lane ``i`` modulo ``lanes``."""

    y: AxisStrips
    x: AxisTiles
    border: Border
    rows: int
    strips: StripModel
    lanes: int = 1

    @classmethod
    def of(
        cls, geometry: Geometry, strips: StripModel, image: tuple[int, int], border: Border, *, rows: int, band: int
    ) -> StripPlan:
        """Plan for an ``image`` of (height, width) pixels: strips of ``rows`` rows, bands of ``band`` columns.

        ``strips`` are those for images of this size; bands are wider by less than a stride where its width asks for it.
        """
        x = AxisDomain.of(geometry.x, image[1], border)
        return cls(
            y=AxisStrips.of(AxisDomain.of(geometry.y, image[0], border), strips, rows),
            x=AxisTiles.of(x, x.tile_for(band, geometry.x)),
            border=border,
            rows=rows,
            strips=strips,
        )

    @property
    def name(self) -> str:
        return "strip"

    @property
    def bands(self) -> int:
        return len(self.x.starts)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Rows and columns of the largest strip."""
        return self.y.tile, self.x.tile

    @property
    def tile_output_shape(self) -> tuple[int, int]:
        return self.y.tile_output, self.x.tile_output

    def output_shape(self, step: Step) -> tuple[int, int]:
        """Return pixels that the network gives for one step."""
        return step.output_rows if isinstance(step, StripStep) else self.y.tile_output, self.x.tile_output

    @property
    def geometry(self) -> Geometry:
        """What holds for images of this size."""
        return Geometry(y=self.y.domain.geometry, x=self.x.domain.geometry)

    @property
    def placed(self) -> bool:
        """Whether the graphs take the position of a tile."""
        return self.geometry.placed

    @property
    def result_shape(self) -> tuple[int, int]:
        return self.y.domain.result_size, self.x.domain.result_size

    @property
    def image_shape(self) -> tuple[int, int]:
        return self.y.domain.image_size, self.x.domain.image_size

    @property
    def wanted_pixels(self) -> int:
        return self.y.domain.image_size * self.x.domain.image_size

    @property
    def computed_pixels(self) -> int:
        return sum(self.y.heights) * self.x.tile * self.bands

    def __len__(self) -> int:
        return len(self.y.starts) * self.bands

    def __iter__(self) -> Iterator[StripStep]:
        columns = list(enumerate(zip(self.x.tile_spans, self.x.zors, self.x.crops, strict=True)))
        rows = zip(self.y.tile_spans, self.y.zors, self.y.crops, self.y.roles, self.y.outputs, strict=True)
        for tile_y, zor_y, crop_y, role, output_rows in rows:
            for band, (tile_x, zor_x, crop_x) in columns:
                yield StripStep(
                    Box(tile_y, tile_x),
                    Box(zor_y, zor_x),
                    Box(Span(crop_y, crop_y + zor_y.length), Span(crop_x, crop_x + zor_x.length)),
                    StripPlace(role, band),
                    output_rows,
                )


def with_highest_last(plan: StripPlan, strips: StripModel, along: AxisGeometry) -> StripPlan:
    """Return ``plan`` for an image whose last strip is as high as one can be: what a stream of unknown height may need.

    ``along`` says which heights there may be.
    """
    y, step = plan.y, 1 if along.others else along.stride
    domains = (
        AxisDomain.of(along, y.domain.image_size + more, plan.border)
        for more in range(0, plan.rows + along.stride, step)
    )
    return replace(plan, y=max((AxisStrips.of(domain, strips, plan.rows) for domain in domains), key=_last))


def _last(axis: AxisStrips) -> int:
    return axis.heights[-1]
