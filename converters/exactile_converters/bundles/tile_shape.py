"""Padded tile sizes that a network accepts, and the default."""

from __future__ import annotations

from exactile.errors import OptionError
from exactile.geometry import AxisGeometry, Geometry

USUAL_TILE_PX = 1024
LEAST_WANTED_PX = 512


def padded_tile(geometry: Geometry, asked: tuple[int, int] | None) -> tuple[int, int]:
    """Return the padded tile's (height, width): as asked for, or the default, larger where the halo requires it.

    Raises OptionError where the network does not accept the size asked for.
    """
    if asked is None:
        return _usual(geometry.y), _usual(geometry.x)
    check_size(geometry.y, asked[0], "a tile of height")
    check_size(geometry.x, asked[1], "a tile of width")
    return asked


def check_size(axis: AxisGeometry, size: int, what: str) -> None:
    """Raise OptionError where the network does not accept ``size`` pixels, or they would be halo alone."""
    least = least_size(axis)
    if size != axis.accepted_size(size) or size < least:
        raise OptionError(
            f"{what} {size} does not suit this network (stride {axis.stride}, least {least}); "
            f"the next that does is {axis.accepted_size(max(size, least))}"
        )


def least_size(axis: AxisGeometry) -> int:
    """Return the size of a tile with one stride of wanted pixels and both margins, the first rounded up to it."""
    before = -(-max(0, axis.margin_before) // axis.stride) * axis.stride
    return axis.accepted_size(before + axis.stride + max(0, axis.margin_after))


def _usual(axis: AxisGeometry) -> int:
    return axis.accepted_size(max(USUAL_TILE_PX, least_size(axis) + LEAST_WANTED_PX))
