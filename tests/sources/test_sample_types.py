"""Samples of other types are delivered as types that graphs take, exactly or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

from exactile.errors import SourceError
from exactile.geometry import Box, Span
from exactile.sources.open import open_source
from tests.support.command import exactile, run_json
from tests.support.nets import onnx_file
from tests.support.source_pixels import all_pixels

SHAPE = (70, 90)
TYPES = ("?", "i1", "i2", "f2", "u4", "i4", "f8")
HOLDERS = ("array", "npy", "fortran", "raw tiff", "tiff", "big-endian tiff", "zarr")


def samples(dtype: str, shape=SHAPE) -> np.ndarray:
    """Values of all the range that float32 holds, the extremes among them."""
    rng = np.random.default_rng(0)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.random(shape) > 0.5
    if kind.kind == "f":
        found = rng.normal(size=shape).astype("f2").astype(dtype)
        found.flat[:4] = np.nan, np.inf, -np.inf, 0.5
        return found
    least, most = (max(-(2**24), np.iinfo(dtype).min), min(2**24, np.iinfo(dtype).max))
    found = rng.integers(least, most + 1, shape).astype(dtype)
    found.flat[:2] = least, most
    if kind.itemsize == 4:
        found.flat[2] = 2**30 + 2**10  # beyond 2**24, and exact all the same
    return found


def stored(pixels: np.ndarray, holder: str, folder):
    """What ``open_source`` takes."""
    path = folder / "i.tif"
    match holder:
        case "array":
            return pixels
        case "npy" | "fortran":
            path = folder / "i.npy"
            np.save(
                path, pixels.astype(pixels.dtype.newbyteorder(">")) if holder == "npy" else np.asfortranarray(pixels)
            )
        case "raw tiff":
            tifffile.imwrite(path, pixels, photometric="minisblack", rowsperstrip=7)
        case "tiff" | "big-endian tiff":
            predictor = {"predictor": True} if pixels.dtype.kind in "iuf" else {}
            order = "<" if holder == "tiff" else ">"
            options = {"tile": (32, 32), "compression": "zlib", **predictor}
            tifffile.imwrite(path, pixels, photometric="minisblack", byteorder=order, **options)
        case "zarr":
            path = folder / "i.zarr"
            array = zarr.create_array(path, shape=pixels.shape, chunks=(32, 32), dtype=pixels.dtype)
            array[...] = pixels
    return path


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("holder", HOLDERS)
def test_values_are_those_that_were_stored(tmp_path, dtype, holder):
    pixels = samples(dtype)
    source = open_source(stored(pixels, holder, tmp_path))
    found = all_pixels(source)[..., 0]
    assert found.dtype == ("uint8" if dtype == "?" else "float32")
    np.testing.assert_array_equal(found.astype("f8"), pixels.astype("f8"))
    assert source.stored_dtype == pixels.dtype
    source.close()


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize(
    ("dtype", "value"),
    [("i4", 2**24 + 1), ("i4", -(2**30) - 1), ("u4", 2**32 - 1), ("f8", 0.1), ("f8", 1e300)],
)
def test_a_value_that_float32_does_not_hold_is_refused_with_its_pixel(tmp_path, holder, dtype, value):
    pixels = np.zeros(SHAPE, dtype)
    pixels[41, 67] = value
    source = open_source(stored(pixels, holder, tmp_path))
    box = Box(Span(5, 70), Span(3, 90))
    with pytest.raises(SourceError, match=r"pixel y 41, x 67 is .*float32") as refused:
        source.read(box, np.empty((65, 87, 1), "f4"))
    assert str(pixels[41, 67]) in str(refused.value)
    source.read(Box(Span(0, 41), Span(0, 90)), np.empty((41, 90, 1), "f4"))
    source.close()


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3), (3, 7, 9)])
@pytest.mark.parametrize("box", [Box(Span(0, 7), Span(0, 9)), Box(Span(2, 6), Span(1, 3))])
def test_fortran_order_is_read_where_it_lies(tmp_path, shape, box):
    array = np.random.default_rng(0).integers(0, 2**16, shape).astype("u2")
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    planar = shape[0] == 3
    channels = None if len(shape) == 2 else (2, 0)
    source = open_source(tmp_path / "a.npy", axes="CYX" if planar else None, channels=channels)
    out = np.empty((*box.shape, source.channels), "u2")
    source.read(box, out)
    whole = np.moveaxis(array, 0, 2) if planar else np.atleast_3d(array)
    np.testing.assert_array_equal(out, (whole if channels is None else whole[..., list(channels)])[box.slices()])
    source.close()


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("compression", [None, "packbits", "zlib"])
def test_one_bit_a_sample(tmp_path, photometric, compression):
    pixels = samples("?", (61, 77))
    tifffile.imwrite(tmp_path / "i.tif", pixels, photometric=photometric, compression=compression)
    source = open_source(tmp_path / "i.tif")
    np.testing.assert_array_equal(all_pixels(source)[..., 0], pixels.astype("u1"))
    source.close()


@pytest.mark.parametrize("factor", [1, 256, 257])
@pytest.mark.parametrize("options", [{}, {"tile": (32, 32), "compression": "zlib"}, {"compression": "packbits"}])
def test_a_palette_of_8_bits_becomes_rgb_of_8_bits(tmp_path, factor, options):
    table = np.random.default_rng(1).integers(0, 256, (3, 256), dtype=np.uint16)
    numbers = np.random.default_rng(2).integers(0, 256, SHAPE, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "i.tif", numbers, photometric="palette", colormap=table * factor, **options)
    source = open_source(tmp_path / "i.tif")
    found = all_pixels(source)
    assert found.dtype == "uint8"
    np.testing.assert_array_equal(found, np.moveaxis(table[:, numbers], 0, 2))
    source.close()


def test_a_palette_of_16_bits_stays_so(tmp_path):
    table = np.random.default_rng(1).integers(0, 2**16, (3, 256), dtype=np.uint16)
    numbers = np.random.default_rng(2).integers(0, 256, SHAPE, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "i.tif", numbers, photometric="palette", colormap=table)
    source = open_source(tmp_path / "i.tif")
    np.testing.assert_array_equal(all_pixels(source), np.moveaxis(table[:, numbers], 0, 2))
    source.close()


def test_a_bundle_for_another_type_refuses_with_both_types_and_a_model_takes_it(tmp_path):
    model = onnx_file(tmp_path, "unet_d2")
    pixels = samples("i2", (*SHAPE, 3))
    np.save(tmp_path / "i.npy", pixels)
    np.save(tmp_path / "f.npy", pixels.astype("f4"))
    for name in "if":
        run_json(model, tmp_path / f"{name}.npy", "-o", tmp_path / f"{name}.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "i.tif"), tifffile.imread(tmp_path / "f.tif"))
    done = exactile("convert", model, "-o", tmp_path / "b", "--dtype", "uint16")
    assert done.returncode == 0, done.stderr
    refused = exactile("run", tmp_path / "b", tmp_path / "i.npy", "-o", tmp_path / "o.tif")
    assert refused.returncode == 2
    assert "int16 samples, which are read as float32, and the model was deployed for uint16" in refused.stderr
