"""A geometry with a smaller halo than the exact one."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from exactile.geometry import AxisGeometry, Geometry, round_up

MOST_STEPS = 12


def exact_halo(geometry: Geometry) -> int:
    """Return the halo of a tile on its widest side, in pixels: a multiple of the larger stride."""
    margins = [margin for axis in (geometry.y, geometry.x) for margin in (axis.margin_before, axis.margin_after)]
    return round_up(max(0, *margins), _stride(geometry))


def halo_steps(geometry: Geometry) -> tuple[int, ...]:
    """Return multiples of the stride from 0 to the exact halo, some twelve of them, the last two among them."""
    stride, last = _stride(geometry), exact_halo(geometry)
    step = max(stride, round_up(ceil(last / MOST_STEPS), stride))
    return tuple(sorted({*range(0, last + 1, step), max(0, last - stride), last}))


def narrowed(geometry: Geometry, halo_px: int) -> Geometry:
    """Return ``geometry`` with at most ``halo_px`` on every side. Its tiles are not exact if the exact
    halo is wider.
    """
    return Geometry(y=_narrowed(geometry.y, halo_px), x=_narrowed(geometry.x, halo_px))


def _narrowed(axis: AxisGeometry, halo_px: int) -> AxisGeometry:
    lost = max(0, ceil(-axis.size_constant / axis.scale))  # what unpadded convolutions remove must be included
    return replace(
        axis,
        before=min(axis.margin_before, halo_px),
        after=min(axis.margin_after, max(halo_px, lost)),
        extra_before=0,
        extra_after=0,
        others=None if axis.others is None else tuple(_narrowed(other, halo_px) for other in axis.others),
    )


def _stride(geometry: Geometry) -> int:
    return max(geometry.y.stride, geometry.x.stride)
