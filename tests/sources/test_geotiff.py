"""Results lie where their images lie on the ground, as rasterio (GDAL) reads both."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import rasterio
import tifffile
from onnx import TensorProto, helper, numpy_helper
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from exactile.session import Session
from exactile.sinks.tiff.sink import TiffSink
from exactile.sources.metadata import metadata_of
from exactile.sources.open import open_source
from exactile_converters.deploy import deploy, load_network
from tests.support.command import run_json

PLACE = Affine(0.5, 0.0, 440720.0, 0.0, -0.25, 5551320.0)
TURNED = Affine.translation(440720.0, 5551320.0) @ Affine.rotation(30) @ Affine.scale(0.5, -0.25)


def network(path, *, pads: int = 1, stride: int = 1, up: int = 1) -> object:
    """One convolution of 3 x 3: 3 channels to 2; ``up`` times as many pixels at the end."""
    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype("f4"), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[pads] * 4, strides=[stride] * 2)]
    constants = [weights]
    if up > 1:
        constants.append(numpy_helper.from_array(np.array([1, 1, up, up], "f4"), "s"))
        nodes.append(
            helper.make_node(
                "Resize", ["c", "", "s"], ["y"], mode="nearest", nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
        )  # fmt: skip
    else:
        nodes.append(helper.make_node("Identity", ["c"], ["y"]))
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, None, None])],
        constants,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def raster(path, *, transform=PLACE, shape=(60, 70), **more):
    pixels = np.random.default_rng(1).integers(0, 256, (3, *shape), dtype=np.uint8)
    options = {"driver": "GTiff", "height": shape[0], "width": shape[1], "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **options, crs="EPSG:32633", transform=transform, photometric="RGB", **more) as file:
        file.write(pixels)
    return path


def segment(model, image, target, *, border="model", **choice) -> None:
    source = open_source(image, **choice)
    try:
        session = Session(deploy(load_network(model), image_dtype="uint8"))
        session.segment(source, TiffSink(target, overwrite=True), border=border)
        session.close()
    finally:
        source.close()


def placed(path):
    with rasterio.open(path) as file:
        return file.transform, file.crs


@pytest.mark.parametrize("name", ["o.tif", "o.ome.tif"])
@pytest.mark.parametrize("transform", [PLACE, TURNED], ids=["scale", "transformation"])
def test_labels_on_the_grid_of_the_image_lie_where_it_does(tmp_path, name, transform):
    image = raster(tmp_path / "i.tif", transform=transform)
    segment(network(tmp_path / "m.onnx"), image, tmp_path / name)
    assert placed(tmp_path / name) == placed(image)


@pytest.mark.parametrize(
    ("options", "border", "expected"),
    [
        ({"pads": 0}, "model", Affine.translation(1, 1)),
        ({"pads": 0}, "reflect", Affine.identity()),
        ({"stride": 2}, "model", Affine.scale(2)),
        ({"up": 3}, "model", Affine.scale(1 / 3)),
    ],
    ids=["valid", "valid padded", "low resolution", "super resolution"],
)
@pytest.mark.parametrize("transform", [PLACE, TURNED], ids=["scale", "transformation"])
def test_results_of_another_grid_are_scaled_and_shifted(tmp_path, options, border, expected, transform):
    image = raster(tmp_path / "i.tif", transform=transform)
    segment(network(tmp_path / "m.onnx", **options), image, tmp_path / "o.tif", border=border)
    found, crs = placed(tmp_path / "o.tif")
    assert found.almost_equals(transform @ expected, precision=1e-6)
    assert crs == placed(image)[1]


def test_where_numbers_mean_the_centres_of_pixels_corners_lie_together_all_the_same(tmp_path):
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 2, 3072, 0, 1, 32633)
    tie = (0.0, 0.0, 0.0, 440720.0, 5551320.0, 0.0)
    tags = [(33550, "d", 3, (0.5, 0.25, 0.0), True), (33922, "d", 6, tie, True), (34735, "H", 16, keys, True)]
    tifffile.imwrite(tmp_path / "i.tif", np.zeros((60, 70, 3), "u1"), photometric="rgb", extratags=tags)
    segment(network(tmp_path / "m.onnx", stride=2), tmp_path / "i.tif", tmp_path / "o.tif")
    whole = placed(tmp_path / "i.tif")[0]
    assert whole.almost_equals(Affine.translation(-0.25, 0.125) @ PLACE, precision=1e-6)
    assert placed(tmp_path / "o.tif")[0].almost_equals(whole @ Affine.scale(2), precision=1e-6)


def test_ground_control_points_move_with_the_pixels(tmp_path):
    image = tmp_path / "i.tif"
    points = [GroundControlPoint(row=r, col=c, x=10.0 + c, y=50.0 - r, z=0.0) for r, c in ((0, 0), (0, 60), (50, 7))]
    crs = rasterio.crs.CRS.from_epsg(4326)
    form = {"driver": "GTiff", "height": 60, "width": 70, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    with rasterio.open(image, "w", **form, gcps=points, crs=crs) as file:
        file.write(np.zeros((3, 60, 70), np.uint8))
    segment(network(tmp_path / "m.onnx", stride=2), image, tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as file:
        found, crs = file.gcps
    assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row / 2, p.col / 2, p.x, p.y) for p in points]
    assert crs.to_epsg() == 4326


def test_pyramids_in_and_out_are_placed_by_their_full_size(tmp_path):
    image = raster(tmp_path / "i.tif", shape=(1200, 1400), tiled=True, blockxsize=256, blockysize=256)
    with rasterio.open(image, "r+") as file:
        file.build_overviews([2], rasterio.enums.Resampling.nearest)
    model = network(tmp_path / "m.onnx")
    segment(model, image, tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as file:
        assert file.transform == PLACE
        assert file.overviews(1) == [2, 4]
    segment(model, image, tmp_path / "half.tif", level=1)
    assert placed(tmp_path / "half.tif")[0].almost_equals(PLACE @ Affine.scale(2), precision=1e-6)


def test_orientation_is_carried_over_and_said(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "i.tif", image, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    model = network(tmp_path / "m.onnx")
    told = run_json(model, tmp_path / "i.tif", "-o", tmp_path / "o.tif")
    assert "Orientation (6)" in told["notes"][0]
    with tifffile.TiffFile(tmp_path / "o.tif") as tiff:
        assert tiff.pages[0].tags[274].value == 6
        turned = tiff.asarray()
    np.save(tmp_path / "i.npy", image)
    run_json(model, tmp_path / "i.npy", "-o", tmp_path / "o.npy")
    np.testing.assert_array_equal(turned, np.load(tmp_path / "o.npy"))


def test_a_damaged_georeference_is_left_out_and_said(tmp_path):
    tags = [(33922, "d", 6, (0.0, 0.0, 0.0, 1.0, 2.0, 0.0), True), (33550, "d", 2, (float("nan"), 0.5), True)]
    tifffile.imwrite(tmp_path / "i.tif", np.zeros((60, 70), "u1"), extratags=tags)
    source = open_source(tmp_path / "i.tif")
    assert metadata_of(source).georeference is None
    assert "georeference is damaged" in metadata_of(source).told[0]
    source.close()
