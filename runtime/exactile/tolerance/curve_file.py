"""The file of an error curve in a bundle."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

import exactile
from exactile.contract.error_curve import CurveImage, ErrorCurve, ErrorPoint
from exactile.errors import BundleError
from exactile.measured_file import MeasuredFile, Part, read_measured, write_measured

CURVE_NAME = "error_curve.json"
FORMAT: Literal["exactile.error_curve"] = "exactile.error_curve"
VERSION: Literal[1] = 1
MOST_BYTES = 16 << 20
SHARES = ("scores", "labels", "far_scores", "far_labels")
"""Fields of a point that are fractions, or infinite."""

Size = Annotated[int, Meta(ge=1, le=1 << 31)]
Share = Annotated[float, Meta(ge=0)] | Literal["infinite"] | None


class ImagePart(Part, frozen=True, kw_only=True):
    """See ``CurveImage``."""

    name: str
    size: tuple[Size, Size]
    zones: Size
    pixels: Annotated[int, Meta(ge=1, le=1 << 60)]


class PointPart(Part, frozen=True, kw_only=True):
    """See ``ErrorPoint``."""

    halo_px: Annotated[int, Meta(ge=0, le=1 << 31)]
    scores: Share
    labels: Share
    far_scores: Share
    far_labels: Share


class CurveFile(MeasuredFile, frozen=True, kw_only=True):
    """All of the file. See ``ErrorCurve``."""

    format: Literal["exactile.error_curve"]
    version: Literal[1]
    tile: tuple[Size, Size]
    seed: Annotated[int, Meta(ge=0)]
    images: Annotated[tuple[ImagePart, ...], Meta(min_length=1)]
    points: Annotated[tuple[PointPart, ...], Meta(min_length=1)]


def curve_file(curve: ErrorCurve) -> CurveFile:
    """Return ``curve`` as the file has it."""
    return CurveFile(
        format=FORMAT,
        version=VERSION,
        made_by=f"exactile {exactile.__version__}",
        belongs_to=curve.belongs_to,
        tile=curve.tile,
        seed=curve.seed,
        images=tuple(ImagePart(name=i.name, size=i.size, zones=i.zones, pixels=i.pixels) for i in curve.images),
        points=tuple(
            PointPart(halo_px=point.halo_px, **{name: _written(getattr(point, name)) for name in SHARES})
            for point in curve.points
        ),
    )


def write_curve(folder: Path, curve: ErrorCurve) -> Path:
    """Write it into the bundle ``folder``, complete or not at all. Raises SinkError."""
    path = folder / CURVE_NAME
    write_measured(path, curve_file(curve))
    return path


def read_curve(folder: Path, belongs_to: Callable[[], str]) -> ErrorCurve | None:
    """Return the curve of the bundle ``folder``, whose graphs have the given SHA-256; None if none was measured.

    Raises BundleError if it is damaged, or belongs to another model.
    """
    path = folder / CURVE_NAME
    remedy = "delete it, or measure it again with exactile verify BUNDLE --erf --image IMAGE"
    file = read_measured(path, CurveFile, belongs_to, what="error curve", most_bytes=MOST_BYTES, remedy=remedy)
    if file is None:
        return None
    halos = [point.halo_px for point in file.points]
    if halos != sorted(set(halos)):
        raise BundleError(f"{path} is damaged: its halos do not rise; {remedy}")
    return ErrorCurve(
        belongs_to=file.belongs_to,
        tile=file.tile,
        seed=file.seed,
        images=tuple(CurveImage(name=i.name, size=i.size, zones=i.zones, pixels=i.pixels) for i in file.images),
        points=tuple(
            ErrorPoint(halo_px=point.halo_px, **{name: _read(getattr(point, name)) for name in SHARES})
            for point in file.points
        ),
    )


def _written(value: float | None) -> float | Literal["infinite"] | None:
    return "infinite" if value == inf else value


def _read(value: float | Literal["infinite"] | None) -> float | None:
    return inf if value == "infinite" else value
