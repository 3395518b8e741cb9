"""Half-open integer algebra in (y, x): spans, boxes, and what a network's graph says about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of ``multiple`` that is at least ``value`` (either sign)."""
    return -(-value // multiple) * multiple


def round_down(value: int, multiple: int) -> int:
    """Return the largest multiple of ``multiple`` that is at most ``value`` (either sign)."""
    return value // multiple * multiple


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The integers ``start <= i < stop`` on one axis, in pixels."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.stop < self.start:
            raise ValueError(f"a span ends before it starts: [{self.start}, {self.stop})")

    @property
    def length(self) -> int:
        """Pixels of the span."""
        return self.stop - self.start

    def shift(self, by: int) -> Span:
        """Return the span moved by ``by`` pixels."""
        return Span(self.start + by, self.stop + by)

    def contains(self, other: Span) -> bool:
        """Return whether all of ``other`` lies within this span."""
        return self.start <= other.start and other.stop <= self.stop

    def intersect(self, other: Span) -> Span:
        """Return the common part; empty (at the larger start) when there is none."""
        start = max(self.start, other.start)
        return Span(start, max(start, min(self.stop, other.stop)))


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels: rows ``y``, columns ``x``."""

    y: Span
    x: Span

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), in pixels."""
        return self.y.length, self.x.length

    @property
    def area(self) -> int:
        """Pixels of the box."""
        return self.y.length * self.x.length

    def shift(self, dy: int, dx: int) -> Box:
        """Return the box moved by ``dy`` rows and ``dx`` columns."""
        return Box(self.y.shift(dy), self.x.shift(dx))

    def contains(self, other: Box) -> bool:
        """Return whether all of ``other`` lies within this box."""
        return self.y.contains(other.y) and self.x.contains(other.x)

    def intersect(self, other: Box) -> Box:
        """Return the common part; empty where there is none."""
        return Box(self.y.intersect(other.y), self.x.intersect(other.x))

    def slices(self, origin: Box | None = None) -> tuple[slice, slice]:
        """Return array slices of this box, relative to the first pixel of ``origin`` (default: the image's)."""
        y0, x0 = (origin.y.start, origin.x.start) if origin else (0, 0)
        return slice(self.y.start - y0, self.y.stop - y0), slice(self.x.start - x0, self.x.stop - x0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisGeometry:
    """How a network's output depends on its input along one axis.

    For input positions ``a < b`` that are multiples of ``stride``, the output pixels ``[a * scale, b * scale)`` depend
    on the input pixels ``[a - before, b + after)`` and on no others. An input of ``n = remainder + m * stride`` pixels
    gives ``n * scale + size_constant`` output pixels.

    ``before`` and ``after`` are exact, in input pixels, not rounded to the stride; ``before`` is negative if valid
    convolutions or crops move the output inward. ``extra_before`` and ``extra_after`` are what a tile must hold beyond
    that because the network crops an intermediate tensor and pads it again: 0 for most.

    ``origin`` is where the output's first pixel lies in the input, exact, in input pixels: 0 if nothing is lost, ``n``
    if valid convolutions or crops lose ``n`` pixels at the beginning, ``-n`` if the network pads outward. Output pixel
    ``i`` is the one for the input at ``origin + i / scale``.

    ``remainder`` is that of the sizes that all this holds for. ``others`` describe sizes of other remainders that the
    network accepts, from ``least`` pixels on, one each; None if they were not searched for. ``one_pass`` says why
    images of such a size cannot be cut along this axis: then margins mean nothing. Empty if they can. ``placed`` says
    that operators depend on the position along this axis: then graphs take the position of a tile in the image.
    """

    stride: int
    before: int
    after: int
    extra_before: int = 0
    extra_after: int = 0
    scale: Fraction = Fraction(1)
    origin: Fraction = Fraction(0)
    size_constant: Fraction = Fraction(0)
    remainder: int = 0
    least: int = 1
    one_pass: str = ""
    placed: bool = False
    others: tuple[AxisGeometry, ...] | None = None

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ValueError(f"stride must be at least 1, got {self.stride}")
        if min(self.extra_before, self.extra_after) < 0:
            raise ValueError(f"extra margins must not be negative, got {self.extra_before} and {self.extra_after}")
        if self.scale <= 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        if (self.stride * self.scale).denominator != 1:
            raise ValueError(f"stride {self.stride} times scale {self.scale} is not a whole number of output pixels")
        if not 0 <= self.remainder < self.stride:
            raise ValueError(f"remainder {self.remainder} must lie in [0, {self.stride})")
        if (self.remainder * self.scale + self.size_constant).denominator != 1:
            raise ValueError(f"an input of {self.remainder} pixels gives no whole number of output pixels")
        for other in self.others or ():
            if other.others or (other.stride, other.scale, other.origin) != (self.stride, self.scale, self.origin):
                raise ValueError(f"sizes of remainder {other.remainder} have another stride, scale or origin")
        remainders = [self.remainder, *(other.remainder for other in self.others or ())]
        if len(set(remainders)) != len(remainders):
            raise ValueError(f"remainders {remainders} are not all different")

    def takes(self, size: int) -> bool:
        """Return whether the network is known to accept images of ``size`` pixels as they are."""
        found = self.of_size(size)
        return found.accepted_size(size) == size

    def of_size(self, size: int) -> AxisGeometry:
        """Return the geometry for images of ``size`` pixels: that of their remainder, or this one if they must be
        extended.
        """
        if size % self.stride != self.remainder:
            for other in self.others or ():
                if size % self.stride == other.remainder and size >= other.least:
                    return other
        return self

    def alone(self, size: int) -> AxisGeometry:
        """Return the geometry for images of ``size`` pixels, an accepted size, in one piece: the halo is the image
        itself.
        """
        stride = size * self.scale.denominator
        return AxisGeometry(
            stride=stride,
            before=size,
            after=size,
            scale=self.scale,
            origin=self.origin,
            size_constant=self.output_size(size) - size * self.scale,
            remainder=size % stride,
            others=(),
        )

    @property
    def without_others(self) -> AxisGeometry:
        """Return the same geometry with all sizes of other remainders extended."""
        return replace(self, others=()) if self.others else self

    @property
    def without_placed(self) -> AxisGeometry:
        """Return the same geometry with sizes at which operators depend on the position extended."""
        if not any(other.placed for other in self.others or ()):
            return self
        return replace(self, others=tuple(other for other in self.others or () if not other.placed))

    @property
    def all_placed(self) -> AxisGeometry:
        """Return the same geometry with graphs that take the position at sizes of every remainder, if they do at the
        first.
        """
        if not self.placed:
            return self
        return replace(self, others=self.others and tuple(replace(other, placed=True) for other in self.others))

    @property
    def margin_before(self) -> int:
        """Input pixels that a tile holds before the first aligned output boundary it answers for."""
        return self.before + self.extra_before

    @property
    def margin_after(self) -> int:
        """Input pixels that a tile holds after the last aligned output boundary it answers for."""
        return self.after + self.extra_after

    @property
    def offset(self) -> int:
        """``origin`` in whole input pixels, as plans need it."""
        return floor(self.origin)

    @property
    def halo_before(self) -> int:
        """Input pixels before an aligned output box that can influence it."""
        return max(0, ceil(self.before + self.origin))

    @property
    def halo_after(self) -> int:
        """Input pixels after an aligned output box that can influence it."""
        return max(0, ceil(self.after - self.origin))

    def accepted_size(self, size: int) -> int:
        """Return the smallest input size of at least ``size`` pixels that the network accepts."""
        accepted = self.remainder + round_up(max(0, size - self.remainder), self.stride)
        while self.output_size(accepted) < 1:
            accepted += self.stride
        return accepted

    def output_size(self, size: int) -> int:
        """Return output pixels for an accepted input size."""
        output = size * self.scale + self.size_constant
        if output.denominator != 1:
            raise ValueError(f"the network does not accept {size} pixels (stride {self.stride})")
        return int(output)

    def output_position(self, position: int) -> int:
        """Return the output index that a stride-aligned input position corresponds to."""
        if self.scale.denominator == 1:
            return position * self.scale.numerator  # plans ask this millions of times
        return int(position * self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """A network's geometry on both axes."""

    y: AxisGeometry
    x: AxisGeometry

    def of_size(self, size: tuple[int, int]) -> Geometry:
        """Return the geometry for images of ``size``, (height, width)."""
        return Geometry(y=self.y.of_size(size[0]), x=self.x.of_size(size[1]))

    @property
    def placed(self) -> bool:
        """Whether some operator depends on the position at these sizes."""
        return self.y.placed or self.x.placed

    @property
    def without_placed(self) -> Geometry:
        """Return the same geometry with sizes at which operators depend on the position extended."""
        return Geometry(y=self.y.without_placed, x=self.x.without_placed)

    @property
    def all_placed(self) -> Geometry:
        """Return the same geometry with graphs that take the position at sizes of every remainder, if they do at the
        first.
        """
        return Geometry(y=self.y.all_placed, x=self.x.all_placed)

    @property
    def without_others(self) -> Geometry:
        """Return the same geometry with all sizes of other remainders extended."""
        return Geometry(y=self.y.without_others, x=self.x.without_others)
