"""Pixel classifiers of QuPath that name an ONNX file, and folders of DeepImageJ."""

from __future__ import annotations

import json

import numpy as np
import pytest

import exactile
from exactile.errors import ModelError, SourceError
from exactile_converters.convert import convert
from exactile_converters.deploy import load_network
from exactile_converters.networks.normalization import Normalization
from exactile_converters.prepare.external_files import external_files
from tests.support.maker_files import samples, scores
from tests.support.nets import onnx_bytes


def network(**model):
    """The operator of a network, as QuPath writes it."""
    return {
        "type": "op.ml.opencv-dnn",
        "model": {"dnn_model": "OpenCVDnn", "pathModel": "file:///elsewhere/my%20net.onnx", "scale": 1.0, **model},
        "inputWidth": 512,
        "inputHeight": 256,
        "padding": {"x1": 32, "x2": 32, "y1": 16, "y2": 16},
        "outputNames": [],
    }


def classifier(folder, *operators, channels=("Red", "Green", "Blue"), name="unet_d2", **metadata):
    """A classifier and its network beside it; operators of QuPath, that of the network by default."""
    (folder / "my net.onnx").write_bytes(onnx_bytes(name))
    size = {"value": 0.5, "unit": "µm"}
    described = {
        "pixel_classifier_type": "OpenCVPixelClassifier",
        "metadata": {
            "inputPadding": 0,
            "inputResolution": {"pixelWidth": size, "pixelHeight": size},
            "inputWidth": 512,
            "inputHeight": 256,
            "inputNumChannels": 3,
            "outputType": "PROBABILITY",
            "outputChannels": [],
            "classificationLabels": {
                "0": {"name": "Stroma", "color": [150, 200, 150]},
                "1": {"name": "Tumor", "color": [200, 0, 0]},
                "2": {"names": ["Other", "Fold"], "color": [1, 2, 3, 128]},
            },
            **metadata,
        },
        "op": {
            "type": "data.op.channels",
            "colorTransforms": [{"channelName" if isinstance(one, str) else "channel": one} for one in channels],
            "op": {"type": "op.core.sequential", "ops": list(operators) or [network()]},
        },
    }
    (folder / "classifier.json").write_text(json.dumps(described, indent=2), encoding="utf-8")
    return folder / "classifier.json"


def step(kind, *values):
    return {"type": f"op.core.{kind}", "values": list(values)}


CONVERT = {"type": "op.core.convert", "pixelType": "FLOAT32"}
FEEDING = {
    "as stored": ([CONVERT, network()], lambda x: x),
    "0 to 1": ([step("divide", 255), network()], lambda x: x / np.float32(255)),
    "of each channel": (
        [step("multiply", 1 / 255), step("subtract", 0.7, 0.5, 0.6), step("divide", 0.2, 0.25, 0.3), network()],
        lambda x: (x / 255 - np.float32([0.7, 0.5, 0.6])) / np.float32([0.2, 0.25, 0.3]),
    ),
    "by OpenCV": (
        [step("add", -1), network(mean=[120.0, 110.0, 100.0, 0.0], scale=0.5)],
        lambda x: (x - 1 - np.float32([120, 110, 100])) * np.float32(0.5),
    ),
}


@pytest.mark.parametrize("case", FEEDING)
def test_the_network_is_fed_as_qupath_feeds_it(tmp_path, case):
    """The labels of plain ONNX Runtime in tiles; the ONNX file is found beside the classifier by its name."""
    operators, function = FEEDING[case]
    path, image = classifier(tmp_path, *operators), samples("uint8", (152, 132, 3))
    expected = scores("unet_d2", function(image.astype(np.float32))).argmax(0)
    found = exactile.segment(path, image, plan="tile", tile=(64, 96), verify=False, cache=False, progress=False)
    np.testing.assert_array_equal(found, expected)


def test_channels_in_another_order_are_put_into_it(tmp_path):
    path, image = classifier(tmp_path, channels=(2, 0, 1)), samples("uint8", (96, 80, 3))
    expected = scores("unet_d2", image[..., [2, 0, 1]].astype(np.float32)).argmax(0)
    found = exactile.segment(path, image, verify=False, cache=False, progress=False)
    np.testing.assert_array_equal(found, expected)


