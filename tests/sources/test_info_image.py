"""``exactile info IMAGE``: what an image of each format is, by values known when it was made."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import imagecodecs
import numpy as np
import openslide
import pytest
import rasterio
import tifffile
import zarr
from PIL import Image
from rasterio.transform import Affine

from exactile.errors import OptionError, SourceError
from exactile.sources.description import as_object, image_schema, is_reduction
from exactile.sources.descriptions.describe import describe_image
from exactile.sources.open import open_source
from tests.support import czi_files, dicom_slides
from tests.support.command import within
from tests.support.folders import ROOT
from tests.support.image_info import checked, needed, noise, ranges, text, told, write_stack
from tests.support.nets import onnx_file
from tests.support.pictures import samples
from tests.support.slides import tissue, write_scn, write_svs, write_ycbcr_svs
from tests.support.tiff_files import LONG, LONG8, image_tags, tile_tags, write_tiff


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("info")


@pytest.fixture(scope="module")
def stack(folder):
    return write_stack(folder / "stack.ome.tif")


@pytest.fixture(scope="module")
def ome_zarr(folder):
    """Written by hand after the specification: C 2, Z 5, two levels, chunks of (1, 1, 64, 128), zstd."""
    path = folder / "image.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    for level, (height, width) in enumerate(((300, 400), (150, 200))):
        root.create_array(str(level), shape=(2, 5, height, width), chunks=(1, 1, 64, 128), dtype="uint16")
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"
    ]
    scales = [{"type": "scale", "scale": [1, 2, side, side]} for side in (0.5, 1.0)]
    datasets = [{"path": str(level), "coordinateTransformations": [scale]} for level, scale in enumerate(scales)]
    root.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": "cells", "axes": axes, "datasets": datasets}],
        "omero": {"channels": [{"label": "red"}, {"label": "far red"}]},
    }
    labels = root.create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": ["nuclei"]}
    return path


def test_an_ome_tiff_stack_tells_series_planes_channels_and_levels(stack):
    found = told(stack)
    assert found["kind"] == "OME-TIFF, BigTIFF"
    assert (found["reader"], found["reader_version"]) == ("tifffile", tifffile.__version__)
    assert (found["pages"], found["series_count"], found["file_bytes"]) == (24, 1, stack.stat().st_size)
    (series,) = found["series"]
    assert (series["name"], series["axes"], series["shape"]) == ("embryo", "TCZYX", [2, 3, 4, 600, 700])
    assert (series["stored_dtype"], series["dtype"], series["z"], series["t"]) == ("uint16", "uint16", 4, 2)
    assert series["channel_names"] == ["DAPI", "GFP", "Cy5"]
    assert [(level["height"], level["width"]) for level in series["levels"]] == [(600, 700), (300, 350), (150, 175)]
    assert [level["pixel_size_um"] for level in series["levels"]] == [[0.5, 0.25], [1, 0.5], [2, 1]]
    assert [level["downsample"] for level in series["levels"]] == [[1, 1], [2, 2], [4, 4]]
    assert all(level["reduction"] for level in series["levels"])
    assert [(level["chunk_kind"], level["chunk"], level["chunks"]) for level in series["levels"]] == [
        ("tiles", [128, 256], [5, 3]), ("tiles", [128, 256], [3, 2]), ("tiles", [128, 256], [2, 1])
    ]  # fmt: skip
    assert series["levels"][0]["compression"] == "deflate, horizontal predictor"
    assert ranges(found) == {
        "--level": [0, 2], "--z": [0, 3], "--t": [0, 1], "--channels": [0, 2],
        "--page": [0, 23],
    }  # fmt: skip
    assert needed(found) == ["--z", "--t"]
    assert found["problem"] is None


def test_without_a_choice_the_first_plane_is_chosen_and_the_command_says_so(stack):
    found = told(stack)
    chosen = found["chosen"]
    assert [chosen[name] for name in ("series", "level", "z", "t", "page")] == [0, 0, 0, 0, None]
    assert [chosen[name] for name in ("height", "width", "channels", "dtype")] == [600, 700, 3, "uint16"]
    assert shlex.split(found["command"]) == [
        "exactile", "run", "MODEL", str(stack), "-o", "labels.tif", "--z", "0", "--t", "0",
    ]  # fmt: skip


def test_a_choice_is_described_and_goes_into_the_command(stack):
    found = told(stack, "--z", 3, "--t", 1, "--level", 1, "--channels", "2,0")
    chosen = found["chosen"]
    assert [chosen[name] for name in ("level", "z", "t", "height", "channels")] == [1, 3, 1, 300, 2]
    assert chosen["pixel_size_um"] == [1, 0.5]
    assert found["command"].endswith("--level 1 --z 3 --t 1 --channels 2,0")


def test_the_command_runs(folder):
    path = folder / "a stack.ome.tif"
    tifffile.imwrite(path, noise(3, 64, 64, 3, dtype="uint8"), photometric="rgb", metadata={"axes": "ZYXS"})
    command = shlex.split(told(path)["command"])
    assert command[:2] == ["exactile", "run"]
    model, target = onnx_file(folder, "unet_d2"), folder / "labels.tif"
    words = [{"MODEL": model, "labels.tif": target}.get(word, word) for word in command[1:]]
    done = within(*words, "--no-verify", "--no-cache")
    assert done.returncode == 0, done.stderr
    assert tifffile.imread(target).shape == (64, 64)


def test_a_choice_that_is_not_there_is_an_error(stack):
    for options, message in (
        (("--z", 4), "z 4 was requested, but the image has 4"),
        (("--series", 1), "series 1 was requested"),
        (("--level", 3), "level 3 was requested"),
        (("--channels", 3), "channel 3 was requested, but the image has 3"),
    ):
        done = within("info", stack, *options)
        assert done.returncode == OptionError.exit_status
        assert message in done.stderr
        assert done.stdout == ""


def test_an_aperio_slide_tells_its_levels_and_other_pictures(folder):
    path = write_svs(folder / "a.svs", tissue(1403, 1702))
    found = told(path)
    assert found["kind"] == "SVS (Aperio)"
    assert [series["name"] for series in found["series"]] == ["Baseline", "Thumbnail"]
    levels = found["series"][0]["levels"]
    assert [(level["height"], level["width"]) for level in levels] == [(1403, 1702), (350, 425)]
    assert levels[1]["pixel_size_um"] == pytest.approx([0.5 * 1403 / 350, 0.5 * 1702 / 425])
    assert levels[0]["compression"] == "JPEG"
    assert found["series"][0]["channel_names"] == ["red", "green", "blue"]
    assert (found["series"][1]["levels"][0]["chunk_kind"], found["series"][1]["levels"][0]["chunk"]) == (
        "strips", [16, 213]
    )  # fmt: skip
    assert ranges(found)["--series"] == [0, 1]


def test_pages_without_named_axes_are_read_by_page_or_as_channels(folder):
    path = folder / "pages.tif"
    tifffile.imwrite(path, noise(3, 60, 70, dtype="uint8"), photometric="minisblack", metadata=None)
    found = told(path)
    assert found["series"][0]["axes"] == "?YX"
    assert found["chosen"]["page"] == 0
    assert needed(found) == ["--page"]
    assert ranges(found) == {"--page": [0, 2], "--axes": ["CYX"]}
    assert found["command"].endswith("--page 0")
    assert told(path, "--axes", "CYX")["chosen"]["channels"] == 3
    assert told(path, "--page", 2)["command"].endswith("--page 2")


def test_planes_without_pages_of_their_own_are_channels(folder):
    path = folder / "truncated.tif"
    tifffile.imwrite(path, noise(3, 60, 70, dtype="uint8"), photometric="minisblack", metadata={}, truncate=True)
    found = told(path)
    assert found["chosen"]["axes"] == "CYX"
    assert found["command"].endswith("--axes CYX")


def test_pages_of_different_sizes_are_series(folder):
    path = folder / "sizes.tif"
    with tifffile.TiffWriter(path) as tiff:
        for number in range(3):
            tiff.write(noise(40 + number, 50, dtype="float32"), metadata=None, rowsperstrip=7)
    found = told(path, "--series", 2)
    assert [series["shape"] for series in found["series"]] == [[40, 50], [41, 50], [42, 50]]
    assert found["chosen"]["height"] == 42
    assert found["series"][2]["levels"][0]["chunks"] == [6, 1]
    assert [series["first_page"] for series in found["series"]] == [0, 1, 2]


def test_of_many_series_the_first_are_described_and_any_is_chosen(folder):
    path = folder / "many.tif"
    with tifffile.TiffWriter(path) as tiff:
        for number in range(70):
            tiff.write(np.zeros((8 + number, 9), "uint8"), metadata=None)
    found = told(path, "--series", 69)
    assert (found["series_count"], len(found["series"])) == (70, 64)
    assert (found["chosen"]["height"], ranges(found)["--series"]) == (77, [0, 69])
    assert "and 6 more series" in text(path)


def test_a_georeferenced_raster_tells_place_nodata_and_names_of_bands(folder):
    path = folder / "place.tif"
    options = {"driver": "GTiff", "height": 60, "width": 70, "count": 2, "dtype": "int16", "nodata": -9999}
    place = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 440720, 0, -0.25, 5551320)}
    with rasterio.open(path, "w", **options, **place) as file:
        file.write(noise(2, 60, 70, dtype="int16"))
        file.descriptions = ("near infrared", "elevation")
    found = told(path)
    assert found["kind"] == "GeoTIFF"
    assert found["series"][0]["channel_names"] == ["near infrared", "elevation"]
    chosen = found["chosen"]
    assert (chosen["stored_dtype"], chosen["dtype"], chosen["nodata"]) == ("int16", "float32", "-9999.0")
    assert (chosen["crs"], chosen["pixel_scale"]) == ("EPSG:32633", [0.5, 0.25, 0.0])
    shown = text(path)
    assert "EPSG:32633, pixel scale 0.5, 0.25, 0" in shown
    assert "int16, delivered as float32" in shown


def test_alpha_orientation_and_white_zero_are_told(folder):
    rgba, turned = folder / "rgba.tif", folder / "turned.tif"
    tifffile.imwrite(rgba, noise(20, 30, 4, dtype="uint8"), photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(turned, noise(20, 30, dtype="uint8"), photometric="miniswhite", extratags=[(274, 3, 1, 6, True)])
    found = told(rgba)
    assert found["chosen"]["alpha"] == {"channel": 3, "premultiplied": False}
    assert found["series"][0]["channel_names"] == ["red", "green", "blue", "alpha"]
    found = told(turned)
    assert found["chosen"]["orientation"] == 6
    assert len(found["chosen"]["notes"]) == 2


def test_a_palette_is_told_as_the_colours_that_are_read(folder):
    path = folder / "palette.tif"
    table = np.arange(3 * 256, dtype="uint16").reshape(3, 256) % 256 * 257
    tifffile.imwrite(path, noise(20, 30, dtype="uint8"), photometric="palette", colormap=table)
    found = told(path)
    assert (found["series"][0]["channels"], found["series"][0]["dtype"]) == (3, "uint8")
    assert (found["chosen"]["channels"], found["chosen"]["dtype"]) == (3, "uint8")


def test_samples_that_are_not_read_are_a_problem_and_no_failure_to_describe(folder):
    path = folder / "complex.tif"
    tifffile.imwrite(path, np.zeros((20, 30), "complex64"))
    done = within("info", path, "--json")
    assert done.returncode == 1
    found = checked(json.loads(done.stdout))
    assert (found["series"][0]["stored_dtype"], found["series"][0]["dtype"]) == ("complex64", None)
    assert "samples are complex64" in found["problem"]
    assert (found["chosen"], found["command"]) == (None, None)
    assert "NOT READ" in within("info", path).stdout


def test_a_truncated_file_is_described_with_what_is_wrong(stack, folder):
    path = folder / "cut.tif"
    tifffile.imwrite(path, noise(300, 300), compression="zlib", rowsperstrip=16)
    with tifffile.TiffFile(path) as tiff:
        last = tiff.pages[0].dataoffsets[-1]
    directory_first = path.read_bytes()[:last]
    path.write_bytes(directory_first)
    done = within("info", path)
    assert done.returncode == 1
    assert "300 x 300 pixels" in done.stdout
    assert "is truncated" in done.stdout


def test_a_level_that_shows_something_else_is_no_reduction(folder):
    path = folder / "levels.zarr"
    root = zarr.open_group(path, mode="w")
    for level, shape in enumerate(((400, 600), (200, 300), (100, 100))):
        root.create_array(str(level), shape=shape, chunks=(64, 64), dtype="uint8")
    datasets = [{"path": str(level)} for level in range(3)]
    root.attrs["multiscales"] = [{"version": "0.4", "axes": ["y", "x"], "datasets": datasets}]
    levels = told(path)["series"][0]["levels"]
    assert [level["reduction"] for level in levels] == [True, True, False]
    assert "NOT level 0 reduced: by 4 x 6" in text(path)


def test_levels_with_fewer_planes_say_so_and_are_no_thumbnails(folder):
    path = folder / "volume.zarr"
    root = zarr.open_group(path, mode="w")
    for level, shape in enumerate(((6, 1200, 1100), (3, 600, 550))):
        root.create_array(str(level), shape=shape, chunks=(1, 300, 300), dtype="uint8", fill_value=10 * level)
    datasets = [{"path": str(level)} for level in range(2)]
    root.attrs["multiscales"] = [{"version": "0.4", "axes": list("zyx"), "datasets": datasets}]
    found = told(path, "--z", 5, "--thumbnail", folder / "volume.png")
    assert found["thumbnail"]["level"] == 0
    assert not np.asarray(Image.open(folder / "volume.png")).any()
    assert "600 x 550 pixels; reduced by 2 x 2; 2 x 2 chunks of 300 x 300; compression zstd; 3 planes along Z" in text(
        path
    )
    assert ranges(told(path, "--level", 1))["--z"] == [0, 2]


@pytest.mark.parametrize("side", [(1000, 777), (4097, 65), (513, 1025), (6, 9)])
@pytest.mark.parametrize("factor", [2, 3, 4, 16])
def test_rounding_up_and_down_are_both_reductions(side, factor):
    for round_up in (0, factor - 1):
        reduced = tuple(max(1, (size + round_up) // factor) for size in side)
        assert is_reduction(side, reduced)
    assert not is_reduction((1000, 1000), (250, 500))
    assert not is_reduction((1000, 1000), (2000, 2000))


def test_an_ome_zarr_tells_levels_channels_planes_and_labels(ome_zarr):
    found = told(ome_zarr)
    assert found["kind"] == "OME-Zarr 0.5, Zarr, format 3"
    assert (found["reader"], found["reader_version"], found["file_bytes"]) == ("zarr", zarr.__version__, None)
    (series,) = found["series"]
    assert (series["name"], series["axes"], series["shape"]) == ("cells", "CZYX", [2, 5, 300, 400])
    assert (series["channel_names"], series["z"]) == (["red", "far red"], 5)
    assert [level["pixel_size_um"] for level in series["levels"]] == [[0.5, 0.5], [1, 1]]
    assert [(level["chunk"], level["chunks"]) for level in series["levels"]] == [
        ([64, 128], [5, 4]),
        ([64, 128], [3, 2]),
    ]
    assert series["levels"][0]["compression"] == "zstd"
    assert ranges(found) == {"--level": [0, 1], "--mpp": ["0.5", "1"], "--z": [0, 4], "--channels": [0, 1]}
    assert any("nuclei" in note for note in found["notes"])
    assert found["chosen"]["z"] == 0
    chosen = told(ome_zarr, "--mpp", 1)
    assert (chosen["chosen"]["level"], chosen["chosen"]["height"]) == (1, 150)
    assert chosen["command"].endswith("--mpp 1.0 --z 0")


def test_zarr_hierarchies_of_bioformats2raw_hold_series(folder):
    path = folder / "series.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for number in range(11):
        image = root.create_group(str(number))
        image.create_array(
            "0", shape=(1, 1, 1, 20 + number, 30), chunks=(1, 1, 1, 16, 16), dtype="uint8", compressors=None
        )
        image.attrs["multiscales"] = [{"version": "0.4", "axes": list("tczyx"), "datasets": [{"path": "0"}]}]
    found = told(path, "--series", 10)
    assert [series["shape"][3] for series in found["series"]] == list(range(20, 31))
    assert ranges(found) == {"--series": [0, 10]}
    assert (found["chosen"]["height"], found["series"][0]["levels"][0]["compression"]) == (30, "none")


def test_a_plain_zarr_array_tells_shards_and_the_axes_to_choose(folder):
    path = folder / "plain.zarr"
    zarr.create_array(path, shape=(64, 96, 3), chunks=(16, 32, 3), shards=(32, 64, 3), dtype="float32",
                      compressors=zarr.codecs.BloscCodec())  # fmt: skip
    found = told(path)
    assert found["series"][0]["levels"][0]["compression"] == "blosc, in shards"
    assert ranges(found) == {"--channels": [0, 2], "--axes": ["YXC", "CYX"]}
    turned = told(path, "--axes", "CYX")
    assert turned["chosen"]["channels"] == 64
    assert (turned["series"][0]["axes"], ranges(turned)["--channels"]) == ("CYX", [0, 63])


def test_a_group_without_images_and_a_plate_are_errors_that_say_what_they_hold(folder):
    path = folder / "plate.zarr"
    root = zarr.open_group(path, mode="w")
    root.create_group("A")
    root.attrs["ome"] = {"plate": {}}
    done = within("info", path)
    assert done.returncode == SourceError.exit_status
    assert "is a plate; give the path of one image in it: it holds A" in done.stderr


def test_a_slide_tells_what_openslide_knows(folder):
    path = write_scn(folder / "a.scn", tissue(800, 600))
    found = told(path)
    assert found["kind"] == "whole slide (leica)"
    assert (found["reader"], found["reader_version"]) == ("OpenSlide", openslide.__library_version__)
    levels = found["series"][0]["levels"]
    assert [(level["height"], level["width"]) for level in levels] == [(1600, 1200), (800, 600)]
    assert "objective power: 20" in found["notes"]
    assert any("y 400, x 300, height 800, width 600" in note for note in found["notes"])
    assert any("macro" in note for note in found["notes"])
    assert ranges(found) == {"--level": [0, 1], "--channels": [0, 2]}
    (level,) = told(write_ycbcr_svs(folder / "b.svs", tissue(500, 600)))["series"][0]["levels"]
    assert (level["chunk"], level["chunks"], level["pixel_size_um"]) == ([256, 256], [2, 3], [0.5, 0.5])


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "webp", "jp2", "jxl"])
def test_pictures_tell_size_and_channels(folder, kind):
    path = folder / f"a.{kind}"
    if kind == "jxl":
        path.write_bytes(imagecodecs.jpegxl_encode(samples()))
    else:
        Image.fromarray(samples()).save(path)
    found = told(path)
    assert found["kind"].endswith(" picture")
    assert found["reader"] == "imagecodecs"
    (level,) = found["series"][0]["levels"]
    assert (level["height"], level["width"], level["chunk_kind"]) == (61, 83, "whole image")
    assert found["series"][0]["channel_names"] == ["red", "green", "blue"]
    assert (found["chosen"]["channels"], found["chosen"]["dtype"]) == (3, "uint8")
    assert f"is decoded whole, to {61 * 83 * 3} bytes" in found["notes"]


def test_arrays_tell_shape_type_and_the_axes_to_choose(folder):
    path = folder / "a.npy"
    np.save(path, noise(20, 30, 4, dtype=">i4"))
    found = told(path)
    assert (found["kind"], found["series"][0]["axes"]) == ("numpy array (.npy)", "YXC")
    assert (found["series"][0]["stored_dtype"], found["chosen"]["dtype"]) == ("int32", "float32")
    assert ranges(found) == {"--channels": [0, 3], "--axes": ["YXC", "CYX"]}
    assert told(path, "--axes", "CYX")["chosen"]["channels"] == 20
    np.save(path, noise(2, 20, 30, 4))
    done = within("info", path)
    assert done.returncode == 1
    assert "series 0 ???? 2 x 20 x 30 x 4" in " ".join(done.stdout.split())


@pytest.mark.parametrize("image", ["stack", "ome_zarr"])
def test_a_source_that_describes_nothing_is_described_by_the_source_protocol(request, monkeypatch, image):
    """As its own description says, but for what the protocol does not tell: names, axes, chunks."""
    path = request.getfixturevalue(image)
    own = as_object(describe_image(path, z=1))
    monkeypatch.setattr("exactile.sources.descriptions.describe.image_kind", lambda _image: "unheard of")
    found = checked(json.loads(json.dumps(as_object(describe_image(path, z=1)))))
    own = json.loads(json.dumps(own))
    assert found["kind"] == "UNHEARD OF"
    assert found["chosen"] == own["chosen"]
    for mine, theirs in zip(found["series"], own["series"], strict=True):
        for name in ("z", "t", "channels", "dtype", "stored_dtype"):
            assert mine[name] == theirs[name]
        for level, other in zip(mine["levels"], theirs["levels"], strict=True):
            for name in ("height", "width", "pixel_size_um", "downsample", "reduction"):
                assert level[name] == other[name]
    assert {name: one for name, one in ranges(own).items() if name != "--page"} == ranges(found)
    assert found["command"] == own["command"]


def test_channels_that_are_not_read_together_are_described_one_by_one(stack, monkeypatch):
    def opened(image, *, channels=None, **choice):
        if channels is None:
            raise SourceError("its channels are of different types; choose one (--channels)")
        return open_source(image, channels=channels, **choice)

    for module in ("describe", "probed"):
        monkeypatch.setattr(f"exactile.sources.descriptions.{module}.open_source", opened)
    monkeypatch.setattr("exactile.sources.descriptions.describe.image_kind", lambda _image: "czi")
    found = checked(json.loads(json.dumps(as_object(describe_image(stack)))))
    assert (found["kind"], found["reader"], found["series"][0]["channels"]) == ("CZI (Zeiss)", "pylibCZIrw", 3)
    assert needed(found) == ["--z", "--t", "--channels"]
    assert found["chosen"]["channels"] == 1
    assert found["command"].endswith("--z 0 --t 0 --channels 0")


def test_what_is_no_image_and_no_bundle_is_one_clear_error(folder):
    onnx, empty, odd, hollow = (folder / name for name in ("net.onnx", "empty.tif", "odd.bin", "hollow"))
    onnx_file(folder, "unet_d2").rename(onnx)
    empty.write_bytes(b"")
    odd.write_bytes(b"\x00\x01\x02 nothing that is known")
    hollow.mkdir()
    for path, message in (
        (onnx, "is an ONNX model: exactile inspect"),
        (empty, "is empty"),
        (odd, "is of an unknown format"),
        (hollow, "it is not a bundle either"),
        (folder / "missing.tif", "No such file"),
    ):
        done = within("info", path)
        assert done.returncode == SourceError.exit_status
        assert message in done.stderr
        assert "internal error" not in done.stderr


def test_options_of_images_and_of_bundles_do_not_mix(folder, stack):
    bundle = folder / "net.bundle"
    bundle.mkdir()
    (bundle / "contract.json").write_text("{}")
    done = within("info", bundle, "--series", 1)
    assert done.returncode == OptionError.exit_status
    assert "options that choose are for images" in done.stderr
    assert "--test runs the sample image of a bundle" in within("info", stack, "--test").stderr


def test_gigapixels_are_described_in_little_time_and_memory(tmp_path):
    """100 gigapixels, of which the table of tiles alone has 1.5 million entries."""
    side, tile = 320_000, 256
    tiles = (side // tile) ** 2
    assert tiles == 1_562_500
    tables = {324: (LONG8, [16] * tiles), 325: (LONG, [16] * tiles)}
    tags = image_tags(side, side, compression=8) | tile_tags(tile, tile) | tables
    path = write_tiff(tmp_path / "large.tif", tags, [], big=True)
    script = (
        "import sys, time; begin = time.perf_counter();"
        "from exactile.sources.descriptions.describe import describe_image;"
        "found = describe_image(sys.argv[1]);"
        "print(found.chosen.height, found.series[0].levels[0].chunks, time.perf_counter() - begin,"
        " next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    height, rows, columns, seconds, kib = done.stdout.replace("(", "").replace(")", "").replace(",", "").split()
    assert (int(height), int(rows), int(columns)) == (side, 1250, 1250)
    assert float(seconds) < 30
    assert int(kib) < 400 << 10


def test_the_published_schema_is_the_codes():
    assert json.loads((ROOT / "docs" / "image.schema.json").read_text()) == image_schema()


def test_the_help_has_examples_of_images_and_bundles():
    shown = within("info", "--help").stdout
    for words in ("exactile info unet.bundle --test", "exactile info slide.svs", "--thumbnail"):
        assert words in shown


def test_slides_in_dicom_files_and_czi_say_how_they_are_cut(tmp_path):
    """Tiles as they are stored; blocks of whole sub-blocks."""
    pixels = np.zeros((1, 1, 300, 500, 3), np.uint8)
    dicom_slides.write(tmp_path / "level.dcm", dicom_slides.Level(pixels=pixels, tile=(128, 64)), dicom_slides.Slide())
    blocks = [
        czi_files.Block(pixels=np.zeros((100, 200), np.uint8), x=200 * x, y=100 * y, at={"C": 0})
        for y in range(2)
        for x in range(3)
    ]
    czi_files.write_czi(tmp_path / "mosaic.czi", blocks)
    (slide,) = describe_image(tmp_path / "level.dcm").series[0].levels
    (mosaic,) = describe_image(tmp_path / "mosaic.czi").series[0].levels
    assert (slide.chunk, slide.chunks) == ((128, 64), (3, 8))
    assert (mosaic.height, mosaic.width, mosaic.chunk, mosaic.chunks) == (200, 600, (200, 600), (1, 1))
