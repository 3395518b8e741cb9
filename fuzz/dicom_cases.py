"""Damaged slides in DICOM files: bits, disks, transfers, and elements that lie."""

from __future__ import annotations

import struct

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword

from fuzz.bytes_damaged import (
    Mutation,
    Random,
    cut,
    damaged,
    flip,
    inserted,
    joined,
    overwritten,
    truncated,
)
from fuzz.dicom_bases import BASES, dicom_base
from fuzz.recipe import Recipe, draw

NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    12,
    15,
    16,
    23,
    24,
    25,
    39,
    40,
    41,
    61,
    83,
    255,
    256,
    4096,
    65535,
    65536,
    2**31,
    2**32 - 1,
)
SIGNS = b"0123456789.\\ ABRGYFULT_\0\xff-+"
ITEM = b"\xfe\xff\x00\xe0"
PIXELS = b"\xe0\x7f\x10\x00"

SIZES = (
    "Rows", "Columns", "NumberOfFrames", "TotalPixelMatrixColumns", "TotalPixelMatrixRows",
    "TotalPixelMatrixFocalPlanes", "NumberOfOpticalPaths", "ColumnPositionInTotalImagePixelMatrix",
    "RowPositionInTotalImagePixelMatrix",
)  # fmt: skip
FORMS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "ImageType", "DimensionOrganizationType", "TransferSyntaxUID",
)  # fmt: skip
PLACES = (
    "OpticalPathIdentifier", "ZOffsetInSlideCoordinateSystem", "SpacingBetweenSlices", "PixelSpacing",
    "ImageOrientationSlide", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "ImagedVolumeWidth",
)  # fmt: skip
SEQUENCES = (
    "PerFrameFunctionalGroupsSequence", "PlanePositionSlideSequence", "OpticalPathSequence",
    "OpticalPathIdentificationSequence", "SharedFunctionalGroupsSequence", "TotalPixelMatrixOriginSequence",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip


def dicom_recipe(seed: int) -> Recipe:
    return draw("dicom", list(BASES), list(MUTATIONS), seed)


def dicom_case(recipe: Recipe) -> bytes:
    """Return the file of a recipe."""
    return damaged(dicom_base(recipe.base), recipe, MUTATIONS)


def _pixels_at(data: bytearray) -> int:
    found = data.rfind(PIXELS)
    return found if found > 0 else len(data)


def _elements(data: bytearray, keyword: str) -> tuple[list[int], str, str]:
    """Return where elements begin, how their numbers are packed, and their value representation."""
    tag = tag_for_keyword(keyword)
    order = ">" if dicom_base("full big endian")[:300] == bytes(data[:300]) and keyword != "TransferSyntaxUID" else "<"
    packed = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    places, at = [], data.find(packed)
    while at >= 0:
        places.append(at)
        at = data.find(packed, at + 1)
    return places, order, dictionary_VR(tag)


def _value(keywords: tuple[str, ...]) -> Mutation:
    """Replace a value by another of the same length."""

    def mutate(data: bytearray, rng: Random) -> bytearray:
        places, order, kind = _elements(data, keywords[int(rng.integers(len(keywords)))])
        at = places[int(rng.integers(len(places)))]
        explicit = data[at + 4 : at + 6] == kind.encode()
        length = struct.unpack_from(f"{order}H", data, at + (6 if explicit else 4))[0]
        form = {"US": "H", "UL": "I", "SL": "I", "FD": "d"}.get(kind)
        if form == "d":
            struct.pack_into(f"{order}d", data, at + 8, float(rng.choice([0, -1, 1e-9, 1e300, np.inf, np.nan, 0.0015])))
        elif form:
            number = NUMBERS[int(rng.integers(len(NUMBERS)))] % (1 << 8 * struct.calcsize(form))
            struct.pack_into(f"{order}{form}", data, at + 8, number)
        else:
            for place in rng.integers(0, min(length, 64), int(rng.integers(1, 4))):
                data[at + 8 + int(place)] = SIGNS[int(rng.integers(len(SIGNS)))]
        return data

    return mutate


def _length(data: bytearray, rng: Random) -> bytearray:
    """Change the length of an element or sequence."""
    names = (*SIZES, *FORMS, *PLACES, *SEQUENCES)
    places, order, kind = _elements(data, names[int(rng.integers(len(names)))])
    at = places[int(rng.integers(len(places)))]
    number = NUMBERS[int(rng.integers(len(NUMBERS)))]
    long = kind in ("SQ", "OB", "OW", "OV", "OB or OW")
    if long or data[at + 4 : at + 6] != kind.encode():
        struct.pack_into(f"{order}I", data, at + (8 if data[at + 4 : at + 5].isalpha() else 4), number)
    else:
        struct.pack_into(f"{order}H", data, at + 6, number % 65536)
    return data


def _item(data: bytearray, rng: Random) -> bytearray:
    """Change the length of a frame's item, or of the basic table of offsets."""
    start = _pixels_at(data)
    places = [at for at in range(start, len(data) - 8) if data[at : at + 4] == ITEM]
    at = places[int(rng.integers(len(places)))]
    length = struct.unpack_from("<I", data, at + 4)[0]
    number = int(rng.choice([0, 1, 2, length - 2, length + 2, length + 8, 2**31, 2**32 - 1]))
    struct.pack_into("<I", data, at + 4, number % 2**32)
    return data


def _offsets(data: bytearray, rng: Random) -> bytearray:
    """Change an entry of a table of offsets, basic or extended."""
    start = _pixels_at(data)
    table = data.find(ITEM, start)
    if rng.random() < 0.5:
        table = data.find(b"\xe0\x7f\x01\x00") + 4
    at = table + 8 + 4 * int(rng.integers(18))
    number = int(rng.choice([0, 1, 8, struct.unpack_from("<I", data, at)[0] + int(rng.choice([-8, -2, 2, 8])), 2**31]))
    struct.pack_into("<I", data, at, number % 2**32)
    return data


MUTATIONS: dict[str, Mutation] = {
    "intact": lambda data, _: data,
    "bits anywhere": lambda data, rng: flip(data, rng, 0, len(data)),
    "bits before the pixels": lambda data, rng: flip(data, rng, 128, _pixels_at(data)),
    "truncated": truncated,
    "bytes cut out": lambda data, rng: cut(data, rng, 200),
    "bytes inserted": lambda data, rng: inserted(data, rng, 200),
    "a sector lost": overwritten,
    "two files": joined(list(BASES), dicom_base),
    "a size": _value(SIZES),
    "a form": _value(FORMS),
    "a place": _value(PLACES),
    "a length": _length,
    "an item": _item,
    "an offset": _offsets,
}
