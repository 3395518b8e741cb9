"""Describe an image, what else its file holds, and how to choose among it, for every format."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import exactile
from exactile.errors import SourceError
from exactile.sources.address import as_address, shown_name
from exactile.sources.description import ChosenImage, ImageDescription, Listing, SeriesDescription
from exactile.sources.descriptions.choice_options import choice_options
from exactile.sources.descriptions.described_source import described_source
from exactile.sources.open import image_kind, open_source

Choice = dict[str, Any]
"""Arguments of ``open_source``."""

_DESCRIBED = {
    "tiff": "tiff.description.describe_tiff",
    "slide": "slide.description.describe_slide",
    "picture": "picture.description.describe_picture",
    "nd2": "nd2.description.describe_nd2",
    "lif": "lif.description.describe_lif",
}
"""The module that describes the files of a kind of source. Other kinds are probed."""

_WITH_AXES = {"zarr": "zarr.description.describe_zarr", "npy": "npy.description.describe_npy"}
"""The same for files whose axes may have to be given."""

_DEFAULTS: Choice = {
    "series": 0, "level": 0, "mpp": None, "z": None, "t": None, "page": None, "axes": None, "channels": None,
}  # fmt: skip


def describe_image(
    image: str | os.PathLike[str],
    *,
    series: int = 0,
    level: int = 0,
    mpp: float | None = None,
    z: int | None = None,
    t: int | None = None,
    page: int | None = None,
    channels: Sequence[int] | None = None,
    axes: str | None = None,
) -> ImageDescription:
    """Describe all that ``image``, a file, folder or address, holds, and the chosen image in it.

    The choice is that of ``open_source``; if it needs a plane of a stack and none is given, the first is taken. Only
    structure and metadata are read.

    Raises SourceError for what is not an image, OptionError and ChannelError for a choice that does not exist. An image
    that exists but cannot be read is not an error: ``problem`` says why.
    """
    given: Choice = {"series": series, "level": level, "mpp": mpp, "z": z, "t": t, "page": page}
    given |= {"channels": channels, "axes": axes}
    kind = image_kind(image)
    listing = _listing_of(kind, image, axes)
    used, chosen, problem = _choose(image, listing, given)
    return ImageDescription(
        format="exactile.image",
        version=1,
        exactile=exactile.__version__,
        image=shown_name(image),
        kind=listing.kind,
        reader=listing.reader,
        reader_version=listing.reader_version,
        file_bytes=_file_bytes(image),
        pages=listing.pages,
        series_count=listing.series_count,
        series=listing.series,
        options=tuple(
            choice_options(
                listing,
                _at(listing.series, used["series"]),
                level=chosen.level if chosen is not None else 0,
                channels_needed=used["channels"] is not None and channels is None,
            )
        ),
        chosen=chosen,
        command=_command(image, used) if chosen is not None else None,
        problem=problem,
        notes=listing.notes,
    )


def chosen_series(description: ImageDescription) -> SeriesDescription | None:
    """Return the series of the chosen image; None for a page, or a series that is not listed."""
    chosen = description.chosen
    return None if chosen is None or chosen.page is not None else _at(description.series, chosen.series)


def _listing_of(kind: str, image: str | os.PathLike[str], axes: str | None) -> Listing:
    """Return the listing by the format's own reader, or by what any source exposes. Heavy libraries are imported on
    demand.
    """
    if kind in _WITH_AXES:
        told: Listing = _describer(_WITH_AXES[kind])(image, axes)
    elif kind in _DESCRIBED:
        told = _describer(_DESCRIBED[kind])(image)
    else:
        told = _describer("descriptions.probed.probe")(image, kind)
    return told


def _describer(name: str) -> Any:
    module, function = name.rsplit(".", 1)
    return getattr(import_module(f"exactile.sources.{module}"), function)


def _choose(
    image: str | os.PathLike[str], listing: Listing, given: Choice
) -> tuple[Choice, ChosenImage | None, str | None]:
    """Return the choice that was made, its image, and why there is none."""
    problem: SourceError | None = None
    for choice in _attempts(listing, given):
        try:
            return choice, _described(image, choice), None
        except SourceError as error:
            problem = problem or error
    return given, None, str(problem)


def _attempts(listing: Listing, given: Choice) -> Iterator[Choice]:
    """Yield the given choice, completed by the first plane; if axes are not known, the first page, or
    all as channels.
    """
    series = _at(listing.series, given["series"])
    if given["page"] is not None:
        yield given
        return
    if not listing.series and listing.pages:
        yield given | {"page": 0}
        return
    lengths = (
        {"z": series.z, "t": series.t} if series is not None else {"z": 2, "t": 2}
    )  # of the others nothing is known
    planes = {axis: 0 for axis, length in lengths.items() if length > 1 and given[axis] is None}
    yield given | planes
    if series is None or series.series not in listing.planes_need_pages:
        if given["channels"] is None:
            yield given | planes | {"channels": (0,)}  # of channels that are not read together
        return
    alone = all(given[name] == _DEFAULTS[name] for name in ("level", "mpp", "z", "t", "axes"))
    if alone and series.first_page is not None and (listing.pages or 0) > 1:
        yield given | {"page": series.first_page, "series": 0}
    if given["axes"] is None:
        yield from (given | {"axes": axes} for axes in listing.axes_values)


def _described(image: str | os.PathLike[str], choice: Choice) -> ChosenImage:
    source = open_source(image, **choice, workers=1)
    try:
        return described_source(source, choice)
    finally:
        source.close()


def _command(image: str | os.PathLike[str], used: Mapping[str, Any]) -> str:
    name = shown_name(image)
    words = ["exactile", "run", "MODEL", name, "-o", "labels.tif"]
    for option, default in _DEFAULTS.items():
        value = used[option]
        if value != default:
            words += [f"--{option}", ",".join(map(str, value)) if option == "channels" else str(value)]
    return shlex.join(words)


def _file_bytes(image: str | os.PathLike[str]) -> int | None:
    path = Path(image)
    return path.stat().st_size if as_address(image) is None and path.is_file() else None


def _at(series: Sequence[SeriesDescription], number: int) -> SeriesDescription | None:
    return series[number] if 0 <= number < len(series) else None
