"""The input interval that an output interval of one operator needs, along one axis.

Every map takes the half-open span of wanted output indices to the smallest span that contains all input indices they
read. Indices may be negative or beyond the end: borders are handled elsewhere, so each map commutes with the shifts of
its operator, and the first (last) needed index depends only on the first (last) wanted index.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor
from typing import Literal, Protocol

from exactile.geometry import Span

CoordinateMode = Literal["half_pixel", "asymmetric", "tf_half_pixel_for_nn"]
NearestMode = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


class Reach(Protocol):
    """One operator's interval map along one axis."""

    def needed(self, wanted: Span) -> Span:
        """Return the input span that the non-empty output span ``wanted`` reads."""


@dataclass(frozen=True, slots=True)
class Same:
    """Output pixel ``i`` reads input pixel ``i``."""

    def needed(self, wanted: Span) -> Span:
        return wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Convolution and pooling: output ``i`` reads ``i*stride - pad + k*dilation`` for ``0 <= k < kernel``.

    Also a slice (kernel 1, pad = -start) and padding (kernel 1, pad = pixels added before).
    """

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    pad: int = 0

    def needed(self, wanted: Span) -> Span:
        first = wanted.start * self.stride - self.pad
        last = (wanted.stop - 1) * self.stride - self.pad + (self.kernel - 1) * self.dilation
        return Span(first, last + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransposedWindow:
    """Transposed convolution: input ``i`` contributes to outputs ``i*stride - pad + k*dilation``."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    pad: int = 0

    def needed(self, wanted: Span) -> Span:
        # The extreme readers lie within one stride of either end: residues repeat, contributions move with them.
        head = range(wanted.start, min(wanted.start + self.stride, wanted.stop))
        tail = range(max(wanted.stop - self.stride, wanted.start), wanted.stop)
        nothing_read = [(wanted.start + self.pad) // self.stride]
        first = min([i for output in head for i in self._contributors(output)] or nothing_read)
        last = max([i for output in tail for i in self._contributors(output)] or nothing_read)
        return Span(min(first, last), max(first, last) + 1)

    def _contributors(self, output: int) -> list[int]:
        reaching = (output + self.pad - k * self.dilation for k in range(self.kernel))
        return [position // self.stride for position in reaching if position % self.stride == 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A flip of an axis: output ``i`` reads ``size - 1 - i``, for ``size`` pixels of a map at the walk's small image.

    Pixels of a flipped map are counted from its own beginning, which is the image's end. For images that differ by
    multiples of the stride the same spans move along, so that flips compare equal.
    """

    size: int = field(compare=False)

    def needed(self, wanted: Span) -> Span:
        return Span(self.size - wanted.stop, self.size - wanted.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Nearest up-sampling by a block and DepthToSpace: output ``i`` reads ``i // factor``."""

    factor: int

    def needed(self, wanted: Span) -> Span:
        return Span(wanted.start // self.factor, (wanted.stop - 1) // self.factor + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpolation:
    """Resize by an exact ratio: output ``i`` reads around its position in the input.

    Positions follow the ONNX Resize operator's ``coordinate_transformation_mode`` formulas. Pixels with weight 0 are
    read, too: engines multiply them, and NaN spreads. Where engines round an integer position, it may come out slightly
    lower: the pixels read then begin ``early`` pixels before.
    """

    scale: Fraction
    coordinates: CoordinateMode
    kind: Literal["nearest", "linear", "cubic"]
    rounding: NearestMode = "round_prefer_floor"
    early: int = 0

    def needed(self, wanted: Span) -> Span:
        return Span(self._taps(wanted.start)[0], self._taps(wanted.stop - 1)[1] + 1)

    def position(self, output: int) -> Fraction:
        """Return the position of output pixel ``output``, in input pixels."""
        if self.coordinates == "asymmetric":
            return output / self.scale
        centre = (output + Fraction(1, 2)) / self.scale
        return centre - Fraction(1, 2) if self.coordinates == "half_pixel" else centre

    def _taps(self, output: int) -> tuple[int, int]:
        position = self.position(output)
        if self.kind == "nearest":
            tap = rounded(position, self.rounding)
            return tap, tap
        first, last = (0, 1) if self.kind == "linear" else (-1, 2)
        early = self.early if position.denominator == 1 else 0
        return floor(position) + first - early, floor(position) + last

    def placed(self) -> Placed:
        """Return the same, as one of several that depend on the position."""
        drift = self.position(0)
        first, last = (0, 0) if self.kind == "nearest" else (-self.early, 1) if self.kind == "linear" else (-1, 2)
        return Placed(
            ratio=1 / self.scale,
            early=drift,
            late=drift,
            first=first - (self.early if self.kind == "cubic" else 0),
            last=last,
            rounding=self.rounding if self.kind == "nearest" else "floor",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Resize whose positions depend on the place in the image and on its size.

    Output ``i`` lies at ``i * ratio + drift``, in input pixels, with ``drift`` between ``early`` and ``late``, whatever
    the image's size and ``i``. It reads from ``first`` to ``last`` pixels beyond the pixel at or before its position,
    or, where ``rounding`` is given, the pixel to which the position is rounded. ``given`` is the scale from which
    positions are computed, where they are not computed from sizes.
    """

    ratio: Fraction
    early: Fraction
    late: Fraction
    first: int = 0
    last: int = 0
    rounding: NearestMode = "floor"
    given: float | None = None

    def needed(self, wanted: Span) -> Span:
        start = rounded(wanted.start * self.ratio + self.early, self.rounding) + self.first
        stop = rounded((wanted.stop - 1) * self.ratio + self.late, self.rounding) + self.last
        return Span(start, max(start, stop) + 1)

    def joined(self, other: Placed) -> Placed:
        """Return one that contains what both read."""
        assert (self.ratio, self.rounding) == (other.ratio, other.rounding)
        return Placed(
            ratio=self.ratio,
            early=min(self.early, other.early),
            late=max(self.late, other.late),
            first=min(self.first, other.first),
            last=max(self.last, other.last),
            rounding=self.rounding,
            given=self.given,
        )


def rounded(position: Fraction, rounding: NearestMode) -> int:
    """Return the pixel to which a position is rounded."""
    half = Fraction(1, 2)
    match rounding:
        case "floor":
            return floor(position)
        case "ceil":
            return ceil(position)
        case "round_prefer_floor":
            return ceil(position - half)
        case "round_prefer_ceil":
            return floor(position + half)
