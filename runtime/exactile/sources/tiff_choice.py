"""Which pages of a TIFF file make up the image that was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from exactile.errors import OptionError, SourceError
from exactile.sources.tiff_limits import check_limits


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageChoice:
    """An image in a file: a level of a series as tifffile tells them apart, or one page by its number.

    ``axes`` CYX takes the pages of a series as channels whatever the file calls that axis.
    """

    level: int = 0
    series: int = 0
    page: int | None = None
    axes: str | None = None

    def __post_init__(self) -> None:
        if self.page is not None and (self.level or self.series):
            raise OptionError(f"page {self.page} is one image of its own; it goes with no level or series")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenPages:
    """The tifffile pages of one image; ``keyframe`` stands for all of them.

    ``plane_offsets`` goes before the pages where planes of plain samples follow each other; they may then have
    no pages of their own.
    """

    keyframe: Any
    pages: tuple[Any, ...]
    plane_offsets: tuple[int, ...] = ()


def choose_pages(tiff: Any, choice: ImageChoice, name: str) -> ChosenPages:
    """Find the pages for ``choice`` in an open ``tifffile.TiffFile``.

    Raises OptionError for a number beyond what the file has, SourceError when the image is no single plane of
    pixels with channels.
    """
    if choice.page is not None:
        page = _numbered(tiff.pages, choice.page, "page", name)
        page = page.aspage()
        _check_plane(page, name)
        return ChosenPages(keyframe=page, pages=(page,))
    check_limits(tiff, name)
    series = _numbered(tiff.series, choice.series, "series", name)
    return _pages_of_series(_numbered(series.levels, choice.level, "level", name), choice, name)


def _numbered(items: Any, number: int, kind: str, name: str) -> Any:
    if len(items) == 0:
        raise SourceError(f"{name}: holds no image")
    if not 0 <= number < len(items):
        raise OptionError(
            f"{name}: {kind} {number} was asked for, but the file has {len(items)}, numbered 0 to {len(items) - 1}"
        )
    return items[number]


def _pages_of_series(series: Any, choice: ImageChoice, name: str) -> ChosenPages:
    keyframe = series.keyframe
    _check_plane(keyframe, name)
    if series.is_multifile:
        raise SourceError(f"{name}: the image is spread over several files; store it in one, or read one page")
    if series.transform is not None:
        raise SourceError(f"{name}: its samples are stored under a transformation; convert it to plain samples")
    long = [(size, axis) for size, axis in zip(series.shape, series.axes, strict=True) if size > 1 or axis in "YX"]
    shape, axes = tuple(size for size, _ in long), "".join(axis for _, axis in long)
    if shape == _plane_shape(keyframe):
        return ChosenPages(keyframe=keyframe, pages=(series[0],))
    planes = _channel_planes(shape, axes, keyframe, choice, name)
    start = series.dataoffset
    if start is not None:
        if start <= 0:
            raise SourceError(f"{name}: has a damaged structure: its pixels are said to begin at byte {start}")
        # ImageJ's and tifffile's own stacks: what the first page says of them goes before later pages.
        offsets = tuple(start + index * keyframe.nbytes for index in range(planes))
        return ChosenPages(keyframe=keyframe, pages=(keyframe,), plane_offsets=offsets)
    if len(series) != planes:
        raise SourceError(f"{name}: has {planes} channels, but {len(series)} of the pages that should hold them")
    pages = tuple(series[index] for index in range(planes))
    for index, page in enumerate(pages):
        if page is None:
            raise SourceError(f"{name}: the page of channel {index} is missing from the file")
        if page.keyframe.hash != keyframe.hash:
            raise SourceError(f"{name}: the page of channel {index} is stored unlike that of channel 0")
    return ChosenPages(keyframe=keyframe, pages=pages)


def _plane_shape(keyframe: Any) -> tuple[int, ...]:
    """The shape of one page without axes of length 1, but for Y and X."""
    separate, _, height, width, contiguous = keyframe.shaped
    return tuple(
        size for size, always in ((separate, False), (height, True), (width, True), (contiguous, False))
        if always or size > 1
    )  # fmt: skip


def _check_plane(keyframe: Any, name: str) -> None:
    if 0 in keyframe.shaped:
        raise SourceError(f"{name}: the image has no pixels (shape {keyframe.shape})")
    if keyframe.planarconfig not in {None, 1, 2}:
        raise SourceError(
            f"{name}: has a damaged structure: its planar configuration is {int(keyframe.planarconfig)};"
            " 1 (samples of a pixel together) and 2 (planes) are known"
        )
    if keyframe.shaped[1] != 1 or (keyframe.is_tiled and keyframe.tiledepth != 1):
        raise SourceError(
            f"{name}: is a volume of {keyframe.shaped[1]} planes; store each plane as a page and choose one"
        )
    if keyframe.photometric == 3:
        raise SourceError(f"{name}: its samples are numbers of palette colours; convert the image to RGB or grey")


def _channel_planes(shape: tuple[int, ...], axes: str, keyframe: Any, choice: ImageChoice, name: str) -> int:
    """The number of pages that are channels of one image."""
    height, width = keyframe.shaped[2:4]
    stack_of_planes = (
        len(shape) == 3 and shape[1:] == (height, width) and axes[1:] == "YX" and _plane_shape(keyframe) == shape[1:]
    )
    if stack_of_planes and (axes[0] in "CS" or choice.axes == "CYX"):
        return shape[0]
    remedy = "choose one page by its number" + (", or say that its axes are CYX" if stack_of_planes else "")
    raise SourceError(f"{name}: holds {axes} of {shape}, which is more than one image with channels; {remedy}")
