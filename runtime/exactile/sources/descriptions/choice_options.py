"""List the options of the command line that choose among what a file holds."""

from __future__ import annotations

from collections.abc import Iterator

from exactile.sources.description import ChoiceOption, Listing, SeriesDescription
from exactile.sources.pixel_size import TOLERANCE


def choice_options(
    listing: Listing, series: SeriesDescription | None, *, level: int, channels_needed: bool
) -> Iterator[ChoiceOption]:
    """Yield the options that make a difference for this file, for ``level`` of ``series`` (None if that
    is not listed).
    """
    if listing.series_count > 1:
        yield _numbers("--series", listing.series_count)
    if series is not None:
        yield from _of_levels(series)
        yield from _of_planes(series, level)
        if series.channels > 1 and series.series not in listing.planes_need_pages:
            note = "one or several, in any order, e.g. --channels 1,0"
            yield _numbers("--channels", series.channels, needed=channels_needed, note=note)
    yield from _of_pages(listing, series)
    if listing.axes_values:
        yield ChoiceOption(option="--axes", needed=False, values=listing.axes_values, note=_axes_note(listing))


def _of_levels(series: SeriesDescription) -> Iterator[ChoiceOption]:
    """Yield ``--mpp``, for levels whose pixels are about as high as wide."""
    if len(series.levels) < 2:
        return
    yield _numbers("--level", len(series.levels), note="0 is full resolution")
    sizes = [level.pixel_size_um for level in series.levels]
    known = tuple(f"{size[0]:.4g}" for size in sizes if size is not None and abs(size[1] / size[0] - 1) < TOLERANCE)
    if known:
        yield ChoiceOption(option="--mpp", needed=False, values=known, note="within 5 %, instead of --level")


def _of_planes(series: SeriesDescription, level: int) -> Iterator[ChoiceOption]:
    chosen = series.levels[level] if level < len(series.levels) else None
    for axis in "ZT":
        length = series.length(axis, chosen)
        if length > 1:
            yield _numbers(f"--{axis.lower()}", length, needed=True)


def _of_pages(listing: Listing, series: SeriesDescription | None) -> Iterator[ChoiceOption]:
    """Yield ``--page``, which is needed if the axes of a stack are not known."""
    if listing.pages is not None and listing.pages > 1:
        needed = not listing.series or (series is not None and series.series in listing.planes_need_pages)
        note = "one page, whatever it is, instead of --series, --z, --t"
        yield _numbers("--page", listing.pages, needed=needed, note=note)


def _axes_note(listing: Listing) -> str:
    if listing.planes_need_pages:
        return "all pages as channels of one image"
    return "the axes of an array of three axes without names; YXC by default"


def _numbers(option: str, count: int, *, needed: bool = False, note: str | None = None) -> ChoiceOption:
    return ChoiceOption(option=option, needed=needed, least=0, most=count - 1, note=note)
