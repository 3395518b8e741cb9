"""A page of a plain TIFF file is chosen by its number, as the error message says."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tifffile

from exactile.errors import OptionError, SourceError
from exactile.sources.open import open_source
from tests.support.command import exactile, run_json
from tests.support.nets import onnx_file
from tests.support.source_pixels import all_pixels


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return onnx_file(tmp_path_factory.mktemp("models"), "unet_d2")


@pytest.fixture
def pages(tmp_path) -> np.ndarray:
    stack = np.random.default_rng(0).integers(0, 256, (3, 60, 70, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "pages.tif", stack, photometric="rgb", metadata=None)
    return stack


def test_the_advice_of_the_message_leads_to_the_page(model, tmp_path, pages):
    refused = exactile("run", model, tmp_path / "pages.tif", "-o", tmp_path / "a.npy")
    assert refused.returncode == SourceError.exit_status
    assert re.search(r"choose one page \(--page\) from 0 to 2", " ".join(refused.stderr.split()))
    run_json(model, tmp_path / "pages.tif", "-o", tmp_path / "a.npy", "--page", 2)
    np.save(tmp_path / "page.npy", pages[2])
    run_json(model, tmp_path / "page.npy", "-o", tmp_path / "b.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))


def test_open_source_takes_a_page(tmp_path, pages):
    source = open_source(tmp_path / "pages.tif", page=1)
    np.testing.assert_array_equal(all_pixels(source), pages[1])
    source.close()
    with pytest.raises(OptionError, match="page 3 was requested, but the file has 3"):
        open_source(tmp_path / "pages.tif", page=3)


@pytest.mark.slow
def test_verify_and_calibration_take_a_page(model, tmp_path):
    large = np.random.default_rng(0).integers(0, 256, (2, 300, 300, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "large.tif", large, photometric="rgb", metadata=None)
    done = exactile("verify", model, "--image", tmp_path / "large.tif", "--page", 1, "--no-progress")
    assert done.returncode == 0, done.stderr
    options = ("-o", tmp_path / "b", "--scale", 255, "--precision", "int8", "--calibrate", tmp_path / "large.tif")
    assert "--page" in exactile("convert", model, *options).stderr
    done = exactile("convert", model, *options, "--page", 1)
    assert done.returncode == 0, done.stderr


def test_planes_that_have_no_pages_of_their_own_are_channels(tmp_path):
    stack = np.random.default_rng(0).integers(0, 256, (3, 60, 70), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata={}, truncate=True)
    with pytest.raises(SourceError, match="--axes CYX") as refused:
        open_source(tmp_path / "a.tif")
    assert "--page" not in str(refused.value)
    source = open_source(tmp_path / "a.tif", axes="CYX", channels=(1,))
    np.testing.assert_array_equal(all_pixels(source)[..., 0], stack[1])
    source.close()


def test_what_has_no_pages_says_so(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 5), "u1"))
    for image in (tmp_path / "a.npy", np.zeros((4, 5), "u1")):
        with pytest.raises(OptionError, match=r"only TIFF files have pages"):
            open_source(image, page=0)
