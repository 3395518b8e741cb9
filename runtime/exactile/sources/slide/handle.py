"""A slide opened with OpenSlide, usable from several threads and after failures."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.geometry import Box
from exactile.sources.slide.vendor import load_openslide

OPENSLIDE_CACHE_BYTES = 8 << 20
"""Bytes of tiles that OpenSlide may cache: enough for tiles that two neighbouring blocks share."""


class SlideHandle:
    """Owns the slide. Raises SourceError when OpenSlide is not installed or cannot open the file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self._openslide = load_openslide(self.name)
        self._lock = threading.Lock()
        try:
            self._slide: Any = self._open()
        except (self._openslide.OpenSlideError, OSError, ValueError) as error:
            detail = str(error) or type(error).__name__
            raise SourceError(f"{self.name}: cannot be opened by OpenSlide: {detail}") from error
        self.properties: dict[str, str] = dict(self._slide.properties)
        self.level_sizes = [(height, width) for width, height in self._slide.level_dimensions]
        self._downsamples = self._slide.level_downsamples

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return ``box`` of a level as OpenSlide gives it: (H, W, 4) uint8, red, green, blue, alpha, not premultiplied.

        A slide that failed once fails forever, so it is opened again for the next read; only what fails in a fresh
        handle is damaged. Raises OpenSlideError then.
        """
        slide = self._slide
        try:
            return self._region(slide, level, box)
        except self._openslide.OpenSlideError:
            self._replace(slide)
        with self._open() as alone:
            return self._region(alone, level, box)

    def close(self) -> None:
        """Safe to call twice, which OpenSlide's own is not."""
        slide, self._slide = self._slide, None
        if slide is not None:
            slide.close()

    def _open(self) -> Any:
        slide = self._openslide.OpenSlide(self.name)
        slide.set_cache(self._openslide.OpenSlideCache(OPENSLIDE_CACHE_BYTES))
        return slide

    def _replace(self, failed: Any) -> None:
        with self._lock:
            if self._slide is failed:  # other threads may still use it: it is closed with its last reference
                self._slide = self._open()

    def _region(self, slide: Any, level: int, box: Box) -> NDArray[np.uint8]:
        factor = self._downsamples[level]
        origin = (round(box.x.start * factor), round(box.y.start * factor))
        return np.asarray(slide.read_region(origin, level, (box.x.length, box.y.length)))
