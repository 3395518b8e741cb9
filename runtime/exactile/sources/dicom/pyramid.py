"""Group the images in DICOM files into pyramids: series of levels, each of channels and focal planes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from exactile.errors import SourceError
from exactile.sources.dicom.instance import DicomInstance
from exactile.sources.pixel_size import PixelSize, scaled

SAME_PLACE_MM = 0.02
"""Images that begin no further apart on the slide are of one pyramid; wsidicom's own measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomLevel:
    """An image of one size: the instance that holds it for each optical path and focal plane (in micrometres)."""

    height: int
    width: int
    instances: dict[tuple[str, float], DicomInstance] = field(default_factory=dict)

    @property
    def depths(self) -> list[float]:
        """Focal planes, from the lowest."""
        return sorted({z for _, z in self.instances})

    @property
    def pixel_size_um(self) -> PixelSize | None:
        return next((one.pixel_size_um for one in self.instances.values() if one.pixel_size_um is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomSeries:
    """A pyramid of one coloured optical path, or of several grey ones, which are channels in the order of the files.

    ``levels`` begin with the largest.
    """

    colour: bool
    paths: tuple[str, ...]
    levels: tuple[DicomLevel, ...]

    @property
    def pixel_sizes(self) -> list[PixelSize | None]:
        """Pixel size of each level, derived from the largest if a level does not state it."""
        full = self.levels[0]
        size = (full.height, full.width)
        return [
            level.pixel_size_um or scaled(full.pixel_size_um, size, (level.height, level.width))
            for level in self.levels
        ]


def series_of(instances: Sequence[DicomInstance]) -> list[DicomSeries]:
    """Return the pyramids of ``instances``, in the order of their files. Raises SourceError for two equal ones."""
    return [series for pyramid in _by_place(instances) for series in _by_colour(pyramid)]


def _by_place(instances: Iterable[DicomInstance]) -> list[list[DicomInstance]]:
    pyramids: list[list[DicomInstance]] = []
    for instance in sorted(instances, key=lambda one: -one.height * one.width):
        fitting = (pyramid for pyramid in pyramids if all(_same_place(instance, other) for other in pyramid))
        pyramid = next(fitting, None)
        if pyramid is None:
            pyramids.append([instance])
        else:
            pyramid.append(instance)
    return pyramids


def _same_place(one: DicomInstance, other: DicomInstance) -> bool:
    if one.focus != other.focus:
        return False
    if one.place is None or other.place is None:
        return one.place is other.place
    return bool(one.place.origin_and_rotation_match(other.place, origin_threshold=SAME_PLACE_MM))


def _by_colour(pyramid: Sequence[DicomInstance]) -> list[DicomSeries]:
    """Return each coloured optical path as its own series; all grey ones with samples of one size are one."""
    found: dict[tuple[str, str], dict[tuple[int, int], DicomLevel]] = {}
    for instance in pyramid:
        colour = instance.form.samples > 1
        for path, z in instance.planes:
            levels = found.setdefault((path if colour else "", "" if colour else instance.form.dtype.name), {})
            size = (instance.height, instance.width)
            level = levels.setdefault(size, DicomLevel(height=size[0], width=size[1]))
            _add(level, path, z, instance)
    return [
        DicomSeries(
            colour=not dtype,
            paths=tuple(dict.fromkeys(path for level in levels.values() for path, _ in level.instances)),
            levels=tuple(levels.values()),
        )
        for (_, dtype), levels in found.items()
    ]


def _add(level: DicomLevel, path: str, z: float, instance: DicomInstance) -> None:
    known = level.instances.setdefault((path, z), instance)
    if known is not instance:
        raise SourceError(
            f"{instance.name}: and {known.name} both hold {level.height} x {level.width} pixels of optical path {path} "
            f"at focal plane {z:g} um; name the one that is wanted"
        )
