"""Judge what ``PictureSource`` makes of a damaged picture, by Pillow, which has its own decoders.

Pillow reads neither JPEG XL nor JPEG of 12 bits; JPEG XL is judged by libjxl's own verdict: only whole and undamaged
streams decode. If Pillow reads nothing, and pixels are returned nevertheless, that is a failure.
"""

from __future__ import annotations

import io
import warnings
from contextlib import closing
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from exactile.errors import ExactileError
from exactile.geometry import Box, Span
from exactile.sources.open import open_source
from fuzz.outcome import Outcome, judge_message

NAME = "image.png"
BUDGET_BYTES = 512 << 20
"""What a picture may need; beyond, a run is refused before it is read."""

_LARGEST_DIFFERENCE = 0


def read_case(path: Path) -> np.ndarray | str | Outcome:
    """Return pixels (H, W, C); the message of an error; or what went wrong."""
    try:
        with closing(open_source(path, workers=1)) as source:
            held_bytes = getattr(source, "held_bytes", 0)
            if held_bytes > BUDGET_BYTES:
                return f"{path}: needs {held_bytes} bytes, which a run refuses"
            out = np.empty((source.height, source.width, source.channels), source.dtype)
            source.read(Box(Span(0, source.height), Span(0, source.width)), out)
            return out
    except ExactileError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return Outcome(verdict="failure", detail=f"{type(error).__name__}: {str(error)[:300]}")


def judge(path: Path, found: np.ndarray | str | Outcome) -> Outcome:
    """Compare ``found`` with the reading of another decoder."""
    if isinstance(found, Outcome):
        return found
    if isinstance(found, str):
        return judge_message(found, path.name)
    data = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = _reference(data, found)
    except Exception as error:  # noqa: BLE001 - Pillow raises nearly anything for a damaged file
        return Outcome(verdict="failure", detail=f"read, but Pillow raises {type(error).__name__}: {error!s:.200}")
    if expected is None:
        return Outcome(verdict="right", detail="Pillow does not read this kind")
    if found.shape != expected.shape or found.dtype != expected.dtype:
        detail = f"{found.shape} {found.dtype}, but Pillow reads {expected.shape} {expected.dtype}"
        return Outcome(verdict="failure", detail=detail)
    differ = int(np.count_nonzero(found != expected))
    if differ > _LARGEST_DIFFERENCE:
        return Outcome(verdict="failure", detail=f"{differ} samples differ from Pillow's")
    return Outcome(verdict="right")


def _reference(data: bytes, found: np.ndarray) -> np.ndarray | None:
    """Return (H, W, C) by another decoder; None if there is none."""
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return np.atleast_3d(imagecodecs.jpegxl_decode(data, keeporientation=True))
    try:
        image = Image.open(io.BytesIO(data))
    except (SyntaxError, OSError):
        if data.startswith(b"\xff\xd8") and found.dtype == np.uint16:
            return None
        raise
    sizes = data.find(b"\xff\x4f\xff\x51")
    if data.startswith((b"\0\0\0\x0cjP", b"\xff\x4f")) and data[sizes + 42] != 7:
        image.load()
        return None  # Pillow scales other than 8 bits to 16, or to 8
    if image.mode == "P":
        has_alpha, grey = found.shape[2] in (2, 4), found.shape[2] == 1
        return np.atleast_3d(np.asarray(image.convert("RGBA" if has_alpha else "L" if grey else "RGB")))
    if image.mode == "1":
        image = image.convert("RGB" if found.shape[2] == 3 else "L")
    if image.mode == "RGB" and found.shape[2] == 4 and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "I;16" or (image.mode == "I" and found.dtype == np.uint16):
        return np.atleast_3d(np.asarray(image).astype(np.uint16))
    return np.atleast_3d(np.asarray(image))
