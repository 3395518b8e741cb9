"""Arrays of other libraries give the pixels that numpy says they hold."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import dask.array
import numpy as np
import pytest
import torch
import xarray
import zarr
from PIL import Image

from exactile.errors import ChannelError, OptionError, SourceError
from exactile.geometry import Box, Span
from exactile.sources.open import open_source
from exactile.sources.protocol import ReadPlan

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


def everything(source) -> np.ndarray:
    """Read in two rows of boxes after a plan was announced, as a run does."""
    whole = np.zeros((source.height, source.width, source.channels), source.dtype)
    rows = [Span(0, source.height // 2), Span(source.height // 2, source.height)]
    columns = Span(0, source.width)
    plan = ReadPlan(rows=rows, columns=[columns])
    source.prepare(plan, cache_bytes=source.cache_bytes(plan))
    for span in rows:
        source.read(Box(span, columns), whole[span.start : span.stop])
    return whole


def in_zarr(pixels, **options):
    return zarr.create_array(zarr.storage.MemoryStore(), data=pixels, **options)


ARRAYS = {
    "numpy": lambda p: p,
    "torch": torch.from_numpy,
    "pillow": Image.fromarray,
    "dask": lambda p: dask.array.from_array(p, chunks=(16, 20, 3)),
    "dask, irregular chunks": lambda p: dask.array.from_array(p, chunks=((5, 20, 12), (50, 3), (1, 2))),
    "zarr": lambda p: in_zarr(p, chunks=(16, 20, 2)),
    "xarray": lambda p: xarray.DataArray(p, dims=("y", "x", "band")),
    "xarray, channels first": lambda p: xarray.DataArray(p.transpose(2, 0, 1), dims=("channel", "Y", "X")),
    "xarray, columns first": lambda p: xarray.DataArray(p.transpose(1, 0, 2), dims=("lon", "lat", "c")),
    "xarray of dask": lambda p: xarray.DataArray(dask.array.from_array(p, chunks=(16, 20, 3)), dims=("y", "x", "c")),
}


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS.keys())
def test_an_array_of_any_library_gives_its_pixels(make):
    """All channels, and two of them in another order."""
    with closing(open_source(make(PIXELS), workers=2)) as source:
        assert (everything(source) == PIXELS).all()
    with closing(open_source(make(PIXELS), channels=[2, 0])) as source:
        assert (everything(source) == PIXELS[..., [2, 0]]).all()


def test_planes_of_a_data_array_are_chosen_by_name():
    """z and t are numbers along the dimensions of these names, wherever they stand."""
    stack = np.random.default_rng(1).integers(0, 256, (4, 37, 2, 53), dtype=np.uint16)
    array = xarray.DataArray(stack, dims=("time", "y", "z", "x"))
    with closing(open_source(array, t=3, z=1)) as source:
        assert (everything(source)[..., 0] == stack[3, :, 1]).all()
    with pytest.raises(SourceError, match=r"choose .*z \(--z\)"):
        open_source(array, t=3)
    with pytest.raises(OptionError, match="t 9 was requested"):
        open_source(array, t=9, z=0)


def test_a_zarr_group_with_ome_metadata_is_an_image_with_levels():
    """An open group is read as its folder would be."""
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w", zarr_format=3)
    axes = [{"name": name, "type": "space"} for name in "yx"]
    datasets = []
    for level in range(2):
        pixels = PIXELS[:: 1 << level, :: 1 << level, 0]
        group.create_array(str(level), shape=pixels.shape, chunks=(16, 16), dtype="u1")[:] = pixels
        scale = {"type": "scale", "scale": [1 << level, 1 << level]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    with closing(open_source(group, level=1)) as source:
        assert (everything(source)[..., 0] == PIXELS[::2, ::2, 0]).all()


def test_axes_of_arrays_without_names_are_told():
    """CYX for dask and torch as for numpy."""
    planes = PIXELS.transpose(2, 0, 1).copy()
    for array in (planes, dask.array.from_array(planes, chunks=(1, 16, 16)), torch.from_numpy(planes)):
        with closing(open_source(array, axes="CYX")) as source:
            assert (everything(source) == PIXELS).all()


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (3, SourceError, "type int"),
        ([[1, 2], [3, 4]], SourceError, "type list"),
        (xarray.DataArray(PIXELS, dims=("u", "v", "w")), SourceError, "dimensions of the array are called"),
        (xarray.Dataset({"a": (("y", "x"), PIXELS[..., 0])}), SourceError, "give one of them"),
        (torch.zeros((4, 4), requires_grad=True), SourceError, "cannot become a numpy array"),
        (torch.zeros((4, 4), device="meta"), SourceError, "cannot become a numpy array"),
        (dask.array.from_array(PIXELS.astype(complex)), SourceError, "complex"),
    ],
)
def test_what_is_no_image_is_refused(image, error, words):
    """The message names what was given."""
    with pytest.raises(error, match=words):
        open_source(image)


def test_a_channel_that_is_not_there_is_refused():
    """In chunked arrays as elsewhere."""
    with pytest.raises(ChannelError, match="channel 7"):
        open_source(dask.array.from_array(PIXELS), channels=[7])


def test_the_public_names_are_listed_and_cost_nothing():
    """dir(exactile) shows what can be used, and importing stays lean."""
    script = "import exactile, sys; print(*dir(exactile)); assert 'onnxruntime' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"Session", "open_source", "open_sink", "open_bundle", "ExactileError"} <= set(done.stdout.split())
