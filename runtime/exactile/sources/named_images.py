"""Files whose libraries read arrays of named axes: what such a library has to offer to become a source."""

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

    ``axes`` has a letter for each axis: Y, X, and C, Z, T where there are such, ? for any other. ``chunks`` is the
    shape of what is read at a time. ``read`` gives the samples of a selection within one chunk, axes with a number left
    out; it is called from several threads, and raises what the library raises for what cannot be decoded.
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
        """How many images it holds."""

    def image(self, number: int) -> NamedImage:
        """Raise SourceError for one that is damaged or of a kind that is not read."""

    def title(self, number: int) -> str | None:
        """Return what an image is called, whether it is read or not."""

    def close(self) -> None:
        """Safe to call twice."""
