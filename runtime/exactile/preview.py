"""Small pictures of a result for people: labels in colour, alone or over the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import LabelClass
from exactile.errors import OptionError
from exactile.geometry import Box, Span
from exactile.sinks.failures import os_errors_as_sink_errors
from exactile.sources.protocol import ReadPlan, Source

MOST_PX = 2048
"""The longer side of a picture."""

BAND_BYTES = 32 << 20
OPACITY = 0.45

MIXED_ROWS = 64
"""At a time: mixing takes 50 bytes a sample."""

# Okabe and Ito's colours, which colour-blind people tell apart; black for 0.
_COLORS = ((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
           (204, 121, 167))  # fmt: skip

RGB = NDArray[np.uint8]


def overview(open_level: Callable[[int], Source], most_px: int = MOST_PX) -> NDArray[Any]:
    """The image with at most ``most_px`` pixels a side, (h, w, C): every n-th pixel of the best level of a pyramid.

    ``open_level`` opens a level by number, and raises OptionError where there is none. Bounded memory.
    """
    source, level = open_level(0), 0
    try:
        while max(source.height, source.width) >= 2 * most_px:
            try:
                smaller = open_level(level + 1)
            except OptionError:
                break
            source.close()
            source, level = smaller, level + 1
        return _every_nth(source, ceil(max(source.height, source.width) / most_px))
    finally:
        source.close()


def _every_nth(source: Source, step: int) -> NDArray[Any]:
    row_bytes = source.width * source.channels * source.dtype.itemsize
    rows = max(step, BAND_BYTES // max(1, row_bytes) // step * step)
    spans = [Span(y, min(y + rows, source.height)) for y in range(0, source.height, rows)]
    columns = Span(0, source.width)
    source.prepare(ReadPlan(rows=spans, columns=[columns]), cache_bytes=4 * BAND_BYTES)
    band = np.empty((min(rows, source.height), source.width, source.channels), source.dtype)
    found = []
    for span in spans:
        pixels = band[: span.length]
        source.read(Box(span, columns), pixels)
        found.append(pixels[::step, ::step].copy())
    return np.concatenate(found)


def palette(labels: Sequence[LabelClass]) -> RGB:
    """A colour for each label from 0 to 65535, (65536, 3): the model's where it says so."""
    colors = np.resize(np.array(_COLORS[1:], np.uint8), (65536, 3))
    colors[0] = _COLORS[0]
    for label in labels:
        colors[label.value] = label.rgb
    return colors


def colored(labels: NDArray[Any], colors: RGB) -> RGB:
    """(h, w) labels as (h, w, 3); labels without a colour of their own share those of others, but never that of 0."""
    numbers = labels.astype(np.int64)
    own = (numbers >= 0) & (numbers < len(colors))
    return colors[np.where(own, numbers, 1 + numbers % (len(colors) - 1))]


def overlaid(image: NDArray[Any], labels: NDArray[Any], colors: RGB) -> RGB:
    """Labels but 0 over the image (h, w, C), which is stretched from its 1st to its 99th percentile where not uint8."""
    shown = _as_rgb(image)
    rows = np.linspace(0, labels.shape[0] - 1, shown.shape[0]).round().astype(int)
    columns = np.linspace(0, labels.shape[1] - 1, shown.shape[1]).round().astype(int)
    result = np.empty(shown.shape, np.uint8)
    for start in range(0, len(rows), MIXED_ROWS):
        part = slice(start, start + MIXED_ROWS)
        there = labels[np.ix_(rows[part], columns)]
        mixed = (shown[part] * (1 - OPACITY) + colored(there, colors) * OPACITY).round().astype(np.uint8)
        result[part] = np.where((there != 0)[..., None], mixed, shown[part])
    return result


def _as_rgb(image: NDArray[Any]) -> RGB:
    shown = image[..., :3] if image.shape[-1] >= 3 else image[..., :1]
    if shown.dtype != np.uint8:
        low, high = np.nanpercentile(shown, [1, 99])
        shown = np.clip((shown - low) / max(high - low, 1e-9) * 255, 0, 255)
    return np.broadcast_to(shown.astype(np.uint8), (*shown.shape[:2], 3))


def write_png(path: Path, pixels: RGB) -> None:
    """Replaces what is there. Raises SinkError."""
    import imagecodecs

    new = path.with_name(f".{path.name}.new")
    with os_errors_as_sink_errors(path):
        new.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
        new.replace(path)


def picture_paths(target: Path, wanted: Mapping[str, bool]) -> dict[str, Path]:
    """Where ``preview`` and ``overlay`` of a result go, as ``wanted``: ``TARGET.preview.png`` and so on."""
    return {name: target.with_name(f"{target.name}.{name}.png") for name in ("preview", "overlay") if wanted[name]}


def write_pictures(
    target: Path,
    open_result: Callable[[int], Source],
    open_image: Callable[[int], Source],
    labels: Sequence[LabelClass],
    *,
    wanted: Mapping[str, bool],
) -> list[Path]:
    """Write ``picture_paths``; returns them."""
    paths = picture_paths(target, wanted)
    if paths:
        colors, result = palette(labels), overview(open_result)[..., 0]
    for name, path in paths.items():
        shown = colored(result, colors) if name == "preview" else overlaid(overview(open_image), result, colors)
        write_png(path, shown)
    return list(paths.values())
