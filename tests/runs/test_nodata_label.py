"""``--nodata-label``: pixels without data, by value, mask or alpha, in tiles, strips and one pass."""

from __future__ import annotations

from contextlib import closing

import imagecodecs
import numpy as np
import pytest
import rasterio
import tifffile

from exactile.contract import ImageStatistics
from exactile.errors import OptionError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile.sources.open import open_source
from exactile_converters.deploy import Normalization, deploy, load_network
from tests.support.command import exactile, run_json
from tests.support.nets import onnx_file

LABEL = 9
SHAPE = (151, 173)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model(folder):
    return onnx_file(folder, "unet_d2")


def image_and_data(value: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """RGB, and which of its pixels have data: a ragged part, single pixels, whole rows."""
    rng = np.random.default_rng(0)
    image = rng.integers(1, 250, (*SHAPE, 3)).astype(np.uint8)
    there = np.ones(SHAPE, bool)
    there[:40, :90] = rng.random((40, 90)) < 0.5
    there[60:110] = False
    there[-1, -1] = there[120, 7] = False
    image[~there] = value
    image[130, 20, 1] = value  # one sample is data
    return image, there


def deployed(folder, name: str, dtype: str = "uint8"):
    return deploy(load_network(onnx_file(folder, name)), image_dtype=dtype)


def run(model, image, plan, tile, **options) -> np.ndarray:
    sink = ArraySink()
    with closing(Session(model, memory_bytes=1 << 40)) as session:
        session.segment(ArraySource(image), sink, plan=plan, tile=tile, **options)
    return sink.result


@pytest.mark.parametrize("border", ["model", "reflect"])
@pytest.mark.parametrize(
    ("plan", "tile"), [("whole", None), ("tile", (64, 72)), ("strip", (16, 80)), ("strip", (24, 176))]
)
def test_every_plan_marks_the_same_pixels(folder, plan, tile, border):
    image, there = image_and_data()
    net = deployed(folder, "unet_d2")
    plain = run(net, image, "whole", None, border=border)
    expected = np.where(there, plain, LABEL)
    np.testing.assert_array_equal(run(net, image, plan, tile, border=border, nodata=0, nodata_label=LABEL), expected)


@pytest.mark.parametrize("name", ["super_resolution", "low_resolution", "valid"])
@pytest.mark.parametrize("plan", ["whole", "tile", "strip"])
def test_results_of_another_size_are_marked_where_no_pixel_under_them_has_data(folder, name, plan):
    image, there = image_and_data()
    net = deployed(folder, name)
    image, there = image[:128, :160, : net.contract.image.channels], there[:128, :160]
    if image.shape[2] == 1:
        there = (image != 0).any(axis=2)
    plain = run(net, image, "whole", None)
    y, x = net.contract.geometry.y, net.contract.geometry.x
    gone = np.zeros(plain.shape, bool)
    for row in range(plain.shape[0]):
        for column in range(plain.shape[1]):
            top, left = (int(at / axis.scale) + axis.offset for at, axis in ((row, y), (column, x)))
            bottom, right = (-int(-(at + 1) // axis.scale) + axis.offset for at, axis in ((row, y), (column, x)))
            gone[row, column] = not there[top : max(bottom, top + 1), left : max(right, left + 1)].any()
    assert gone.any()
    tile = {"whole": None, "tile": (64, 64), "strip": (2 * y.stride, 64)}[plan]
    marked = run(net, image, plan, tile, nodata=0, nodata_label=LABEL)
    np.testing.assert_array_equal(marked, np.where(gone, LABEL, plain))


def geotiff(path, image, there):
    form = {"driver": "GTiff", "width": SHAPE[1], "height": SHAPE[0], "count": 3, "dtype": "uint8", "tiled": True}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", transform=rasterio.Affine(1, 0, 5, 0, -1, 9), blockxsize=64, blockysize=64, **form
        ) as file,
    ):
        file.write(np.moveaxis(image, 2, 0))
        file.write_mask(there)


def tiff_with_alpha(path, image, there):
    pixels = np.dstack([image, np.where(there, 255, 0)]).astype(np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"], tile=(64, 64))


def png_with_alpha(path, image, there):
    path.write_bytes(imagecodecs.png_encode(np.dstack([image, np.where(there, 255, 0)]).astype(np.uint8)))


@pytest.mark.parametrize(
    ("name", "write"), [("mask.tif", geotiff), ("alpha.tif", tiff_with_alpha), ("alpha.png", png_with_alpha)]
)
def test_masks_and_alpha_channels_tell_what_has_no_data(model, tmp_path, name, write):
    image, there = image_and_data(value=77)
    write(tmp_path / name, image, there)
    np.save(tmp_path / "plain.npy", image)
    options = ("--plan", "tile", "--tile", 96, "--overwrite")
    run_json(model, tmp_path / "plain.npy", "-o", tmp_path / "plain.tif", *options)
    expected = np.where(there, tifffile.imread(tmp_path / "plain.tif"), LABEL)
    run_json(model, tmp_path / name, "-o", tmp_path / "o.tif", *options, "--nodata-label", LABEL)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "o.tif"), expected)
    skipped = ("--skip-background", "nodata", "--nodata-label", LABEL, "--tile", 56)
    told = run_json(model, tmp_path / name, "-o", tmp_path / "o.tif", *options, *skipped)
    assert told["skipped_tiles"] > 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "o.tif"), expected)


@pytest.mark.parametrize(
    ("name", "write"), [("mask.tif", geotiff), ("alpha.tif", tiff_with_alpha), ("alpha.png", png_with_alpha)]
)
def test_statistics_leave_out_what_masks_leave_out(folder, tmp_path, name, write):
    image, there = image_and_data(value=77)
    write(tmp_path / name, image, there)
    net = deploy(
        load_network(onnx_file(folder, "unet_d2")),
        image_dtype="uint8",
        normalization=Normalization(statistics=ImageStatistics(kind="zscore")),
    )
    with closing(open_source(tmp_path / name)) as source, closing(Session(net, memory_bytes=1 << 40)) as session:
        found = session.measure(source)
    np.testing.assert_allclose(found.offset, image[there].mean(0), rtol=1e-6)


def test_labels_that_cannot_be_are_refused(model, tmp_path):
    image, _ = image_and_data()
    np.save(tmp_path / "i.npy", image)
    for options, wrong in (
        (("--nodata-label", 300), "none that uint8 can hold"),
        (("--nodata-label", 3, "--output", "probabilities"), "the result must be labels"),
        (("--nodata-label", 3), "give it with --nodata"),
    ):
        value = () if wrong.startswith("give") else ("--nodata", 0)
        failed = exactile("run", model, tmp_path / "i.npy", "-o", tmp_path / "o.tif", *options, *value)
        assert failed.returncode == 2
        assert wrong in failed.stderr
        assert not (tmp_path / "o.tif").exists()


def test_a_label_for_pixels_that_nobody_tells_is_refused(folder):
    net = deployed(folder, "unet_d2")
    with pytest.raises(OptionError, match="declares no such value"):
        run(net, np.zeros((64, 64, 3), np.uint8), "whole", None, nodata_label=LABEL)
