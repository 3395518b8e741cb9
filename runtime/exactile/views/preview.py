"""Small pictures of a result: labels in colour, alone or over the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import LabelClass
from exactile.errors import OptionError
from exactile.geometry import Box
from exactile.sinks.files.whole_file import replace_file
from exactile.sources.protocol import Source, least_reading_bytes
from exactile.sources.sweep import sweep_plan

MOST_PX = 2048
"""The longer side of a picture."""

BLOCK_BYTES = 4 << 20
"""Bytes of an image that are read at a time."""

OPACITY = 0.45

MIXED_ROWS = 16
"""Rows that are mixed at a time: mixing takes 50 bytes a sample."""

DEFAULT_TILE_PX = 512
"""Tile of the result, as ``TiledSink`` writes it."""

ENCODED_BYTES = 3.1
"""Bytes of a pixel of a PNG picture, at worst."""

STRETCHED_BY_PX = 1 << 20
"""Pixels, evenly spread, for percentiles."""

# Okabe and Ito's colours, which colour-blind people tell apart; black for 0.
_COLORS = ((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
           (204, 121, 167))  # fmt: skip

RGB = NDArray[np.uint8]


def pictures_bytes(source: Source, label_bytes: int, wanted: Mapping[str, bool]) -> int:
    """Return the least memory of ``write_pictures`` for a result of the size of ``source``."""
    if not any(wanted.values()):
        return 0
    step = ceil(max(source.height, source.width) / MOST_PX)
    pixels = ceil(source.height / step) * ceil(source.width / step)
    image_bytes, chunk_bytes = 0, 2 * DEFAULT_TILE_PX**2 * label_bytes
    if wanted["overlay"]:
        image_bytes = source.channels * source.dtype.itemsize
        chunk_bytes = max(chunk_bytes, least_reading_bytes(source, sweep_plan(source, BLOCK_BYTES)))
    mixed_bytes = MIXED_ROWS * ceil(source.width / step) * 3 * 50
    block_bytes = min(BLOCK_BYTES, source.height * source.width * max(label_bytes, image_bytes))
    # The labels, the picture, and the image or the encoded picture.
    whole_bytes = pixels * (label_bytes + 3 + max(image_bytes, ENCODED_BYTES))
    return int(whole_bytes) + block_bytes + chunk_bytes + mixed_bytes


def overview(
    open_level: Callable[[int], Source], most_px: int = MOST_PX, *, spare_bytes: int = 4 * BLOCK_BYTES
) -> NDArray[Any]:
    """Return the image with at most ``most_px`` pixels a side, (h, w, C): every n-th pixel of the best level of a
    pyramid.

    ``open_level`` opens a level by number, and raises OptionError if there is none. Decoded chunks that are kept take
    ``spare_bytes`` at most.
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
        return _every_nth(source, ceil(max(source.height, source.width) / most_px), spare_bytes)
    finally:
        source.close()


def _every_nth(source: Source, step: int, spare_bytes: int) -> NDArray[Any]:
    plan = sweep_plan(source, BLOCK_BYTES)
    source.prepare(plan, cache_bytes=min(source.cache_bytes(plan), least_reading_bytes(source, plan) + spare_bytes))
    found = np.empty((ceil(source.height / step), ceil(source.width / step), source.channels), source.dtype)
    largest = max(span.length for span in plan.rows) * max(span.length for span in plan.columns)
    buffer = np.empty(largest * source.channels, source.dtype)
    for rows in plan.rows:
        for columns in plan.columns:
            box = Box(rows, columns)
            block = buffer[: box.area * source.channels].reshape(*box.shape, source.channels)
            source.read(box, block)
            y, x = (ceil(span.start / step) for span in (rows, columns))
            part = block[y * step - rows.start :: step, x * step - columns.start :: step]
            found[y : y + part.shape[0], x : x + part.shape[1]] = part
    return found


def palette(labels: Sequence[LabelClass]) -> RGB:
    """Return a colour for each label from 0 to 65535, (65536, 3): the model's if it has one."""
    colors = np.resize(np.array(_COLORS[1:], np.uint8), (65536, 3))
    colors[0] = _COLORS[0]
    for label in labels:
        colors[label.value] = label.rgb
    return colors


