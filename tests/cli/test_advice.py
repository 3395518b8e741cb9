"""What an error message says to type is typed, and leads to the right result."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tifffile
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from exactile.cli.main import app

PICTURE = np.random.default_rng(0).integers(0, 256, (90, 110, 3), dtype=np.uint8)


def save_network(path: Path, channels: int) -> None:
    """Two 3x3 convolutions, the first with stride 2: labels of half the size, stride 2, halo 3."""
    rng = np.random.default_rng(1)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4, strides=[2, 2]),
            helper.make_node("Conv", ["a", "v"], ["y"], pads=[1] * 4),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, "h", "w"])],
        [
            numpy_helper.from_array(rng.normal(size=(4, channels, 3, 3)).astype("f4"), "w"),
            numpy_helper.from_array(rng.normal(size=(2, 4, 3, 3)).astype("f4"), "v"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_network(tmp_path / "rgb.onnx", 3)
    save_network(tmp_path / "grey.onnx", 1)
    np.save("rgb.npy", PICTURE)
    np.save("planes.npy", np.ascontiguousarray(PICTURE.transpose(2, 0, 1)))
    np.save("grey.npy", PICTURE[..., 0])
    tifffile.imwrite("rgb.tif", PICTURE, photometric="rgb")
    tifffile.imwrite("pages.tif", PICTURE.transpose(2, 0, 1), photometric="minisblack")
    return tmp_path


def run(words: str):
    return CliRunner().invoke(app, shlex.split(words))


def labels_of(model: str, image: np.ndarray) -> np.ndarray:
    """One pass of plain ONNX Runtime; ``image`` (H, W, C)."""
    values = np.ascontiguousarray(image.transpose(2, 0, 1)[None].astype("f4"))
    return ort.InferenceSession(model).run(None, {"x": values})[0][0].argmax(0)


RGB, GREY, RED3 = PICTURE, PICTURE[..., :1], PICTURE[..., [0, 0, 0]]
ADVICE = {
    "channels come first": ("run rgb.onnx planes.npy -o o.npy", r"--axes CYX", "rgb.onnx", RGB),
    "one channel for three": ("run rgb.onnx grey.npy -o o.npy", r"--channels 0,0,0", "rgb.onnx", RED3),
    "three channels for one": ("run grey.onnx rgb.npy -o o.npy", r"--channels 0", "grey.onnx", GREY),
    "which page": ("run grey.onnx pages.tif -o o.npy", r"--page", "grey.onnx", GREY),
    "strips too low for the image": (
        "run rgb.onnx rgb.npy -o o.npy --plan strip --tile 3x110",
        r"try (\d+)",
        "rgb.onnx",
        RGB,
    ),
    "a tile smaller than the halo": ("run rgb.onnx rgb.npy -o o.npy --tile 4", r"use at least (\d+)", "rgb.onnx", RGB),
    "whole takes no tile": ("run rgb.onnx rgb.npy -o o.npy --plan whole --tile 8", r"takes no --tile", "rgb.onnx", RGB),
    "filling needs its option": (
        "run rgb.onnx rgb.tif -o o.npy --corrupt-value 7",
        r"add (--on-corrupt fill)",
        "rgb.onnx",
        RGB,
    ),
    "an output that exists": ("run rgb.onnx rgb.npy -o there.npy", r"pass (--overwrite)", "rgb.onnx", RGB),
    "labels have names in Zarr alone": (
        "run rgb.onnx rgb.npy -o o.npy --label-name a",
        r"omit --label-name",
        "rgb.onnx",
        RGB,
    ),
    "compression of npy": ("run rgb.onnx rgb.npy -o o.npy --compression zlib", r"omit these options", "rgb.onnx", RGB),
    "background in strips": (
        "run rgb.onnx rgb.npy -o o.npy --skip-background 300 --plan strip",
        r"use (--plan tile)",
        "rgb.onnx",
        RGB,
    ),
    "the smallest budget": ("run rgb.onnx rgb.npy -o o.npy --memory 20MiB", r"about ([\d.]+ [KMG]iB)", "rgb.onnx", RGB),
}


def as_advised(words: str, found: re.Match[str]) -> str:
    """The command, changed as its message says."""
    said = found.group(found.lastindex or 0)
    if found.re.pattern.startswith(("try", "use at least")):
        return re.sub(r"--tile \d+", f"--tile {said}", words)
    if "takes no --tile" in said:
        return words.replace(" --tile 8", "")
    if said.startswith("omit"):
        return re.sub(r" --(label-name|compression) \w+", "", words)
    if said.startswith("--plan"):
        return words.replace("--plan strip", said)
    if "iB" in said:
        size, unit = said.split()
        return words.replace("20MiB", f"{float(size) * 1.05:.1f}{unit}")
    return f"{words} {said}" + (" 0" if said == "--page" else "")


@pytest.mark.parametrize(("words", "pattern", "model", "pixels"), ADVICE.values(), ids=ADVICE.keys())
def test_the_advice_leads_to_the_labels_of_one_pass(place, words, pattern, model, pixels):
    """First the message with what to type, then exit status 0 and every label."""
    np.save("there.npy", np.zeros(3))
    first = run(words)
    assert first.exit_code in (2, 3)
    found = re.search(pattern, re.sub(r"\s+", " ", first.output))
    assert found, first.output
    second = run(as_advised(words, found))
    assert second.exit_code == 0, second.output
    target = words.split()[words.split().index("-o") + 1]
    assert np.array_equal(np.load(target), labels_of(model, pixels))
