"""Pyramids that other programs open: libtiff's conventions by OpenSlide, OME's by tifffile, both by our own source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import ome_types
import openslide
import pytest
import tifffile

from exactile.geometry import Box, Span
from exactile.sinks.tiff.sink import TiffSink
from exactile.sinks.zarr.sink import ZarrSink
from exactile.sources.open import open_source
from tests.sinks.test_pixels import noise, row_major, spec_of

SHAPE = (700, 530)
BLOBS = (np.add.outer(np.arange(SHAPE[0]) // 50, np.arange(SHAPE[1]) // 70) % 3).astype(np.uint8)


def write(path, pixels, pixel_size_um=(0.5, 0.25), **options) -> None:
    sink = TiffSink(path, tile=64, **options)
    sink.begin(replace(spec_of(pixels), pixel_size_um=pixel_size_um))
    for box in row_major(*pixels.shape[-2:], 130, 190):
        sink.write(box, pixels[(..., *box.slices())])
    sink.finish()


def reduced(pixels: np.ndarray, level: int) -> np.ndarray:
    return pixels[..., :: 2**level, :: 2**level]


@pytest.mark.parametrize("compression", ["zlib", "lzw", "none"])
def test_openslide_opens_a_plain_pyramid(tmp_path, compression):
    write(tmp_path / "a.tif", BLOBS, compression=compression)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.level_dimensions == tuple(reduced(BLOBS, level).shape[::-1] for level in range(5))
        for level, (width, height) in enumerate(slide.level_dimensions):
            read = np.asarray(slide.read_region((0, 0), level, (width, height)))[..., 0]
            np.testing.assert_array_equal(read, reduced(BLOBS, level))


def test_openslide_knows_the_size_of_a_pixel(tmp_path):
    write(tmp_path / "a.tif", BLOBS)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert float(slide.properties["tiff.XResolution"]) == pytest.approx(1e4 / 0.25)
        assert float(slide.properties["tiff.YResolution"]) == pytest.approx(1e4 / 0.5)
        assert slide.properties["tiff.ResolutionUnit"] == "centimeter"


@pytest.mark.parametrize("shape", [SHAPE, (3, *SHAPE)])
@pytest.mark.parametrize("name", ["a.ome.tif", "a.tif"])
def test_tifffile_finds_all_levels_tiled_and_compressed(tmp_path, shape, name):
    pixels = np.broadcast_to(BLOBS, shape)
    write(tmp_path / name, np.ascontiguousarray(pixels))
    with tifffile.TiffFile(tmp_path / name) as tiff:
        assert tiff.is_bigtiff
        (series,) = tiff.series
        flat = len(shape) == 3 and name == "a.tif"
        assert len(series.levels) == (1 if flat else 5)
        for level, found in enumerate(series.levels):
            assert found.shape == reduced(pixels, level).shape
            if len(shape) == 2 or not level:  # maps are averaged
                np.testing.assert_array_equal(found.asarray(), reduced(pixels, level))
            for page in found.pages:
                assert (page.aspage().tile, page.compression.name) == ((64, 64), "ADOBE_DEFLATE")
        assert tiff.is_ome == (name == "a.ome.tif")


@pytest.mark.parametrize("shape", [SHAPE, (3, *SHAPE)])
def test_ome_xml_is_valid_and_tells_the_size_of_a_pixel(tmp_path, shape):
    write(tmp_path / "a.ome.tif", np.ascontiguousarray(np.broadcast_to(BLOBS, shape)))
    (image,) = ome_types.from_tiff(tmp_path / "a.ome.tif", validate=True).images
    pixels = image.pixels
    assert (pixels.size_y, pixels.size_x, pixels.size_c) == (*SHAPE, 3 if len(shape) == 3 else 1)
    assert pixels.type.value == "uint8"
    assert (pixels.physical_size_y, pixels.physical_size_x) == (0.5, 0.25)
    assert pixels.physical_size_x_unit.value == "µm"


@pytest.mark.parametrize("name", ["a.ome.tif", "a.tif", "a.zarr"])
def test_what_we_write_we_read_at_every_level_with_its_pixel_size(tmp_path, name):
    if name == "a.zarr":
        sink = ZarrSink(tmp_path / name, tile=64)
        sink.begin(replace(spec_of(BLOBS), pixel_size_um=(0.5, 0.25)))
        for box in row_major(*SHAPE, 130, 190):
            sink.write(box, BLOBS[box.slices()])
        sink.finish()
    else:
        write(tmp_path / name, BLOBS)
    image = tmp_path / name / "labels" / "segmentation" if name == "a.zarr" else tmp_path / name
    for level in range(4):
        source = open_source(image, level=level)
        wanted = reduced(BLOBS, level)
        assert (source.height, source.width, source.channels) == (*wanted.shape, 1)
        out = np.empty((*wanted.shape, 1), np.uint8)
        source.read(Box(Span(0, wanted.shape[0]), Span(0, wanted.shape[1])), out)
        np.testing.assert_array_equal(out[..., 0], wanted)
        assert source.pixel_size_um == pytest.approx((0.5 * 2**level, 0.25 * 2**level), rel=0.02)
        source.close()


def test_maps_are_averaged_and_integers_rounded(tmp_path):
    for dtype in ("float32", "uint8"):
        pixels = noise((2, 101, 64), dtype)
        write(tmp_path / f"{dtype}.ome.tif", pixels)
        with tifffile.TiffFile(tmp_path / f"{dtype}.ome.tif") as tiff:
            half = tiff.series[0].levels[1].asarray()
        padded = np.pad(pixels.astype(np.float64), ((0, 0), (0, 1), (0, 0)), mode="edge")
        expected = padded.reshape(2, 51, 2, 32, 2).mean(axis=(2, 4))
        np.testing.assert_array_equal(half, (np.rint(expected) if dtype == "uint8" else expected).astype(dtype))
