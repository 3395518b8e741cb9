"""Find the pages of a TIFF file that make up the requested image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from exactile.errors import SourceError
from exactile.sources.image_choice import ImageChoice, check_number, choose_positions
from exactile.sources.pixel_size import PixelSize, choose_level
from exactile.sources.tiff.limits import check_limits
from exactile.sources.tiff.pixel_size import level_pixel_sizes, page_pixel_size


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenPages:
    """The tifffile pages of one image; ``keyframe`` stands for all of them.

    ``plane_offsets`` takes precedence over the pages if planes of plain samples follow each other; they may then have
    no pages of their own. ``level`` is the image's number in its pyramid, ``full`` the page of the pyramid's full size.
    """

    keyframe: Any
    pages: tuple[Any, ...]
    plane_offsets: tuple[int, ...] = ()
    full: Any = None
    level: int = 0
    pixel_size_um: PixelSize | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stack:
    """The planes of one image among the pages of a series: ``indices``, in the order of the channels."""

    series: Any
    indices: tuple[int, ...]
    complete: bool
    """Whether the image is all that the series holds, in one page."""


def choose_pages(tiff: Any, choice: ImageChoice, name: str) -> ChosenPages:
    """Find the pages for ``choice`` in an open ``tifffile.TiffFile``.

    Raises OptionError for a number beyond what the file has, SourceError if the image is not a single plane of pixels
    with channels.
    """
    if choice.page is not None:
        page = tiff.pages[check_number(choice.page, len(tiff.pages), "page", name)].aspage()
        _check_plane(page, name)
        return ChosenPages(keyframe=page, pages=(page,), pixel_size_um=page_pixel_size(page))
    check_limits(tiff, name)
    number = check_number(choice.series, len(tiff.series), "series", name)
    levels = tiff.series[number].levels
    sizes = level_pixel_sizes(tiff, number)
    level = choose_level(choice, sizes, name)
    stack = _planes_of_series(levels[level], choice, name)
    pages, offsets = _pages_of_stack(stack, name)
    return ChosenPages(
        keyframe=levels[level].keyframe,
        pages=pages,
        plane_offsets=offsets,
        full=levels[0].keyframe,
        level=level,
        pixel_size_um=sizes[level],
    )


def _planes_of_series(series: Any, choice: ImageChoice, name: str) -> _Stack:
    keyframe = series.keyframe
    _check_plane(keyframe, name)
    if series.is_multifile:
        raise SourceError(f"{name}: the image is spread over several files; store it in one, or read one page (--page)")
    if series.transform is not None:
        raise SourceError(f"{name}: its samples are stored under a transformation; convert it to plain samples")
    shape, _ = _long_axes(series)
    plane = _plane_shape(keyframe)
    stacked = len(shape) - len(plane)
    if stacked == 0 and shape == plane:
        choose_positions("", (), choice, name)
        return _Stack(series=series, indices=(0,), complete=True)
    if stacked < 1 or shape[stacked:] != plane:
        raise _no_image(series, name)
    return _Stack(series=series, indices=_indices(series, stacked, choice, name), complete=False)


def _long_axes(series: Any) -> tuple[tuple[int, ...], str]:
    """Return sizes and letters of the axes of a series, without those of length 1 but Y and X."""
    long = [(size, axis) for size, axis in zip(series.shape, series.axes, strict=True) if size > 1 or axis in "YX"]
    return tuple(size for size, _ in long), "".join(axis for _, axis in long)


def _indices(series: Any, stacked: int, choice: ImageChoice, name: str) -> tuple[int, ...]:
    """Return the pages of the image's channels, among pages stacked along the first ``stacked`` axes."""
    shape, axes = _long_axes(series)
    channels = _channel_axis(shape, axes, stacked, choice)
    letters = [axis if channels != index else "C" for index, axis in enumerate(axes[:stacked])]
    if "C" in letters and len(shape) - stacked > 2:
        raise _no_image(series, name)
    told_apart = "".join(letters)
    ways = _pages_remedy(series)
    if stacked == 1 and len(shape) == stacked + 2:
        ways += ["take its pages as channels with --axes CYX"]
    positions = choose_positions(told_apart + axes[stacked:], shape, choice, name, remedies=ways)[:stacked]
    count = shape[channels] if channels is not None else 1
    return tuple(
        int(np.ravel_multi_index([index if at == channels else p for at, p in enumerate(positions)], shape[:stacked]))
        for index in range(count)
    )


def _channel_axis(shape: tuple[int, ...], axes: str, stacked: int, choice: ImageChoice) -> int | None:
    """Return which of the stacked axes holds channels: by name, or with ``axes`` CYX the only one."""
    named = [index for index in range(stacked) if axes[index] in "CS"]
    if named:
        return named[0]
    undecided = [
        index for index in range(stacked)
        if not (axes[index] == "Z" and choice.z is not None) and not (axes[index] == "T" and choice.t is not None)
    ]  # fmt: skip
    plain = len(shape) - stacked == 2
    return undecided[0] if choice.axes == "CYX" and plain and len(undecided) == 1 else None


def _pages_of_stack(stack: _Stack, name: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """Return the pages of the planes, or the offsets of planes that follow each other."""
    series, keyframe = stack.series, stack.series.keyframe
    if stack.complete:
        return (series[0],), ()
    if series.dataoffset is not None:
        if series.dataoffset <= 0:
            raise SourceError(
                f"{name}: has a damaged structure: its pixels are said to begin at byte {series.dataoffset}"
            )
        # ImageJ's and tifffile's own stacks: the first page takes precedence over later pages.
        separate = keyframe.shaped[0]
        starts = [series.dataoffset + index * keyframe.nbytes for index in stack.indices]
        plane_bytes = keyframe.nbytes // separate
        return (keyframe,), tuple(start + plane * plane_bytes for start in starts for plane in range(separate))
    if len(series) <= max(stack.indices):
        raise SourceError(
            f"{name}: page {max(stack.indices)} of the image is wanted, but {len(series)} of its pages are there"
        )
    pages = tuple(series[index] for index in stack.indices)
    for index, page in enumerate(pages):
        if page is None:
            raise SourceError(f"{name}: the page of channel {index} is missing from the file")
        if page.keyframe.hash != keyframe.hash:
            raise SourceError(f"{name}: the page of channel {index} is stored unlike that of channel 0")
    return pages, ()


def _plane_shape(keyframe: Any) -> tuple[int, ...]:
    """Return the shape of one page without axes of length 1, but for Y and X."""
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


def _pages_remedy(series: Any) -> list[str]:
    """Return how to read one plane by its page, if each has one."""
    pages = len(series.keyframe.parent.pages)
    return [f"choose one page (--page) from 0 to {pages - 1}"] if pages > 1 else []


def _no_image(series: Any, name: str) -> SourceError:
    shape, axes = _long_axes(series)
    ways = _pages_remedy(series) or ["store the planes as separate images"]
    return SourceError(f"{name}: holds {axes} of {shape}, which is more than one image with channels; {ways[0]}")
