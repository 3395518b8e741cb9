"""Series, planes, pixel sizes and addresses as a user types them."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

from tests.support.command import exactile, run_json
from tests.support.nets import onnx_file
from tests.support.slides import tissue, write_scn, write_svs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return onnx_file(tmp_path_factory.mktemp("models"), "unet_d2")


def labels(model, folder, image, *options) -> np.ndarray:
    target = folder / "labels.npy"
    run_json(model, image, "-o", target, "--overwrite", "--tile", 96, *options)
    return np.load(target)


def labels_of_array(model, folder, array: np.ndarray) -> np.ndarray:
    np.save(folder / "image.npy", np.ascontiguousarray(array))
    return labels(model, folder, folder / "image.npy")


def test_a_plane_of_a_series_of_an_ome_tiff(model, tmp_path):
    stack = np.random.default_rng(0).integers(0, 255, (2, 3, 3, 101, 90), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tiff:
        tiff.write(stack[0, 0, 0])
        tiff.write(
            stack, metadata={"axes": "TZCYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, photometric="minisblack"
        )
    options = ("--series", 1, "--z", 2, "--t", 1, "--mpp", 0.51)
    found = labels(model, tmp_path, tmp_path / "a.ome.tif", *options)
    np.testing.assert_array_equal(found, labels_of_array(model, tmp_path, stack[1, 2].transpose(1, 2, 0)))
    refused = exactile("run", model, tmp_path / "a.ome.tif", "-o", tmp_path / "b.npy", "--series", 1)
    assert refused.returncode == 2
    assert "t (--t) from 0 to 1 and z (--z) from 0 to 2" in " ".join(refused.stderr.split())
    assert not (tmp_path / "b.npy").exists()


def test_a_level_by_its_pixel_size_and_the_levels_there_are_when_none_fits(model, tmp_path):
    image = tissue(403, 502)
    path = write_svs(tmp_path / "a.svs", image, steps=(1, 2))
    with tifffile.TiffFile(path) as tiff:
        level = tiff.series[0].levels[1].asarray()
    found = labels(model, tmp_path, path, "--mpp", 1)
    np.testing.assert_array_equal(found, labels_of_array(model, tmp_path, level))
    refused = exactile("run", model, path, "-o", tmp_path / "b.npy", "--mpp", 2)
    assert refused.returncode == 2
    assert "level 0 has 0.5, level 1 has 1" in " ".join(refused.stderr.split())


def test_slides_and_zarr_folders_are_images(model, tmp_path):
    slide = write_scn(tmp_path / "a.scn", tissue(120, 100))
    assert labels(model, tmp_path, slide).shape == (240, 200)
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(120, 100, 3), chunks=(50, 50, 3), dtype="u1")
    array[...] = tissue(120, 100)
    found = labels(model, tmp_path, tmp_path / "a.zarr")
    np.testing.assert_array_equal(found, labels_of_array(model, tmp_path, tissue(120, 100)))


def test_a_damaged_tiff_ends_with_one_message(model, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", tissue(120, 100), photometric="rgb", compression="zlib")
    data = (tmp_path / "a.tif").read_bytes()
    for size in (8, 60, len(data) - 40):
        (tmp_path / "a.tif").write_bytes(data[:size])
        refused = exactile("run", model, tmp_path / "a.tif", "-o", tmp_path / "b.npy")
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: "), refused.stderr


def test_an_address_where_nothing_is_ends_with_one_message(model, tmp_path):
    refused = exactile("run", model, "memory://nothing/here.zarr", "-o", tmp_path / "b.npy")
    assert refused.returncode == 2
    assert "memory://nothing/here.zarr: cannot be opened as Zarr" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr


def test_verify_takes_the_same_choices(model, tmp_path):
    stack = np.random.default_rng(0).integers(0, 255, (4, 3, 121, 140), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "TCYX"}, photometric="minisblack")
    done = exactile("verify", model, "--image", tmp_path / "a.ome.tif", "--t", 3, "--json")
    assert done.returncode == 0, done.stderr
