"""Find the boxes of an image that are background and need no computation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from exactile.errors import OptionError
from exactile.geometry import Box

LARGEST_MASK_PIXELS = 1 << 29


class Background(Protocol):
    """Decide which boxes are empty; ``label`` is the result there."""

    @property
    def label(self) -> int: ...

    def is_empty(self, box: Box, pixels: NDArray[Any]) -> bool:
        """Return whether all of ``box`` (image pixels), ``pixels`` (H, W, C), is background."""

    def describe(self) -> dict[str, Any]:
        """Return a description as plain data: a resumed run must have the same."""

    def close(self) -> None:
        """Release the files that it reads from, at the end of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Background is where every channel is ``beyond`` the value: ``above`` it, as light is, or ``below``."""

    value: float
    beyond: Literal["above", "below"]
    label: int = 0

    def is_empty(self, box: Box, pixels: NDArray[Any]) -> bool:  # noqa: ARG002 -- the seam's signature
        # Extremes rather than comparisons of all pixels: no array as large as the box is made.
        return bool(pixels.min() > self.value if self.beyond == "above" else pixels.max() < self.value)

    def describe(self) -> dict[str, Any]:
        return {self.beyond: self.value, "label": self.label}

    def close(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """A mask ``wanted`` (h, w) bool, of any size, lies over the whole image of ``image_shape``; background is where it
    is 0.

    A box is empty only if no pixel of the mask that it touches is set.
    """

    wanted: NDArray[np.bool_]
    image_shape: tuple[int, int]
    label: int = 0

    def __post_init__(self) -> None:
        if self.wanted.ndim != 2 or not self.wanted.size:
            raise OptionError(f"a mask has height and width; this one is {self.wanted.shape}")
        if self.wanted.size > LARGEST_MASK_PIXELS:
            raise OptionError(
                f"a mask of {self.wanted.shape} pixels is kept in memory; take one of at most {LARGEST_MASK_PIXELS}"
            )
        ratios = [size / of for size, of in zip(self.wanted.shape, self.image_shape, strict=True)]
        if abs(ratios[0] / ratios[1] - 1) > 0.05 and 1 not in self.wanted.shape:
            raise OptionError(
                f"the mask has {self.wanted.shape} pixels and the image {self.image_shape}: it does not show the "
                f"same field of view"
            )

    def is_empty(self, box: Box, pixels: NDArray[Any]) -> bool:  # noqa: ARG002 -- the seam's signature
        (height, width), (rows, columns) = self.image_shape, self.wanted.shape
        y = slice(floor(box.y.start * rows / height), ceil(box.y.stop * rows / height))
        x = slice(floor(box.x.start * columns / width), ceil(box.x.stop * columns / width))
        return not self.wanted[y, x].any()

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256(np.packbits(self.wanted).tobytes()).hexdigest()
        return {"mask": digest, "shape": list(self.wanted.shape), "label": self.label}

    def close(self) -> None:
        """Nothing to close."""
