"""Sweeping an image far larger than the memory granted takes the memory granted."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import zarr

SIDE = 9000

PROGRAM = """
import json, resource, sys
import numpy as np
from exactile.geometry import Box, Span
from exactile.sources.protocol import ReadPlan
from exactile.sources.{module}.source import {name}
source = {name}({path!r}, workers=2)
spans = [Span(max(0, y - 50), min({side}, y + 950)) for y in range(0, {side}, 900)]
plan = ReadPlan(rows=spans, columns=spans)
out = np.ones((1000, 1000, source.channels), source.dtype)
source.read(Box(Span(0, 9), Span(0, 9)), out[:9, :9])
granted = source.cache_bytes(plan)
source.prepare(plan, cache_bytes=granted)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for rows in spans:
    for columns in spans:
        source.read(Box(rows, columns), out[: rows.length, : columns.length])
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
count = source.count()
print(json.dumps([granted, grown, count.chunks_decoded, count.chunks_stored]))
"""


def write_zarr(path) -> None:
    array = zarr.create_array(str(path), shape=(SIDE, SIDE, 3), chunks=(400, 600, 3), dtype="u1")
    for y in range(0, SIDE, 400):
        array[y : y + 400] = y % 256


def write_slide(path) -> None:
    tiles = (np.full((256, 256, 3), index % 256, np.uint8) for index in range((-(-SIDE // 256)) ** 2))
    tifffile.imwrite(
        path, tiles, shape=(SIDE, SIDE, 3), dtype="u1", tile=(256, 256), photometric="rgb", compression="zlib"
    )


@pytest.mark.parametrize(
    ("write", "module", "name"), [(write_zarr, "zarr", "ZarrSource"), (write_slide, "slide", "SlideSource")]
)
def test_a_sweep_takes_no_more_than_was_granted(tmp_path, write, module, name):
    """Of 243 MB of pixels; 24 MB beside the cache are the libraries' own."""
    write(tmp_path / "image")
    program = PROGRAM.format(module=module, name=name, path=str(tmp_path / "image"), side=SIDE)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    granted, grown, decoded, stored = json.loads(done.stdout)
    assert granted < 120 << 20
    assert grown < granted + (24 << 20)
    assert decoded == stored
