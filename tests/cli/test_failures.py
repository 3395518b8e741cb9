"""Bad input: exit status 2 or more, one clear message, no traceback, no output."""

from __future__ import annotations

import resource

import numpy as np
import onnx
import pytest
import tifffile
from onnx import TensorProto, helper

from tests.support import whole_nets
from tests.support.command import exactile, forked
from tests.support.nets import onnx_file


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a good model, a good slide, and everything that can be wrong."""
    folder = tmp_path_factory.mktemp("bad")
    onnx_file(folder, "unet_d2").rename(folder / "unet.onnx")
    image = np.random.default_rng(0).integers(0, 255, (400, 300, 3), dtype=np.uint8)
    tifffile.imwrite(folder / "slide.tif", image, tile=(64, 64), compression="zlib", photometric="rgb")
    tifffile.imwrite(folder / "grey.tif", image[..., 0])
    tifffile.imwrite(folder / "double.tif", image.astype(np.float64) + 0.1, photometric="rgb")
    tifffile.imwrite(folder / "complex.tif", image[..., 0].astype(np.complex64))
    whole = (folder / "slide.tif").read_bytes()
    (folder / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "text.tif").write_text("this is not a picture")
    (folder / "empty.tif").write_bytes(b"")
    (folder / "text.onnx").write_text("this is not a network")
    np.save(folder / "image.npy", image)
    (folder / "cut.npy").write_bytes((folder / "image.npy").read_bytes()[:5000])
    (folder / "attention.onnx").write_bytes(whole_nets.attention())
    (folder / "folder").mkdir()
    return folder


def squeeze_and_excite() -> onnx.ModelProto:
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["squeezed"], name="squeeze"),
        helper.make_node("Mul", ["image", "squeezed"], ["out"], name="excite"),
    ]
    dims = [1, 3, "h", "w"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, dims)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


CASES = {
    "missing image": (("unet.onnx", "nowhere.tif"), "nowhere.tif"),
    "missing model": (("nowhere.onnx", "slide.tif"), "nowhere.onnx"),
    "image is a folder": (("unet.onnx", "folder"), "folder"),
    "not a TIFF": (("unet.onnx", "text.tif"), "text.tif"),
    "empty file": (("unet.onnx", "empty.tif"), "empty.tif"),
    "truncated TIFF": (("unet.onnx", "cut.tif"), "cut.tif"),
    "truncated npy": (("unet.onnx", "cut.npy"), "cut.npy"),
    "unknown sample type": (("unet.onnx", "complex.tif"), "complex64"),
    "double precision": (("unet.onnx", "double.tif"), "float32"),
    "wrong channels": (("unet.onnx", "grey.tif"), "1 channel"),
    "channel out of range": (("unet.onnx", "slide.tif", "--channels", "0,1,7"), "7"),
    "not ONNX": (("text.onnx", "slide.tif"), "text.onnx"),
    "not tileable": (("attention.onnx", "slide.tif", "--plan", "tile"), "MatMul"),
    "not tileable, and too large": (("attention.onnx", "slide.tif", "--memory", "60MiB"), "MatMul"),
    "budget too small": (("unet.onnx", "slide.tif", "--memory", "20MiB"), "--memory"),
    "budget is no amount": (("unet.onnx", "slide.tif", "--memory", "lots"), "--memory"),
    "budget too small for the tile": (
        ("unet.onnx", "slide.tif", "--memory", "200MiB", "--tile", "4096", "--plan", "whole"),
        "--tile",
    ),
    "tile is no multiple of the stride": (("unet.onnx", "slide.tif", "--tile", "101"), "try 104"),
    "tile smaller than the halo": (("unet.onnx", "slide.tif", "--tile", "44"), "at least"),
    "tile is no size": (("unet.onnx", "slide.tif", "--tile", "big"), "--tile"),
    "three means for two": (("unet.onnx", "slide.tif", "--mean", "0.1,0.2"), "--mean"),
    "no number": (("unet.onnx", "slide.tif", "--std", "much"), "--std"),
    "standard deviation 0": (("unet.onnx", "slide.tif", "--std", "0"), "--std"),
    "no such level": (("unet.onnx", "slide.tif", "--level", "3"), "level"),
    "no such output": (("unet.onnx", "slide.tif", "--output-name", "depth"), "depth"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_clearly(place, tmp_path, case):
    arguments, named = CASES[case]
    done = forked("run", *arguments, "-o", tmp_path / "labels.tif", cwd=place)
    assert done.returncode >= 2
    assert done.stderr.startswith("error: ")
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["labels.png", "nowhere/labels.tif", "slide.tif/labels"])
def test_an_output_that_cannot_be_is_refused(place, target):
    before = sorted(place.rglob("*"))
    done = forked("run", "unet.onnx", "slide.tif", "-o", target, cwd=place)
    assert done.returncode >= 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("target", ["raw.npy", "raw.tif"])
def test_a_full_disk_ends_the_run_and_leaves_nothing(place, tmp_path, target):
    """A file size limit stands in for the full disk: writes beyond it fail."""
    limit = (100_000, 100_000)
    done = exactile(
        "run",
        place / "unet.onnx",
        place / "slide.tif",
        "-o",
        tmp_path / target,
        "--output",
        "raw",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert done.returncode >= 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_usage_errors_exit_with_status_2(place):
    assert exactile("run", "unet.onnx", cwd=place).returncode == 2
    assert exactile("fly").returncode == 2
