"""Print the description of an image."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from exactile.plan.budget import format_bytes
from exactile.sources.description import (
    ChoiceOption,
    ChosenImage,
    ImageDescription,
    LevelDescription,
    SeriesDescription,
)

Row = tuple[str, str]


def print_image(description: ImageDescription) -> None:
    """Print it on stdout, as a table."""
    table = Table.grid(padding=(0, 2))
    for name, value in _rows(description):
        table.add_row(name, Text(value))
    Console(highlight=False, soft_wrap=True).print(table)
    if description.command is not None:
        typer.echo(f"\n{description.command}")  # in one line, to be copied


def _rows(description: ImageDescription) -> Iterator[Row]:
    size = "" if description.file_bytes is None else f" ({format_bytes(description.file_bytes)})"
    yield "image", f"{description.image}{size}"
    yield "format", description.kind + (f", {description.pages} pages" if (description.pages or 0) > 1 else "")
    reader = " ".join(part for part in (description.reader, description.reader_version) if part)
    if reader:
        yield "reader", reader
    for series in description.series:
        yield from _series_rows(series)
    more = description.series_count - len(description.series)
    if more:
        yield "", f"and {more} more series"
    if description.chosen is not None:
        yield from _chosen_rows(description.chosen)
    for note in description.notes:
        yield "note", note
    for option in description.options:
        yield option.option, _range(option)
    if description.thumbnail is not None:
        made = description.thumbnail
        yield "thumbnail", f"{made.path}, {made.height} x {made.width} pixels {'; '.join(made.notes)}"
    if description.problem is not None:
        yield "NOT READ", description.problem


def _series_rows(series: SeriesDescription) -> Iterator[Row]:
    parts = [f'"{series.name}"'] if series.name else []
    if not series.levels:
        yield f"series {series.series}", "; ".join([*parts, "not read"])
        return
    parts.append(f"{series.axes} {' x '.join(map(str, series.shape))}")
    parts.append(f"samples {_samples(series.stored_dtype, series.dtype)}")
    parts.append(_channels(series))
    parts += [f"{length} planes along {axis}" for axis, length in (("Z", series.z), ("T", series.t)) if length > 1]
    yield f"series {series.series}", "; ".join(parts)
    for level in series.levels:
        yield f"  level {level.level}", _level(level) + _fewer_planes(series, level)


def _channels(series: SeriesDescription) -> str:
    counted = f"{series.channels} channel{'s' if series.channels > 1 else ''}"
    names = ", ".join(f"{number} {name}" for number, name in enumerate(series.channel_names))
    return f"{counted}: {names}" if names else counted


def _samples(stored: str, delivered: str | None) -> str:
    if delivered is None:
        return f"{stored}, which are not read"
    return stored if stored == delivered else f"{stored}, delivered as {delivered}"


def _level(level: LevelDescription) -> str:
    text = f"{level.height} x {level.width} pixels"
    if level.pixel_size_um is not None:
        text += f" of {_microns(level.pixel_size_um)}"
    if level.level:
        factors = " x ".join(f"{factor:.4g}" for factor in level.downsample)
        text += f"; reduced by {factors}" if level.reduction else f"; NOT level 0 reduced: by {factors}"
    if level.chunk_kind == "whole image":
        text += "; in one piece"
    elif level.chunk is not None and level.chunks is not None:
        rows, columns = level.chunk
        text += f"; {level.chunks[0]} x {level.chunks[1]} {level.chunk_kind} of {rows} x {columns}"
    return text + (f"; compression {level.compression}" if level.compression else "")


def _fewer_planes(series: SeriesDescription, level: LevelDescription) -> str:
    lengths = ((axis, series.length(axis), series.length(axis, level)) for axis in "ZT")
    return "".join(f"; {own} planes along {axis}" for axis, full, own in lengths if own != full)


def _microns(size: tuple[float, float]) -> str:
    height, width = (f"{side:.4g}" for side in size)
    return f"{height} um" if height == width else f"{height} x {width} um"


def _chosen_rows(chosen: ChosenImage) -> Iterator[Row]:
    places = [("series", chosen.series), ("level", chosen.level), ("z", chosen.z), ("t", chosen.t)]
    if chosen.page is not None:
        places = [("page", chosen.page)]
    where = ", ".join(f"{name} {number}" for name, number in places if number is not None)
    if chosen.axes is not None:
        where += f", axes {chosen.axes}"
    size = f"{chosen.height} x {chosen.width} pixels (height x width)"
    if chosen.pixel_size_um is not None:
        size += f" of {_microns(chosen.pixel_size_um)}"
    counted = f"{chosen.channels} channel{'s' if chosen.channels > 1 else ''}"
    chunks = f"; {chosen.chunks_stored} chunk{'s' if chosen.chunks_stored > 1 else ''}" if chosen.chunks_stored else ""
    yield "chosen", f"{where}: {size}, {counted}, {_samples(chosen.stored_dtype, chosen.dtype)}{chunks}"
    if chosen.alpha is not None:
        times = ", by which colours were multiplied" if chosen.alpha.premultiplied else ""
        yield "alpha", f"channel {chosen.alpha.channel}{times}; dropped for a network that takes only the others"
    if chosen.nodata is not None:
        yield "no data", f"where all channels are {chosen.nodata}"
    if chosen.mask_page is not None:
        yield "mask", f"page {chosen.mask_page} is 0 where there is no data"
    if chosen.georeferenced:
        scale = (
            f", pixel scale {', '.join(f'{part:.10g}' for part in chosen.pixel_scale)}" if chosen.pixel_scale else ""
        )
        yield "place", f"{chosen.crs or 'georeferenced, its system has no EPSG number'}{scale}"
    for note in chosen.notes:
        yield "note", note


def _range(option: ChoiceOption) -> str:
    text = ", ".join(option.values) if option.values else f"{option.least} to {option.most}"
    text += "; needed" if option.needed else ""
    return f"{text}; {option.note}" if option.note else text
