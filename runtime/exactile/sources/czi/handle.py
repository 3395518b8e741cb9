"""A CZI file opened with pylibCZIrw, which several threads may read at once.

The library releases the interpreter's lock while it reads, reads at positions of the file, and keeps nothing between
reads, so that one handle serves all threads.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.chunks.reader import UndecodableError
from exactile.sources.czi.levels import Frame
from exactile.sources.czi.pixel_kinds import PixelKind

_INSTALL = "pip install 'exactile[czi]'"
_MOST_TOLD = 300


def load_czi(name: str) -> Any:
    """Return the library. Raises SourceError with the line that installs it."""
    try:
        from pylibCZIrw import czi
    except ImportError as error:
        raise SourceError(
            f"{name}: is a Zeiss CZI file, read with pylibCZIrw, which is not installed: {_INSTALL}"
        ) from error
    return czi


class CziHandle:
    """Owns the file's handle; ``close`` may be called twice. Raises SourceError when the library cannot open it."""

    def __init__(self, name: str) -> None:
        self.name = name
        library = load_czi(name)
        self._stack = ExitStack()
        try:
            self._reader: Any = self._stack.enter_context(library.open_czi(name))
            box = self._reader.total_bounding_rectangle_no_pyramid
        # The library has errors of many kinds.
        except Exception as error:
            self._stack.close()
            raise SourceError(f"{name}: cannot be opened by pylibCZIrw: {_told(error)}") from error
        self.frame = Frame(y=box.y, x=box.x, height=box.h, width=box.w)

    def read(
        self, region: tuple[int, int, int, int], plane: dict[str, int], scene: int | None, factor: int, kind: PixelKind
    ) -> NDArray[Any]:
        """Read ``region`` (x, y, width, height, in the file's coordinates) as the library returns it, at a reduced
        level.

        (H, W, samples), colours as red, green, blue; 0 where there is no sub-block. Raises UndecodableError.
        """
        try:
            pixels: NDArray[Any] = self._reader.read(
                roi=region, plane=plane, scene=scene, zoom=1 / factor, pixel_type=kind.name
            )
        except MemoryError:
            raise
        except Exception as error:
            raise UndecodableError(_told(error)) from error
        expected = (region[3] // factor, region[2] // factor, kind.samples)
        if pixels.shape != expected or pixels.dtype != kind.dtype:
            raise UndecodableError(f"pylibCZIrw gives {pixels.shape} {pixels.dtype} instead of {expected} {kind.dtype}")
        return pixels if kind.samples == 1 else _red_first(pixels)

    def metadata(self) -> str:
        """Return the file's XML; empty if there is none, or it cannot be read."""
        try:
            return str(self._reader.raw_metadata)
        except Exception:  # noqa: BLE001 - of as many kinds; the pixels are read nevertheless
            return ""

    def close(self) -> None:
        self._stack.close()


def _red_first(pixels: NDArray[Any]) -> NDArray[Any]:
    """Convert blue, green, red to red, green, blue: a channel at a time, ten times as fast as all at once."""
    turned = np.empty_like(pixels)
    for channel in range(3):
        turned[..., channel] = pixels[..., 2 - channel]
    return turned


def _told(error: Exception) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(error).split())[:_MOST_TOLD] or type(error).__name__
