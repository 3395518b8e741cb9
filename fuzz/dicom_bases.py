"""Small intact slides in DICOM files, for damage to start from."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from pydicom import uid

from tests.support.dicom_slides import Level, Slide, write

HEIGHT, WIDTH, TILE = 61, 83, (24, 40)
_ROOT = "1.2.826.0.1.3680043.8.498."


def _pixels(colour: bool, dtype: str = "uint8", paths: int = 1, planes: int = 1) -> np.ndarray:
    """Return (paths, planes, H, W) or (..., 3): smooth with some noise."""
    shape = (paths, planes, HEIGHT, WIDTH, *((3,) if colour else ()))
    ramp = np.add.outer(np.arange(HEIGHT) * 2, np.arange(WIDTH))
    noisy = (ramp[..., None] if colour else ramp) + np.random.default_rng(3).integers(0, 9, shape)
    return (noisy % 250 * (257 if dtype == "uint16" else 1)).astype(dtype)


_SPARSE = {"sparse": True, "left_out": frozenset({(0, 0, 1, 1)})}

BASES: dict[str, Level] = {
    "full native": Level(pixels=_pixels(True), tile=TILE),
    "full implicit": Level(pixels=_pixels(False, "uint16"), tile=TILE, syntax=uid.ImplicitVRLittleEndian),
    "full big endian": Level(pixels=_pixels(False, "uint16"), tile=TILE, syntax=uid.ExplicitVRBigEndian),
    "full jpeg": Level(pixels=_pixels(True), tile=TILE, syntax=uid.JPEGBaseline8Bit, photometric="YBR_FULL_422"),
    "full jpeg grey": Level(pixels=_pixels(False), tile=TILE, syntax=uid.JPEGBaseline8Bit, tables="extended"),
    "full jpeg 2000": Level(pixels=_pixels(True), tile=TILE, syntax=uid.JPEG2000, photometric="YBR_RCT"),
    "full planes": Level(pixels=_pixels(False, paths=2), tile=TILE, syntax=uid.RLELossless),
    "sparse native": Level(pixels=_pixels(True), tile=TILE, **_SPARSE),
    "sparse jpeg-ls": Level(pixels=_pixels(True), tile=TILE, syntax=uid.JPEGLSLossless, tables="empty", **_SPARSE),
    "sparse paths": Level(pixels=_pixels(False, "uint16", paths=2), tile=TILE, syntax=uid.JPEG2000Lossless, **_SPARSE),
}


@cache
def dicom_base(name: str) -> bytes:
    """Return the same bytes every time: what is otherwise drawn at random is fixed."""
    slide = Slide(study=uid.UID(_ROOT + "1"), series=uid.UID(_ROOT + "2"), frame_of_reference=uid.UID(_ROOT + "3"))
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.dcm", BASES[name], slide, SOPInstanceUID=uid.UID(_ROOT + "4"))
        return path.read_bytes()
