"""Judge what ``TiffSource`` makes of a damaged file, by what tifffile makes of the same file."""

from __future__ import annotations

import logging
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import tifffile

from exactile.errors import ExactileError
from exactile.geometry import Box, Span
from exactile.sources.open import open_source
from fuzz.outcome import Outcome, judge_message

LARGEST_COMPARED_BYTES = 256 << 20
NAME = "image.tif"
PALETTE = 3
CONVERTED = ("int8", "int16", "int32", "uint32", "float16", "float64")

# By TIFF 6.0 and its supplements: sizes, bits, compression, colours, strips, tiles, planes, sub-directories, JPEG.
_PIXEL_TAGS = {
    *(254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 322, 323, 324, 325, 330, 338, 339),
    *(347, 512, 513, 514, 515, 519, 520, 521, 530, 532),
}


class _Log(logging.Handler):
    """What tifffile says is wrong with the structure."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.msg if isinstance(record.msg, str) else repr(record.msg))

    @property
    def serious(self) -> list[str]:
        """Messages about tags of the standard that decide about pixels."""
        tags = [(re.search(r"TiffTag (\d+) @", message), message) for message in self.messages]
        return [text for tag, text in tags if tag and int(tag[1]) in _PIXEL_TAGS]


def read_case(path: Path) -> np.ndarray | str | Outcome:
    """Return pixels (H, W, C); the message of an error; or what went wrong."""
    try:
        with closing(open_source(path, workers=1)) as source:
            box = Box(Span(0, source.height), Span(0, source.width))
            if box.area * source.channels * source.dtype.itemsize > LARGEST_COMPARED_BYTES:
                box = Box(Span(0, min(8, source.height)), Span(0, min(8, source.width)))
            out = np.empty((*box.shape, source.channels), source.dtype)
            source.read(box, out)
            return out
    except ExactileError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return Outcome(verdict="failure", detail=f"{type(error).__name__}: {str(error)[:300]}")


def judge(path: Path, found: np.ndarray | str | Outcome) -> Outcome:
    """Compare ``found`` with tifffile's own reading of the file at ``path``."""
    if isinstance(found, Outcome):
        return found
    if isinstance(found, str):
        return judge_message(found, path.name)
    log = _Log()
    logger = logging.getLogger("tifffile")
    logger.addHandler(log)
    try:
        outcome = _compared(found, _reference(path, found.shape))
    except Exception as error:  # noqa: BLE001 - tifffile raises nearly anything for a damaged file
        outcome = Outcome(verdict="failure", detail=f"read, but tifffile raises {type(error).__name__}: {error!s:.200}")
    finally:
        logger.removeHandler(log)
    if outcome.verdict == "failure" and _same_by_chunks(path, found):
        outcome = Outcome(verdict="right", detail="as tifffile decodes it chunk by chunk")
    if log.serious:
        return Outcome(verdict="failure", detail=f"read, but tifffile logs {log.serious[0][:200]}")
    return outcome


def _reference(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return what tifffile reads, as (H, W, C) of ``shape`` if possible; None if it would not fit into memory."""
    with tifffile.TiffFile(path) as tiff:
        len(tiff.pages)  # finds loops, in which tifffile would otherwise recurse forever
        level = tiff.series[0].levels[0]
        if level.nbytes > LARGEST_COMPARED_BYTES:
            return None
        pixels = level.asarray()
        if int(level.keyframe.photometric) == PALETTE and level.keyframe.colormap is not None:
            return _coloured(pixels, level.keyframe.colormap)
    long = [size for size, axis in zip(pixels.shape, level.axes, strict=True) if size > 1 or axis in "YX"]
    pixels = pixels.reshape(long if len(long) == 3 else [*long, 1])
    planes = np.moveaxis(pixels, 0, 2)
    return planes if planes.shape == shape else pixels


def _coloured(pixels: np.ndarray, colormap: np.ndarray) -> np.ndarray:
    """Return (H, W, 3): TIFF's palettes hold 16 bits; those of 8, in either usual way, are meant as 8."""
    colours = np.moveaxis(colormap[:, pixels], 0, -1)
    for step in (257, 256):
        if not (colormap % step).any():
            return (colours // step).astype(np.uint8)
    return colours


def _delivered(expected: np.ndarray, found: np.dtype) -> np.ndarray:
    """Convert to what sources deliver: bits as 0 and 1, other types as float32 if that changes no value."""
    if expected.dtype.kind == "b":
        return expected.astype(np.uint8)
    exact = expected.astype(np.float32)
    if expected.dtype.name in CONVERTED and np.array_equal(exact.astype("f8"), expected.astype("f8"), equal_nan=True):
        return exact.astype(found)
    return expected


def _same_by_chunks(path: Path, found: np.ndarray) -> bool:
    """Return whether ``found`` is what tifffile's decoder makes of each chunk of the first page separately.

    Reading all at once, tifffile takes the bytes of another chunk for one whose byte count is 0.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.series[0].levels[0].keyframe
            expected = np.full(page.shaped, page.nodata, page.dtype)
            if expected.nbytes > LARGEST_COMPARED_BYTES:
                return False
            page.decode(None, 0)
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression == 7 else {}
            for index, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
                if not offset or not size:
                    continue
                tiff.filehandle.seek(offset)
                data = tiff.filehandle.read(size)
                chunk, (plane, _, y, x, _), (_, rows, columns, _) = page.decode(data, index, **tables)
                target = expected[plane, :, y : y + rows, x : x + columns]
                target[...] = chunk[:, : target.shape[1], : target.shape[2]]
    except Exception:  # noqa: BLE001 - no second opinion then
        return False
    whole = _delivered(np.concatenate(list(expected[:, 0]), axis=-1), found.dtype)
    return np.array_equal(whole, found, equal_nan=found.dtype.kind == "f")


def _compared(found: np.ndarray, expected: np.ndarray | None) -> Outcome:
    if expected is None:
        return Outcome(verdict="right", detail="too large to compare")
    expected = _delivered(expected, found.dtype)
    if found.shape != expected.shape or found.dtype != expected.dtype.newbyteorder("="):
        detail = f"{found.shape} {found.dtype}, but tifffile reads {expected.shape} {expected.dtype}"
        return Outcome(verdict="failure", detail=detail)
    if not np.array_equal(found, expected, equal_nan=found.dtype.kind == "f"):
        return Outcome(
            verdict="failure", detail=f"{np.count_nonzero(found != expected)} samples differ from tifffile's"
        )
    return Outcome(verdict="right")