def test_a_folder_becomes_a_bundle_with_its_classes(tmp_path):
    """Names, colours, pixel size and padding of the file; the declared padding is compared with the graph."""
    classifier(tmp_path)
    made = convert(tmp_path, tmp_path / "b", verify=False).file
    assert made.source == "QuPath pixel classifier"
    assert [(part.name, part.color) for part in made.classes] == [
        ("Stroma", "#96c896"),
        ("Tumor", "#c80000"),
        ("Other: Fold", "#010203"),
    ]
    assert any("16 x 32 pixels in tiles of 256 x 512; the graph needs 22 x 22" in note for note in made.notes)
    assert load_network(tmp_path / "classifier.json").declared.pixel_size_um == 0.5


def test_channels_that_have_no_number_are_to_be_chosen(tmp_path):
    declared = load_network(classifier(tmp_path, channels=("DAPI", "FITC", "Cy3"))).declared
    assert declared.channel_order == ()
    assert declared.notes == ("QuPath gives it the channels DAPI, FITC, Cy3 of an image: choose them with --channels",)


def test_a_sigmoid_after_the_network_is_known(tmp_path):
    declared = load_network(classifier(tmp_path, network(), {"type": "op.normalize.sigmoid"})).declared
    assert declared.activation == "sigmoid"


def test_steps_are_one_formula(tmp_path):
    """Whatever their order: (x / 2 - 3) / 4 + 5 is (x / 2 - (3 - 20)) / 4."""
    steps = [step("divide", 2), step("subtract", 3), step("divide", 4), step("add", 5), network()]
    scaling = load_network(classifier(tmp_path, *steps)).declared.scaling
    assert scaling.normalization("uint8") == Normalization(scale=(2.0,), mean=(-17.0,), std=(4.0,))


def test_the_network_counts_as_a_file_of_the_classifier(tmp_path):
    """So that nothing that is kept of one is taken for another, and no result replaces it."""
    path = classifier(tmp_path)
    assert external_files(path) == (tmp_path / "my net.onnx",)


REFUSED = {
    "features": ([{"type": "op.ml.opencv-statmodel", "model": {}}], "'op.ml.opencv-statmodel' before the network"),
    "no network": ([CONVERT], "holds no network"),
    "a filter": ([{"type": "op.filters.gaussian", "sigmaX": 1}, network()], "'op.filters.gaussian' before"),
    "after": ([network(), {"type": "op.threshold.constant"}], "'op.threshold.constant' after the network"),
    "rounded": ([{"type": "op.core.convert", "pixelType": "UINT8"}, network()], "rounds samples to UINT8"),
    "resized": ([network(size=[256, 256])], "resizes what the network gets"),
    "PyTorch": ([network(pathModel="file:/net.pt")], r"net\.pt, which is not ONNX"),
    "no file": ([network(pathModel=None)], "names no file"),
    "gone": ([network(pathModel="file:/nowhere/other.onnx")], r"other\.onnx is not there; put other\.onnx beside"),
    "by 0": ([step("divide", 0), network()], "numbers are expected"),
    "two outputs": ([network() | {"outputNames": ["a", "b"]}], "joins the outputs a, b"),
    "no such output": ([network() | {"outputNames": ["a"]}], "has no output 'a'"),
    "two numbers": ([step("divide", 1, 2), step("divide", 1, 2, 3), network()], "for 2 and for 3 channels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused_by_name(tmp_path, case):
    operators, says = REFUSED[case]
    with pytest.raises(ModelError, match=says):
        load_network(classifier(tmp_path, *operators))


def test_classes_without_a_number_are_refused(tmp_path):
    with pytest.raises(ModelError, match="numbered 0, 2"):
        load_network(classifier(tmp_path, classificationLabels={"0": {"name": "a"}, "2": {"name": "b"}}))


def test_other_classifiers_are_told(tmp_path):
    path = tmp_path / "threshold.json"
    path.write_text('{"pixel_classifier_type": "ThresholdPixelClassifier"}')
    with pytest.raises(ModelError, match="of type 'ThresholdPixelClassifier', which has no network"):
        load_network(path)
    with pytest.raises(SourceError, match="is a pixel classifier of QuPath; it is no image"):
        exactile.open_source(path)


@pytest.mark.parametrize("script", [True, False])
def test_an_old_folder_of_deepimagej_is_refused_with_what_to_do(tmp_path, script):
    """Its preprocessing is a macro; the network alone can be had."""
    (tmp_path / "config.xml").write_text("<?xml version='1.0'?><Model><ModelInformation></ModelInformation></Model>")
    (tmp_path / ("pytorch_script.pt" if script else "saved_model.pb")).write_bytes(b"weights")
    says = r"exactile convert .*pytorch_script\.pt" if script else "saved_model.pb and variables/ alone"
    with pytest.raises(ModelError, match=rf"DeepImageJ in its old form.*macro of ImageJ.*{says}"):
        convert(tmp_path, tmp_path / "b")
