"""Pictures for people: the labels' colours at the right places, in bounded memory, beside the result."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import tifffile

from exactile.contract import LabelClass
from exactile.geometry import Box, Span
from exactile.sources.open import open_source
from exactile.views.preview import colored, overlaid, overview, palette
from tests.support.command import exactile as command
from tests.support.nets import onnx_file


def test_an_overview_is_every_nth_pixel_of_the_best_level(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (900, 700, 3), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(image, photometric="rgb", tile=(64, 64), metadata=None)
        writer.write(image[::2, ::2], photometric="rgb", tile=(64, 64), subfiletype=1, metadata=None)
    read = lambda level: open_source(tmp_path / "a.tif", level=level)  # noqa: E731
    np.testing.assert_array_equal(overview(read, 900), image)
    np.testing.assert_array_equal(overview(read, 500), image[::2, ::2])
    np.testing.assert_array_equal(overview(read, 150), image[::2, ::2][::3, ::3])


def test_labels_have_the_models_colours():
    colors = palette([LabelClass(value=1, name="cell", rgb=(1, 2, 3))])
    found = colored(np.array([[0, 1], [2, 9]], np.uint8), colors)
    assert found[0].tolist() == [[0, 0, 0], [1, 2, 3]]
    assert len({tuple(color) for color in colors[2:8].tolist()}) == 6


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_background_shows_the_image_and_labels_tint_it(dtype):
    image = np.full((40, 30, 1), 100, dtype)
    image[0, 0], image[-1, -1] = 0, 200
    labels = np.zeros((20, 15), np.uint8)
    labels[10:] = 1
    shown = overlaid(image, labels, palette([LabelClass(value=1, name="x", rgb=(255, 0, 0))]))
    assert shown.shape == (40, 30, 3)
    assert (shown[5, 5] == shown[5, 5, 0]).all()
    assert shown[35, 5, 0] > shown[35, 5, 1] == shown[35, 5, 2]


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.npy"])
def test_the_command_line_writes_them_beside_the_result(tmp_path, name):
    image = np.random.default_rng(0).integers(0, 256, (150, 120, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", image, photometric="rgb")
    model = onnx_file(tmp_path, "unet_d2")
    done = command("run", model, tmp_path / "in.tif", "-o", tmp_path / name, "--preview", "--overlay")
    assert done.returncode == 0, done.stderr
    labels = tmp_path / name / "labels" / "segmentation" if name == "a.zarr" else tmp_path / name
    source = open_source(labels)
    pixels = np.empty((150, 120, 1), source.dtype)
    source.read(Box(Span(0, 150), Span(0, 120)), pixels)
    source.close()
    preview = imagecodecs.png_decode((tmp_path / f"{name}.preview.png").read_bytes())
    np.testing.assert_array_equal(preview, colored(pixels[..., 0], palette([])))
    overlay = imagecodecs.png_decode((tmp_path / f"{name}.overlay.png").read_bytes())
    np.testing.assert_array_equal(overlay[pixels[..., 0] == 0], image[pixels[..., 0] == 0])


def test_maps_have_no_preview(tmp_path):
    np.save(tmp_path / "in.npy", np.zeros((80, 80, 3), np.uint8))
    model = onnx_file(tmp_path, "unet_d2")
    done = command("run", model, tmp_path / "in.npy", "-o", tmp_path / "a.tif", "--preview", "--output", "raw")
    assert done.returncode == 2
    assert "show labels" in done.stderr
    assert not (tmp_path / "a.tif").exists()
