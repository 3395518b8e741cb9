"""The meaning of an array's axes."""

from __future__ import annotations

from dataclasses import dataclass

from exactile.errors import OptionError, SourceError

AXIS_ORDERS = ("YX", "YXC", "CYX")


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisOrder:
    """The axes of an array's shape; ``planar`` if whole channel planes follow each other (CYX)."""

    height: int
    width: int
    channels: int
    planar: bool


def check_axes(axes: str | None) -> None:
    """Raise OptionError if ``axes`` is not one of AXIS_ORDERS."""
    if axes is not None and axes not in AXIS_ORDERS:
        raise OptionError(f"axes {axes!r} are not known; use one of {', '.join(AXIS_ORDERS)}")


def order_axes(shape: tuple[int, ...], axes: str | None, name: str) -> AxisOrder:
    """Read ``shape`` as ``axes`` (default: YX for two axes, YXC for three).

    Raises OptionError for unknown axes, SourceError if they do not fit the shape or there is no pixel.
    """
    check_axes(axes)
    if axes is None:
        axes = {2: "YX", 3: "YXC"}.get(len(shape))
    if axes is None or len(axes) != len(shape):
        raise SourceError(
            f"{name}: an array of shape {shape} cannot be read as {axes or 'an image'};"
            " give an array of two axes (YX) or three (YXC or CYX)"
        )
    if min(shape) < 1:
        raise SourceError(f"{name}: an array of shape {shape} has no pixels")
    sizes = dict(zip(axes, shape, strict=True))
    return AxisOrder(height=sizes["Y"], width=sizes["X"], channels=sizes.get("C", 1), planar=axes == "CYX")
