"""``exactile info --thumbnail``: write a thumbnail of the chosen image."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from exactile.cli.protection import protect_files
from exactile.errors import OptionError, OutputExistsError, SourceError
from exactile.request.progress import MeasuringBar
from exactile.sources.description import ImageDescription, ThumbnailDescription
from exactile.sources.descriptions.describe import chosen_series
from exactile.sources.open import open_source
from exactile.views.preview import write_png
from exactile.views.thumbnail import make_thumbnail, shown_channels, thumbnail_level

_COLOURS = ("red", "green", "blue")


def check_target(image: str, target: Path, *, overwrite: bool) -> None:
    """Raise OptionError, OutputExistsError or InputOverwrittenError before anything is read."""
    if target.suffix.lower() != ".png":
        raise OptionError(f"--thumbnail writes PNG pictures; {target} does not end in .png")
    protect_files([], [Path(image)], files=[(target, "--thumbnail")])
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists; choose another name, or give --overwrite")


def write_thumbnail(
    image: str, description: ImageDescription, channels: Sequence[int] | None, target: Path, *, progress: bool
) -> ImageDescription:
    """Write the thumbnail and return ``description`` with it. Raises SourceError if there is no image to draw."""
    chosen = description.chosen
    if chosen is None:
        raise SourceError(description.problem or f"{image}: cannot be read")
    series = chosen_series(description)
    level = thumbnail_level(series) if series is not None and len(series.levels) > 1 else chosen.level
    alpha = chosen.alpha.channel if chosen.alpha is not None else None
    shown, told = shown_channels(range(chosen.channels) if channels is None else channels, alpha)
    choice: dict[str, Any] = {name: getattr(chosen, name) for name in ("series", "z", "t", "page", "axes")}
    with (
        closing(open_source(image, **choice, level=level, channels=shown)) as source,
        MeasuringBar(target.name, enabled=progress) as bar,
    ):
        names = series.channel_names if series is not None else ()
        picture = make_thumbnail(source, together=names[:3] == _COLOURS and shown == (0, 1, 2), progress=bar.update)
        size = f"of level {level}, {source.height} x {source.width} pixels"
    write_png(target, picture.pixels)
    made = ThumbnailDescription(
        path=str(target),
        level=level,
        height=picture.pixels.shape[0],
        width=picture.pixels.shape[1],
        notes=(size, *picture.said, *told),
    )
    return replace(description, thumbnail=made)
