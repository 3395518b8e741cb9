"""Whole slides in DICOM files, written with pydicom and with encoders of other packages, for wsidicom to read."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmwrite, uid
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.sequence import Sequence
from pydicom.uid import UID, generate_uid

SLIDE_CLASS = uid.VLWholeSlideMicroscopyImageStorage
NATIVE = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian)
LOSSLESS = (
    *NATIVE,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
    uid.HTJ2KLossless,
    uid.JPEGLosslessSV1,
)
"""Transfer syntaxes that ``encode`` keeps every sample in."""


@dataclass(frozen=True, kw_only=True)
class Slide:
    """What the instances of one slide have in common."""

    study: UID = field(default_factory=generate_uid)
    series: UID = field(default_factory=generate_uid)
    frame_of_reference: UID = field(default_factory=generate_uid)


@dataclass(frozen=True, kw_only=True)
class Level:
    """``pixels``: (optical paths, focal planes, H, W) or (..., H, W, 3) of one level; ``tile`` is height and width."""

    pixels: np.ndarray
    tile: tuple[int, int] = (32, 48)
    syntax: UID = uid.ExplicitVRLittleEndian
    photometric: str = ""
    sparse: bool = False
    left_out: frozenset[tuple[int, int, int, int]] = frozenset()
    """Path, plane, row and column of tiles that a sparse level does not have."""
    spacing_mm: float = 0.0005
    z_step_um: float = 1.5
    bits_stored: int = 0
    paths: tuple[str, ...] = ()
    kind: str = "VOLUME"
    tables: str = "basic"
    """Of offsets: basic, extended or empty."""

    @property
    def names(self) -> tuple[str, ...]:
        return self.paths or tuple(str(number) for number in range(len(self.pixels)))

    @property
    def colours(self) -> str:
        return self.photometric or ("RGB" if self.pixels.ndim == 5 else "MONOCHROME2")

    @property
    def bits(self) -> int:
        return self.bits_stored or 8 * self.pixels.dtype.itemsize

    def tiles(self) -> list[tuple[tuple[int, int, int, int], np.ndarray]]:
        """Path, plane, row and column, and pixels of each tile, in the order of TILED_FULL; edges padded with 7."""
        count, planes, height, width = self.pixels.shape[:4]
        rows, columns = -(-height // self.tile[0]), -(-width // self.tile[1])
        places = itertools.product(range(count), range(planes), range(rows), range(columns))
        return [(place, self._tile(*place)) for place in places if place not in self.left_out]

    def _tile(self, path: int, plane: int, row: int, column: int) -> np.ndarray:
        tile = np.full((*self.tile, *self.pixels.shape[4:]), 7, self.pixels.dtype)
        y, x = row * self.tile[0], column * self.tile[1]
        part = self.pixels[path, plane, y : y + self.tile[0], x : x + self.tile[1]]
        tile[: part.shape[0], : part.shape[1]] = part
        return tile


def encode(tile: np.ndarray, syntax: UID, photometric: str, bits: int) -> bytes:
    """One frame."""
    colour = tile.ndim == 3
    if syntax == uid.ExplicitVRBigEndian:
        return tile.astype(tile.dtype.newbyteorder(">")).tobytes()
    if syntax in NATIVE:
        return tile.astype(tile.dtype.newbyteorder("<")).tobytes()
    if syntax == uid.RLELossless:
        form = {"rows": tile.shape[0], "columns": tile.shape[1], "samples_per_pixel": 3 if colour else 1}
        form |= {"bits_allocated": 8 * tile.dtype.itemsize, "bits_stored": bits, "pixel_representation": 0}
        form |= {"photometric_interpretation": photometric, "number_of_frames": 1, "planar_configuration": 0}
        return RLELosslessEncoder.encode(tile, encoding_plugin="pydicom", **form)
    if syntax == uid.JPEGBaseline8Bit:
        space = {"colorspace": "RGB", "outcolorspace": "YCBCR" if photometric.startswith("YBR") else "RGB"}
        return imagecodecs.jpeg8_encode(tile, level=90, **(space if colour else {}))
    if syntax == uid.JPEGExtended12Bit:
        return imagecodecs.jpeg8_encode(tile, level=90, bitspersample=12)
    if syntax == uid.JPEGLosslessSV1:
        space = {"colorspace": "RGB", "outcolorspace": "RGB"} if colour else {}
        return imagecodecs.jpeg8_encode(tile, lossless=True, predictor=1, bitspersample=bits, **space)
    if syntax == uid.JPEGLSLossless:
        return imagecodecs.jpegls_encode(tile)
    if syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        return imagecodecs.jpeg2k_encode(
            tile, codecformat=0, reversible=True, mct=photometric.startswith("YBR"), bitspersample=bits
        )
    if syntax == uid.HTJ2KLossless:
        return imagecodecs.htj2k_encode(tile, reversible=True)
    raise ValueError(f"{syntax.name} is not encoded here")


def dataset(level: Level, slide: Slide, frames: list[tuple[tuple[int, int, int, int], bytes]]) -> Dataset:
    """An instance of ``level`` with ``frames``."""
    count, planes, height, width = level.pixels.shape[:4]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = level.syntax
    ds.SOPClassUID = SLIDE_CLASS
    ds.SOPInstanceUID = generate_uid()
    ds.ImageType = ["ORIGINAL", "PRIMARY", level.kind, "NONE"]
    ds.StudyInstanceUID, ds.SeriesInstanceUID = slide.study, slide.series
    ds.FrameOfReferenceUID = slide.frame_of_reference
    ds.Modality = "SM"
    ds.ImagedVolumeWidth, ds.ImagedVolumeHeight = width * level.spacing_mm, height * level.spacing_mm
    ds.ImagedVolumeDepth = 0.0
    ds.SamplesPerPixel = 3 if level.pixels.ndim == 5 else 1
    ds.PhotometricInterpretation = level.colours
    if ds.SamplesPerPixel == 3:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = level.tile
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * level.pixels.dtype.itemsize, level.bits, level.bits - 1
    ds.PixelRepresentation = 0
    ds.NumberOfFrames = len(frames)
    ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixRows = width, height
    ds.TotalPixelMatrixFocalPlanes = planes
    ds.NumberOfOpticalPaths = count
    ds.OpticalPathSequence = Sequence([_with(OpticalPathIdentifier=name) for name in level.names])
    ds.TotalPixelMatrixOriginSequence = Sequence(
        [_with(XOffsetInSlideCoordinateSystem=0.0, YOffsetInSlideCoordinateSystem=0.0)]
    )
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    measures = _with(PixelSpacing=[level.spacing_mm] * 2, SliceThickness=0.001)
    measures.SpacingBetweenSlices = level.z_step_um / 1000
    ds.SharedFunctionalGroupsSequence = Sequence([_with(PixelMeasuresSequence=Sequence([measures]))])
    ds.DimensionOrganizationType = "TILED_SPARSE" if level.sparse else "TILED_FULL"
    if level.sparse:
        ds.PerFrameFunctionalGroupsSequence = Sequence([_frame(level, place) for place, _ in frames])
    _set_pixels(ds, level, [data for _, data in frames])
    return ds


def _with(**values) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _frame(level: Level, place: tuple[int, int, int, int]) -> Dataset:
    path, plane, row, column = place
    position = _with(
        ColumnPositionInTotalImagePixelMatrix=column * level.tile[1] + 1,
        RowPositionInTotalImagePixelMatrix=row * level.tile[0] + 1,
        XOffsetInSlideCoordinateSystem=0.0,
        YOffsetInSlideCoordinateSystem=0.0,
        ZOffsetInSlideCoordinateSystem=plane * level.z_step_um,
    )
    return _with(
        PlanePositionSlideSequence=Sequence([position]),
        OpticalPathIdentificationSequence=Sequence([_with(OpticalPathIdentifier=level.names[path])]),
    )


def _set_pixels(ds: Dataset, level: Level, frames: list[bytes]) -> None:
    if level.syntax in NATIVE:
        data = b"".join(frames)
        ds.PixelData = data + b"\0" * (len(data) % 2)
        ds["PixelData"].VR = "OB" if level.pixels.dtype.itemsize == 1 else "OW"
        return
    if level.tables == "extended":
        ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    else:
        ds.PixelData = encapsulate(frames, has_bot=level.tables == "basic")
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


def write(path: Path, level: Level, slide: Slide, **changes) -> Path:
    """One instance; ``changes`` are attributes to set, None to leave out."""
    frames = [(place, encode(tile, level.syntax, level.colours, level.bits)) for place, tile in level.tiles()]
    return save(path, dataset(level, slide, frames), **changes)


def write_parts(paths: list[Path], level: Level, slide: Slide) -> list[Path]:
    """A concatenation: an instance in as many parts as there are paths."""
    frames = [(place, encode(tile, level.syntax, level.colours, level.bits)) for place, tile in level.tiles()]
    common = {"ConcatenationUID": generate_uid(), "SOPInstanceUIDOfConcatenationSource": generate_uid()}
    each = -(-len(frames) // len(paths))
    for number, path in enumerate(paths):
        part = {"InConcatenationNumber": number + 1, "InConcatenationTotalNumber": len(paths)}
        part["ConcatenationFrameOffsetNumber"] = number * each
        save(path, dataset(level, slide, frames[number * each : (number + 1) * each]), **common, **part)
    return paths


def save(path: Path, ds: Dataset, **changes) -> Path:
    for name, value in changes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    dcmwrite(path, ds, enforce_file_format=True)
    return path
