"""Copy a result to another format, box by box in bounded memory: for instance a Zarr of several
machines to one TIFF.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from exactile.errors import OptionError
from exactile.geometry import Box, Span
from exactile.input_protection import check_source_kept
from exactile.sinks.open import open_sink
from exactile.sinks.protocol import ResultSpec, Sink
from exactile.sinks.zarr.sink import labels_folder
from exactile.sources.open import open_source
from exactile.sources.protocol import ReadPlan, Source
from exactile.sources.sample_types import stored_type

BOX_PX = 2048
"""Edge of the boxes that are copied: whole tiles of the output formats."""


def export(
    image: str | PathLike[str],
    target: str | PathLike[str],
    *,
    label: str | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    **sink: Any,
) -> tuple[int, ...]:
    """Copy ``image`` to ``target``, whose suffix is the format; return its shape, (H, W) or (C, H, W).

    ``image`` is anything that ``open_source`` accepts; of a Zarr container with labels the one named ``label``
    (default: that of a run) is copied, if it exists. ``sink`` holds options of ``open_sink``: ``compression``,
    ``pyramid``, ``overwrite``. ``progress`` is called with the pixels done and their total. Pixels and their size are
    copied, names and colours of classes and the georeference are not.

    Raises SourceError, SinkError, OptionError for samples that cannot be copied unchanged.
    """
    source = open_source(_labels_of(image, label))
    try:
        return _copy(source, target, progress, sink)
    finally:
        source.close()


def _labels_of(image: str | PathLike[str], label: str | None) -> str | PathLike[str]:
    if "://" in str(image):
        return image
    labels = labels_folder(Path(image), label)
    if label is not None and not labels.is_dir():
        raise OptionError(f"{image} has no label named {label!r}")
    return labels if labels.is_dir() else image


def _copy(
    source: Source, target: str | PathLike[str], progress: Callable[[int, int], None], options: dict[str, Any]
) -> tuple[int, ...]:
    stored = stored_type(source)
    if stored != source.dtype:
        raise OptionError(f"samples of {stored} are read as {source.dtype}, and would not be copied as they are")
    channels = source.channels if source.channels > 1 else 0
    spec = ResultSpec(
        height=source.height,
        width=source.width,
        channels=channels,
        dtype=source.dtype.name,
        pixel_size_um=source.pixel_size_um,
    )
    sink = open_sink(target, **options)
    check_source_kept(source, sink)
    copy_pixels(source, sink, spec, progress)
    return spec.shape


def copy_pixels(source: Source, sink: Sink, spec: ResultSpec, progress: Callable[[int, int], None]) -> None:
    """Write the pixels of ``source`` into ``sink``, as ``spec`` says; on any failure the sink is aborted."""
    total, channels = source.height * source.width, spec.channels
    rows, columns = _spans(source.height), _spans(source.width)
    reads = ReadPlan(rows=rows, columns=columns)
    try:
        sink.begin(spec)
        source.prepare(reads, cache_bytes=source.cache_bytes(reads))
        done = 0
        for y in rows:
            for x in columns:
                pixels = np.empty((y.length, x.length, source.channels), source.dtype)
                source.read(Box(y, x), pixels)
                sink.write(Box(y, x), pixels.transpose(2, 0, 1) if channels else pixels[..., 0])
                done += y.length * x.length
                progress(done, total)
        sink.finish()
    finally:
        sink.abort()


def _spans(length: int) -> tuple[Span, ...]:
    return tuple(Span(start, min(start + BOX_PX, length)) for start in range(0, length, BOX_PX))
