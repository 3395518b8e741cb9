"""The protocol between the pipeline and an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from exactile.geometry import Box, Span

Identity = dict[str, str | int | float]
"""Identifies an image; can be written as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlan:
    """Every read a run will make: all boxes ``rows x columns``, row by row (rows outer, columns inner).

    Spans are in image pixels, within the image, in rising order of their starts.
    """

    rows: Sequence[Span]
    columns: Sequence[Span]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCount:
    """Counters of a source."""

    chunks_decoded: int
    chunks_stored: int


@runtime_checkable
class StoredSource(Protocol):
    """An image in a file or folder of this machine, which no output may replace."""

    stored_path: Path


class Source(Protocol):
    """An image of ``(height, width, channels)`` samples of ``dtype``. One thread reads at a time.

    ``pixel_size_um`` is the height and width of a pixel in micrometres, if known.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype[Any]
    pixel_size_um: tuple[float, float] | None

    def cache_bytes(self, plan: ReadPlan) -> int:
        """Return the bytes of decoded chunks to keep so that ``plan`` decodes each chunk once."""

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None:
        """Announce the reads to come and how many bytes of decoded chunks may be kept."""

    def read(self, box: Box, out: NDArray[Any]) -> None:
        """Copy ``box``, within the image, to ``out``: (box.y.length, box.x.length, channels), any strides.

        Raises SourceError naming the file and the damaged chunk.
        """

    def count(self) -> ReadCount:
        """Return the chunks decoded since ``prepare`` and the chunks in the file (0, 0 if there are none)."""

    def identity(self) -> Identity:
        """Return enough to notice, while the source is open, that an image differs from that of an earlier run.

        For files: size, time of the last change and a hash of both ends; for arrays a hash of samples spread evenly;
        for Zarr a hash of the metadata; and the choice, shape and dtype.
        """

    def close(self) -> None:
        """Release files and threads; safe to call twice."""


@runtime_checkable
class DecodedInParts(Protocol):
    """A source that needs memory besides the caller's array while it reads, however little may be kept."""

    def decoding_bytes(self, plan: ReadPlan) -> int:
        """Return the least bytes that reading takes; ``cache_bytes`` includes them."""


@runtime_checkable
class DecodedWhole(Protocol):
    """A source that decodes all of its image for any part of it: it needs ``held_bytes``, whatever the plan."""

    @property
    def held_bytes(self) -> int:
        """Bytes of the decoded image."""


def least_reading_bytes(source: Source, plan: ReadPlan) -> int:
    """Return the bytes that reading takes besides the caller's array, however little may be kept."""
    decoding = source.decoding_bytes(plan) if isinstance(source, DecodedInParts) else 0
    return decoding + (source.held_bytes if isinstance(source, DecodedWhole) else 0)
