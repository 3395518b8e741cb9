"""An alpha channel that the network does not take is left out where the file says that it is one, and that is said."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import tifffile

from exactile.errors import ChannelError
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.metadata import metadata_of
from exactile.sources.open import open_source
from tests.support.command import exactile, run_json
from tests.support.nets import onnx_file
from tests.support.source_pixels import all_pixels


def rgba(kind: tuple[int, ...], path, channels: int = 4, **options) -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 256, (70, 90, channels), dtype=np.uint8)
    form = {"photometric": "rgb" if channels > 2 else "minisblack", "extrasamples": kind, "metadata": None}
    if form["photometric"] == "minisblack":
        form["planarconfig"] = "contig"
    tifffile.imwrite(path, image, **{**form, **options})
    return image


@pytest.mark.parametrize("options", [{}, {"tile": (32, 32), "compression": "zlib"}])
def test_colours_remain_as_tifffile_reads_them(tmp_path, options):
    image = rgba(("unassalpha",), tmp_path / "a.tif", **options)
    source = open_source(tmp_path / "a.tif")
    assert metadata_of(source).alpha.channel == 3
    whole = source.identity()
    leave_out_alpha(source, 3)
    np.testing.assert_array_equal(all_pixels(source), image[..., :3])
    assert source.identity() != whole
    assert metadata_of(source).told == ("the alpha channel (3) was left out",)
    source.close()


def test_planes_of_their_own_and_grey_with_alpha(tmp_path):
    image = rgba(("assocalpha",), tmp_path / "grey.tif", channels=2)
    source = open_source(tmp_path / "grey.tif")
    leave_out_alpha(source, 1)
    np.testing.assert_array_equal(all_pixels(source), image[..., :1])
    assert "multiplied" in metadata_of(source).told[0]
    source.close()
    planes = np.random.default_rng(1).integers(0, 256, (4, 70, 90), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "p.tif", planes, photometric="rgb", planarconfig="separate", extrasamples=("unassalpha",)
    )
    source = open_source(tmp_path / "p.tif")
    leave_out_alpha(source, 3)
    np.testing.assert_array_equal(all_pixels(source), planes[:3].transpose(1, 2, 0))
    source.close()


def test_only_what_the_model_cannot_take_is_left_out_and_nothing_that_was_chosen(tmp_path):
    rgba(("unassalpha",), tmp_path / "a.tif")
    for channels, wanted in ((None, 4), (None, 2), ((0, 1, 2, 3), 3)):
        source = open_source(tmp_path / "a.tif", channels=channels)
        leave_out_alpha(source, wanted)
        assert source.channels == 4
        source.close()


def test_the_summary_says_so_and_labels_are_those_of_the_colours(tmp_path):
    model = onnx_file(tmp_path, "unet_d2")
    image = rgba(("unassalpha",), tmp_path / "a.tif")
    told = run_json(model, tmp_path / "a.tif", "-o", tmp_path / "a.npy")
    assert told["notes"] == ["the alpha channel (3) was left out"]
    np.save(tmp_path / "rgb.npy", image[..., :3])
    assert run_json(model, tmp_path / "rgb.npy", "-o", tmp_path / "b.npy")["notes"] == []
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))


@pytest.mark.parametrize("kind", [("unspecified",)])
def test_without_the_tag_nothing_is_guessed_and_the_advice_works(tmp_path, kind):
    model = onnx_file(tmp_path, "unet_d2")
    rgba(kind, tmp_path / "a.tif")
    refused = exactile("run", model, tmp_path / "a.tif", "-o", tmp_path / "a.npy")
    assert refused.returncode == ChannelError.exit_status
    assert "no tag says that one is alpha" in refused.stderr
    assert "--channels 0,1,2" in refused.stderr
    run_json(model, tmp_path / "a.tif", "-o", tmp_path / "a.npy", "--channels", "0,1,2")


def test_zero_is_white_is_said(tmp_path):
    grey = np.arange(60 * 70, dtype=np.uint16).reshape(60, 70).astype(np.uint8)
    tifffile.imwrite(tmp_path / "w.tif", grey, photometric="miniswhite")
    source = open_source(tmp_path / "w.tif")
    np.testing.assert_array_equal(all_pixels(source)[..., 0], grey)
    assert "0 is white" in metadata_of(source).told[0]
    source.close()


def test_the_alpha_channel_of_a_png_is_left_out_too(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 4), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image))
    source = open_source(tmp_path / "a.png")
    np.testing.assert_array_equal(all_pixels(source), image)
    leave_out_alpha(source, 3)
    np.testing.assert_array_equal(all_pixels(source), image[..., :3])
    assert metadata_of(source).told == ("the alpha channel (3) was left out",)
    source.close()
