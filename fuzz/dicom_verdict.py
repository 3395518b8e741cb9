"""Judge what ``DicomSource`` makes of a damaged slide, by wsidicom's reading of the file, or else by pydicom's."""

from __future__ import annotations

import logging
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.pixels import pixel_array
from wsidicom.file import WsiDicomFileSource
from wsidicom.geometry import Point

from exactile.errors import ExactileError
from exactile.geometry import Box, Span
from exactile.sources.open import open_source
from fuzz.outcome import Outcome, judge_message

NAME = "image.dcm"
LARGEST_COMPARED_BYTES = 64 << 20


def read_case(path: Path) -> np.ndarray | str | Outcome:
    """Return pixels (H, W, C); the message of an error; or what went wrong."""
    try:
        with closing(open_source(path, workers=2)) as source:
            if source.height * source.width * source.channels * source.dtype.itemsize > LARGEST_COMPARED_BYTES:
                return _corner(source)
            out = np.empty((source.height, source.width, source.channels), source.dtype)
            source.read(Box(Span(0, source.height), Span(0, source.width)), out)
            return out
    except ExactileError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return Outcome(verdict="failure", detail=f"{type(error).__name__}: {str(error)[:300]}")


def _corner(source) -> Outcome:
    """Read a corner of an image that is too large to compare."""
    box = Box(Span(0, min(8, source.height)), Span(0, min(8, source.width)))
    source.read(box, np.empty((*box.shape, source.channels), source.dtype))
    return Outcome(verdict="right", detail="too large to compare")


def judge(path: Path, found: np.ndarray | str | Outcome) -> Outcome:
    """Compare ``found`` with wsidicom's reading, and where that fails with pydicom's."""
    if isinstance(found, Outcome):
        return found
    if isinstance(found, str):
        return judge_message(found, path.name)
    logging.getLogger("wsidicom").setLevel(logging.CRITICAL)
    said = []
    for reading in (_by_wsidicom, _by_pydicom):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = reading(path, found.shape)
        except Exception as error:  # noqa: BLE001 - both raise nearly anything for a damaged file
            said.append(f"{reading.__name__[4:]} raises {type(error).__name__}: {error!s:.150}")
            continue
        if expected.shape == found.shape and expected.dtype == found.dtype and np.array_equal(expected, found):
            return Outcome(verdict="right")
        said.append(f"{reading.__name__[4:]} reads {expected.shape} {expected.dtype}, other samples than ours")
    return Outcome(verdict="failure", detail=f"read {found.shape} {found.dtype}, but {'; '.join(said)}")


def _by_wsidicom(path: Path, _shape: tuple[int, ...]) -> np.ndarray:
    """Return all optical paths, as channels if they are grey, tile by tile: whole slides need more than
    their pixels.
    """
    with WsiDicomFileSource.open(path) as source:
        (instance,) = source.level_instances
        (z,) = instance.focal_planes
        grid = instance.tiled_size
        paths = instance.optical_paths if instance.image_data.samples_per_pixel == 1 else instance.optical_paths[:1]
        planes = []
        for name in paths:
            rows = [
                np.concatenate([instance.get_tile(Point(x, y), z, name) for x in range(grid.width)], axis=1)
                for y in range(grid.height)
            ]
            planes.append(np.atleast_3d(np.concatenate(rows)))
    return np.concatenate(planes, axis=2)


def _by_pydicom(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return frames in their places, of one optical path in colours or several in grey, at one focal plane."""
    data = dcmread(path)
    height, width, channels = shape
    frames = pixel_array(path).reshape(-1, data.Rows, data.Columns, data.SamplesPerPixel)
    rows, columns = -(-height // data.Rows), -(-width // data.Columns)
    colour = data.SamplesPerPixel == 3
    planes = np.full((1 if colour else channels, rows, columns, *frames.shape[1:]), 255 if colour else 0, frames.dtype)
    names = [item.OpticalPathIdentifier for item in data.OpticalPathSequence]
    if data.get("DimensionOrganizationType") == "TILED_FULL":
        planes[...] = frames.reshape(-1, *planes.shape[1:])[: len(planes)]
    else:
        for frame, item in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
            position = item.PlanePositionSlideSequence[0]
            row = (position.RowPositionInTotalImagePixelMatrix - 1) // data.Rows
            column = (position.ColumnPositionInTotalImagePixelMatrix - 1) // data.Columns
            path_item = item.get("OpticalPathIdentificationSequence") or [data.OpticalPathSequence[0]]
            planes[names.index(path_item[0].OpticalPathIdentifier), row, column] = frame
    whole = planes.transpose(0, 1, 3, 2, 4, 5).reshape(len(planes), rows * data.Rows, columns * data.Columns, -1)
    return np.concatenate(list(whole[:, :height, :width]), axis=2)
