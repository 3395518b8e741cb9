"""Fewer bits: values change and are measured, seams stay exact."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
from skimage import data

import exactile
from exactile.contract import ImageStatistics
from exactile.errors import ChannelError, OptionError
from exactile.machine.architecture import architecture
from exactile.sources.array import ArraySource
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization
from exactile_converters.reduced_precision import calibration_crops
from tests.support.command import exactile as command
from tests.support.nets import onnx_file

MODEL = "models/stain_unet.onnx"
NORMALIZATION = Normalization(scale=(255.0,), mean=(0.5,), std=(0.25,))


@pytest.fixture(scope="module", autouse=True)
def few_crops():
    """Quicker; what calibration finds is no concern here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration_crops, "MOST_CROPS", 4)
        yield


@pytest.fixture(scope="module")
def slide() -> np.ndarray:
    return data.immunohistochemistry()


def run(bundle, image, plan, tile=None) -> np.ndarray:
    sink = exactile.ArraySink()
    exactile.Session(exactile.open_bundle(bundle).model).segment(
        exactile.ArraySource(image), sink, plan=plan, tile=tile
    )
    return sink.result


@pytest.mark.parametrize(
    ("precision", "calibration", "most_different"),
    [
        ("fp16", None, 0.002),
        ("int8", None, 0.002),
        pytest.param("int8", "entropy", 0.002, marks=pytest.mark.slow),
    ],
)
def test_labels_hardly_change_and_the_contract_says_how_much(tmp_path, slide, precision, calibration, most_different):
    made = convert(
        MODEL,
        tmp_path / "less",
        normalization=NORMALIZATION,
        precision=precision,
        calibration=calibration,
        calibration_images=[ArraySource(slide)],
    )
    accuracy = made.file.accuracy
    assert made.file.precision == precision
    assert made.file.notes == ()
    assert accuracy.pixels == 256 * 256 * 4
    assert 0 < accuracy.different_labels <= most_different * accuracy.pixels
    assert all(value is None or value > 0.97 for value in accuracy.iou)
    convert(MODEL, tmp_path / "full", normalization=NORMALIZATION)
    full, less = (run(tmp_path / name, slide, "whole") for name in ("full", "less"))
    share = np.count_nonzero(full != less) / full.size
    assert share == pytest.approx(accuracy.different_labels / accuracy.pixels, rel=1.0, abs=1e-3)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tiles_and_strips_of_fewer_bits_are_one_pass_of_fewer_bits(tmp_path, slide, precision):
    images = [ArraySource(slide)]
    made = convert(
        MODEL,
        tmp_path / "b",
        normalization=NORMALIZATION,
        precision=precision,
        calibration="minmax",
        calibration_images=images,
        output="raw",
    )
    assert made.file.strips is not None
    assert made.file.strips.processor == architecture()
    image = slide[:400, :360].copy()
    whole = run(tmp_path / "b", image, "whole")
    assert np.array_equal(run(tmp_path / "b", image, "tile", (160, 192)), whole)
    assert np.array_equal(run(tmp_path / "b", image, "strip", (64, 360)), whole)
    assert np.array_equal(run(tmp_path / "b", image, "strip", (48, 200)), whole)


def test_half_precision_halves_the_bundle(tmp_path):
    """Weights of strips are those of the graph: stored once, in half precision."""
    for precision in ("fp16", "fp32"):
        convert(MODEL, tmp_path / precision, precision=precision)
    sizes = [(tmp_path / name / "weights.bin").stat().st_size for name in ("fp16", "fp32")]
    assert sizes[0] < 0.55 * sizes[1]


def test_int8_weights_are_int8_in_the_file(tmp_path, slide):
    images = [ArraySource(slide)]
    convert(MODEL, tmp_path / "int8", precision="int8", calibration="minmax", calibration_images=images)
    convert(MODEL, tmp_path / "fp32")
    sizes = [(tmp_path / name / "weights.bin").stat().st_size for name in ("int8", "fp32")]
    assert sizes[0] < sizes[1] / 2.5  # outer layers and transposed convolutions stay in FP32
    graph = onnx.load(tmp_path / "int8" / "graph.onnx", load_external_data=False).graph
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}


def test_statistics_of_the_whole_image_are_used_for_calibration(tmp_path, slide):
    made = convert(
        MODEL,
        tmp_path / "b",
        normalization=Normalization(statistics=ImageStatistics(kind="percentile", low=0, high=100)),
        precision="int8",
        calibration="minmax",
        calibration_images=[ArraySource(slide)],
    )
    assert made.file.accuracy.different_labels <= 0.02 * made.file.accuracy.pixels


def test_the_command_calibrates_on_files(tmp_path, slide):
    for index in range(2):
        np.save(tmp_path / f"image{index}.npy", np.roll(slide, index * 100, axis=0))
    done = command(
        *("convert", MODEL, "-o", tmp_path / "b", "--scale", 255, "--precision", "int8", "--calibration", "minmax"),
        *("--calibrate", tmp_path / "image0.npy", "--calibrate", tmp_path / "image1.npy"),
    )
    assert done.returncode == 0, done.stderr
    assert "of the labels differ from FP32 on held-out images" in done.stdout
    assert re.search(r"\n->  +minmax, ", done.stdout)
    contract = json.loads(command("info", tmp_path / "b", "--json").stdout)
    assert contract["precision"] == "int8"
    assert contract["accuracy"]["calibration"] == "minmax"
    assert {trial["calibration"] for trial in contract["accuracy"]["tried"]} == {"minmax"}
    assert command("info", tmp_path / "b", "--test").returncode == 0


def test_images_that_do_not_serve_are_told(tmp_path):
    with pytest.raises(OptionError, match="int8 needs images"):
        convert(MODEL, tmp_path / "b", precision="int8")
    grey = ArraySource(np.zeros((300, 300, 1), np.uint8))
    with pytest.raises(ChannelError, match=r"1 channel\(s\), the model takes 3"):
        convert(MODEL, tmp_path / "b", precision="int8", calibration_images=[grey])
    small = ArraySource(np.zeros((100, 300, 3), np.uint8))
    with pytest.raises(OptionError, match="100 x 300 pixels; 256 x 256 are needed"):
        convert(MODEL, tmp_path / "b", precision="int8", calibration_images=[small])
    assert not (tmp_path / "b").exists()


def test_without_images_half_precision_is_not_measured(tmp_path):
    path = onnx_file(tmp_path, "unet_d2")
    assert convert(path, tmp_path / "b", precision="fp16").file.accuracy is None
