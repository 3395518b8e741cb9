"""Pixels without data take no part in statistics of the whole image, and are background where that is asked for."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import rasterio
import tifffile

from exactile.contract import ImageStatistics
from exactile.errors import SourceError
from exactile.geometry import Box, Span
from exactile.image_statistics.measure import measure
from exactile.sources.array import ArraySource
from exactile.sources.metadata import metadata_of, nodata_of
from exactile.sources.nodata import nodata_rule
from exactile.sources.open import open_source
from tests.support.command import exactile, run_json
from tests.support.nets import onnx_file

CASES = [("uint8", 7), ("uint16", 65535), ("float32", -9999.0), ("float32", float("nan"))]


def picture(dtype: str, value: float, shape=(140, 150, 3)) -> tuple[np.ndarray, np.ndarray]:
    """An image, and which of its pixels have data; single samples of the value are data."""
    image = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    there = np.ones(shape[:2], bool)
    there[:90, 20:] = False
    image[~there] = value
    if not np.isnan(value):
        image[100, 5, 1] = value
    return image, there


@pytest.mark.parametrize(("dtype", "value"), CASES)
@pytest.mark.parametrize("kind", ["zscore", "percentile"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_statistics_are_those_of_the_pixels_with_data(dtype, value, kind, per_channel, monkeypatch):
    monkeypatch.setattr("exactile.image_statistics.measure.BLOCK_BYTES", 10_000)
    image, there = picture(dtype, value)
    wanted = ImageStatistics(kind=kind, per_channel=per_channel)
    found = measure(ArraySource(image), wanted, nodata=value)
    samples = image[there].astype("f8")
    samples = samples if per_channel else samples.reshape(-1, 1)
    low, high = (samples.mean(0), samples.std(0)) if kind == "zscore" else np.percentile(samples, [1, 99.8], axis=0)
    scale = high if kind == "zscore" else high - low
    np.testing.assert_allclose(found.offset, np.broadcast_to(low, 3), rtol=1e-6)
    np.testing.assert_allclose(found.scale, np.broadcast_to(scale, 3) + 1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("kind", ["zscore", "percentile"])
def test_an_image_without_data_has_no_statistics(dtype, kind):
    with pytest.raises(SourceError, match="every pixel of the image is nodata"):
        measure(ArraySource(np.full((9, 9, 2), 4, dtype)), ImageStatistics(kind=kind), nodata=4)


@pytest.mark.parametrize(("dtype", "value"), [case for case in CASES if case[0] != "uint16"])
def test_the_value_is_that_of_the_file_where_it_says_one(tmp_path, dtype, value):
    image, _ = picture(dtype, value)
    form = {"driver": "GTiff", "height": 140, "width": 150, "count": 3, "dtype": dtype, "nodata": value}
    with rasterio.open(tmp_path / "i.tif", "w", **form, transform=rasterio.Affine(1, 0, 9, 0, -1, 9)) as file:
        file.write(np.moveaxis(image, 2, 0))
    source = open_source(tmp_path / "i.tif")
    np.testing.assert_equal(nodata_of(source), value)
    assert nodata_of(source, 3.0) == 3.0
    source.close()
    tifffile.imwrite(tmp_path / "plain.tif", np.zeros((9, 9), "u1"))
    source = open_source(tmp_path / "plain.tif")
    assert nodata_of(source) is None
    source.close()


def test_tiles_without_data_are_not_computed_and_a_run_that_goes_on_has_the_same_value(tmp_path):
    model = onnx_file(tmp_path, "unet_d2")
    image, _ = picture("uint8", 7, (300, 300, 3))
    image[:200] = 7
    tifffile.imwrite(tmp_path / "i.tif", image, photometric="rgb")
    options = ("-o", tmp_path / "o.tif", "--tile", 64, "--skip-background", "nodata", "--background-label", 2)
    refused = exactile("run", model, tmp_path / "i.tif", *options)
    assert refused.returncode == 2
    assert "--nodata" in refused.stderr
    told = run_json(model, tmp_path / "i.tif", *options, "--nodata", 7)
    assert told["skipped_tiles"] > 0
    assert (tifffile.imread(tmp_path / "o.tif")[:100] == 2).all()
    run_json(model, tmp_path / "i.tif", "-o", tmp_path / "whole.tif", "--plan", "whole")
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "o.tif")[220:], tifffile.imread(tmp_path / "whole.tif")[220:]
    )


def test_a_normalised_run_sees_what_data_there_is(tmp_path):
    model = onnx_file(tmp_path, "unet_d2")
    image, there = picture("uint8", 7)
    np.save(tmp_path / "i.npy", image)
    options = ("--normalize", "zscore", "--output", "raw", "--overwrite")
    run_json(model, tmp_path / "i.npy", "-o", tmp_path / "a.npy", *options, "--nodata", 7)
    mean, std = image[there].mean(0), image[there].std(0) + 1e-6
    fixed = ("--mean", ",".join(map(str, mean)), "--std", ",".join(map(str, std)), "--output", "raw")
    run_json(model, tmp_path / "i.npy", "-o", tmp_path / "b.npy", *fixed)
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"), rtol=1e-3, atol=1e-4)


def test_the_mask_page_of_a_geotiff_is_found(tmp_path):
    """GDAL's internal mask is a page of its own, marked as one."""
    path = tmp_path / "masked.tif"
    size = {"width": 40, "height": 32, "count": 1}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", dtype="uint8", transform=rasterio.Affine(1, 0, 5, 0, -1, 9), **size
        ) as file,
    ):
        file.write(np.ones((1, 32, 40), np.uint8))
        file.write_mask(np.eye(32, 40) > 0)
    with closing(open_source(path)) as source:
        assert metadata_of(source).mask_page == 1
        rule = nodata_rule(source)
        box = Box(Span(3, 30), Span(2, 33))
        np.testing.assert_array_equal(rule.where(box, np.ones((27, 31, 1), "u1")), np.eye(32, 40)[3:30, 2:33] == 0)
        rule.close()
