"""Find the array of a Zarr hierarchy that is the requested image, and the meaning of its axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exactile.errors import OptionError, SourceError
from exactile.sources.axis_order import check_axes
from exactile.sources.image_choice import ImageChoice, check_number
from exactile.sources.pixel_size import PixelSize, choose_level, pixel_size, to_microns
from exactile.sources.zarr.store import is_array, member_names, open_member

_LETTERS = {"time": "T", "channel": "C"}
"""Axes known by their type, whatever they are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZarrImage:
    """An array, a letter for each of its axes (? if unknown), and the documents that describe it."""

    array: Any
    axes: str
    level: int = 0
    pixel_size_um: PixelSize | None = None
    documents: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if len(self.axes) != self.array.ndim:
            raise SourceError(f"{self.array.name}: has shape {self.array.shape}, but its axes are called {self.axes}")


def choose_image(node: Any, choice: ImageChoice, name: str) -> ZarrImage:
    """Find the array for ``choice`` in a ``zarr.Array`` or ``zarr.Group``.

    Raises SourceError for a group without an image and for damaged metadata, OptionError for a number that does not
    exist.
    """
    check_axes(choice.axes)
    try:
        return _plain_image(node, choice, name) if is_array(node) else _group_image(node, choice, name)
    # Metadata is JSON of any shape.
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{name}: has damaged OME metadata: {type(error).__name__}: {error}") from error


def _plain_image(array: Any, choice: ImageChoice, name: str) -> ZarrImage:
    check_number(choice.series, 1, "series", name, "image")
    level = choose_level(choice, [None], name)
    return ZarrImage(array=array, axes=plain_axes(array, choice, name), level=level, documents=(_document(array),))


def plain_axes(array: Any, choice: ImageChoice, name: str) -> str:
    """Return the axes as given, as the array names its dimensions, or YX and YXC by their number."""
    named = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if choice.axes is None and named and any(named):
        axes = "".join(_letter(dimension) for dimension in named)
        if "?" in axes:
            raise SourceError(f"{name}: its dimensions are called {tuple(named)}; say what they are with axes (--axes)")
        return axes
    axes = choice.axes or {2: "YX", 3: "YXC"}.get(array.ndim, "")
    if len(axes) != array.ndim:
        raise SourceError(
            f"{name}: an array of shape {array.shape} cannot be read as {axes or 'an image'}; give an array of two axes"
            " (YX) or three (YXC or CYX), or one with OME metadata"
        )
    return axes


def _group_image(group: Any, choice: ImageChoice, name: str) -> ZarrImage:
    attributes = group.attrs.asdict()
    ome = attributes.get("ome", attributes)
    if "bioformats2raw.layout" in ome and "multiscales" not in ome:
        group, ome = _numbered_series(group, choice, name)
        entries, number = ome["multiscales"], 0
    else:
        entries, number = ome.get("multiscales"), choice.series
    if not entries:
        raise no_image(group, ome, name)
    multiscale = entries[check_number(number, len(entries), "series", name)]
    datasets = multiscale["datasets"]
    axes = ome_axes(multiscale, choice, name)
    sizes = [level_pixel_size(multiscale, dataset) for dataset in datasets]
    level = choose_level(choice, sizes, name)
    array = open_member(group, datasets[level]["path"], name)
    if not is_array(array):
        raise SourceError(f"{name}: level {level}, {datasets[level]['path']!r}, is no array")
    documents = (ome, _document(array))
    return ZarrImage(array=array, axes=axes, level=level, pixel_size_um=sizes[level], documents=documents)


def _numbered_series(group: Any, choice: ImageChoice, name: str) -> tuple[Any, Mapping[str, Any]]:
    """Return the image of a hierarchy written by bioformats2raw: groups 0, 1, ..., one for each series."""
    names = series_names(group)
    if names:
        check_number(choice.series, len(names), "series", name)
    image = open_member(group, str(choice.series), name)
    attributes = image.attrs.asdict()
    return image, attributes.get("ome", attributes)


def series_names(group: Any) -> list[str]:
    """Return the names of the images of a hierarchy written by bioformats2raw; none if the store cannot list them."""
    return sorted((key for key in member_names(group) if key.isdigit()), key=int)


def no_image(group: Any, ome: Mapping[str, Any], name: str) -> SourceError:
    held = ", ".join(member_names(group)) or "nothing that can be listed"
    kind = "a plate" if "plate" in ome else "a well" if "well" in ome else "a group without images (multiscales)"
    return SourceError(f"{name}: is {kind}; give the path of one image in it: it holds {held}")


def ome_axes(multiscale: Mapping[str, Any], choice: ImageChoice, name: str) -> str:
    # Versions 0.1 and 0.2 had only these axes, 0.3 only names.
    axes = "".join(_letter(axis) for axis in multiscale.get("axes", "tczyx"))
    if choice.axes is not None and choice.axes != axes:
        raise OptionError(f"{name}: axes {choice.axes} were requested, but its metadata says {axes}; leave them out")
    return axes


def _letter(axis: Mapping[str, Any] | str | None) -> str:
    name, kind = (axis["name"], axis.get("type")) if isinstance(axis, Mapping) else (axis, axis)
    letter = str(name).upper()
    return letter if letter in set("TCZYX") else _LETTERS.get(str(kind).lower(), "?")


def level_pixel_size(multiscale: Mapping[str, Any], dataset: Mapping[str, Any]) -> PixelSize | None:
    """Return the scales of the level and of the whole pyramid; None if an axis has no unit."""
    sides = {}
    for index, axis in enumerate(multiscale.get("axes", ())):
        if not isinstance(axis, Mapping):
            return None
        factor = 1.0
        for transformed in (dataset, multiscale):
            factor *= _scale(transformed.get("coordinateTransformations", ()), index)
        sides[_letter(axis)] = to_microns(factor, axis.get("unit"))
    return pixel_size(sides.get("Y"), sides.get("X"))


def _scale(transformations: Sequence[Mapping[str, Any]], axis: int) -> float:
    factor = 1.0
    for transformation in transformations:
        if transformation["type"] == "scale":
            # A scale may be stored in a separate array; then it is not known here.
            factor *= float(transformation["scale"][axis]) if "scale" in transformation else float("nan")
    return factor


def _document(array: Any) -> Any:
    return array.metadata.to_dict()
