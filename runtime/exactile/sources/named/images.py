"""The protocol of files whose libraries read arrays of named axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exactile.sources.pixel_size import PixelSize

Selection = tuple[slice | int, ...]
"""One entry for each axis: a slice along Y, X and C, a number along the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedImage:
    """One image of a file.

    ``axes`` has a letter for each axis: Y, X, and C, Z, T if there are any, ? for any other. ``chunks`` is the shape of
    what is read at a time. ``read`` returns the samples of a selection within one chunk, axes with a number left out;
    it is called from several threads, and raises the library's errors for what cannot be decoded.
    """

    title: str | None
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    read: Callable[[Selection], NDArray[Any]]
    pixel_size_um: PixelSize | None = None
    channel_names: tuple[str, ...] = ()
    compression: str = "none"

    def __post_init__(self) -> None:
        if not len(self.axes) == len(self.shape) == len(self.chunks):
            raise ValueError(f"axes {self.axes}, shape {self.shape} and chunks {self.chunks} are of different lengths")


class NamedFile(Protocol):
    """A file that a library has opened. ``reader`` is the library's package; ``format`` the name of the format."""

    reader: str
    format: str

    @property
    def count(self) -> int:
        """Number of images."""

    def image(self, number: int) -> NamedImage:
        """Return an image. Raises SourceError if it is damaged or of a kind that is not read."""

    def title(self, number: int) -> str | None:
        """Return the name of an image, whether it is read or not."""

    def close(self) -> None:
        """Close the file; safe to call twice."""
