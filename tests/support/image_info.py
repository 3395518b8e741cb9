"""What ``exactile info`` tells of an image, and a stack to be told of."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import tifffile

from exactile.sources.description import image_schema
from tests.support.command import within


def told(image, *options) -> dict:
    """What ``--json`` prints of an image that can be read."""
    done = within("info", image, *options, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return checked(json.loads(done.stdout))


def checked(found: dict) -> dict:
    jsonschema.validate(found, image_schema())
    return found


def text(image, *options) -> str:
    done = within("info", image, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def ranges(found: dict) -> dict:
    return {one["option"]: one["values"] or [one["least"], one["most"]] for one in found["options"]}


def needed(found: dict) -> list[str]:
    return [one["option"] for one in found["options"] if one["needed"]]


def noise(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, shape).astype(dtype)


def write_stack(path: Path) -> Path:
    """OME-TIFF: T 2, C 3, Z 4, 600 x 700 pixels of 0.5 x 0.25 um, three levels."""
    pixels = noise(2, 3, 4, 600, 700)
    meta = {"axes": "TCZYX", "Channel": {"Name": ["DAPI", "GFP", "Cy5"]}, "Name": "embryo"}
    for axis, size in (("X", 0.25), ("Y", 0.5)):
        meta |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as tiff:
        form = {"tile": (128, 256), "compression": "zlib", "predictor": True}
        tiff.write(pixels, subifds=2, metadata=meta, **form)
        for step in (2, 4):
            tiff.write(pixels[..., ::step, ::step], subfiletype=1, **form)
    return path