def colored(labels: NDArray[Any], colors: RGB) -> RGB:
    """Return (h, w) labels as (h, w, 3); labels without their own colour share those of others, but never that of 0."""
    numbers = labels.astype(np.int64)
    own = (numbers >= 0) & (numbers < len(colors))
    return colors[np.where(own, numbers, 1 + numbers % (len(colors) - 1))]


def drawn(labels: NDArray[Any], colors: RGB) -> RGB:
    """Yield rows of ``colored``, a few at a time."""
    result = np.empty((*labels.shape, 3), np.uint8)
    for start in range(0, len(labels), MIXED_ROWS):
        part = slice(start, start + MIXED_ROWS)
        result[part] = colored(labels[part], colors)
    return result


def overlaid(image: NDArray[Any], labels: NDArray[Any], colors: RGB) -> RGB:
    """Return labels but 0 over the image (h, w, C), which is stretched from its 1st to its 99th percentile if not
    uint8.
    """
    rgb = _rgb_of(image)
    rows = np.linspace(0, labels.shape[0] - 1, image.shape[0]).round().astype(int)
    columns = np.linspace(0, labels.shape[1] - 1, image.shape[1]).round().astype(int)
    result = np.empty((*image.shape[:2], 3), np.uint8)
    for start in range(0, len(rows), MIXED_ROWS):
        part = slice(start, start + MIXED_ROWS)
        there, shown = labels[np.ix_(rows[part], columns)], rgb(image[part])
        mixed = (shown * (1 - OPACITY) + colored(there, colors) * OPACITY).round().astype(np.uint8)
        result[part] = np.where((there != 0)[..., None], mixed, shown)
    return result


def _rgb_of(image: NDArray[Any]) -> Callable[[NDArray[Any]], RGB]:
    """Return a function that converts rows of ``image`` to (h, w, 3)."""
    channels = 3 if image.shape[-1] >= 3 else 1
    low, high = 0.0, 255.0
    if image.dtype != np.uint8:
        step = max(1, int((image.shape[0] * image.shape[1] / STRETCHED_BY_PX) ** 0.5))
        low, high = np.nanpercentile(image[::step, ::step, :channels], [1, 99])

    def rgb(rows: NDArray[Any]) -> RGB:
        shown = rows[..., :channels]
        if shown.dtype != np.uint8:
            shown = np.clip((shown - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
        return np.broadcast_to(shown, (*shown.shape[:2], 3))

    return rgb


def write_png(path: Path, pixels: RGB) -> None:
    """Write a PNG picture; replace an existing one. Raises SinkError."""
    import imagecodecs

    replace_file(path, imagecodecs.png_encode(np.ascontiguousarray(pixels)))


def picture_paths(target: Path, wanted: Mapping[str, bool]) -> dict[str, Path]:
    """Return the paths of ``preview`` and ``overlay`` of a result, as ``wanted``: ``TARGET.preview.png`` and so on."""
    return {name: target.with_name(f"{target.name}.{name}.png") for name in ("preview", "overlay") if wanted[name]}


def write_pictures(
    target: Path,
    open_result: Callable[[int], Source],
    open_image: Callable[[int], Source],
    labels: Sequence[LabelClass],
    *,
    wanted: Mapping[str, bool],
    spare_bytes: int = 4 * BLOCK_BYTES,
) -> list[Path]:
    """Write the ``picture_paths`` and return them. Takes ``pictures_bytes`` and, if that helps,
    ``spare_bytes`` more.
    """
    paths = picture_paths(target, wanted)
    if paths:
        colors, result = palette(labels), overview(open_result, spare_bytes=spare_bytes)[..., 0]
    if "preview" in paths:
        write_png(paths["preview"], drawn(result, colors))
    if "overlay" in paths:
        write_png(paths["overlay"], overlaid(overview(open_image, spare_bytes=spare_bytes), result, colors))
    return list(paths.values())
