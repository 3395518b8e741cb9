"""Metadata that tools write into ONNX files: taken over as the tools do, unless something else is asked for."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import rasterio
from onnx import TensorProto, helper
from rasterio.transform import Affine

import exactile
from exactile.errors import ModelError, OptionError
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization, deploy, load_network
from tests.support.command import within as command
from tests.support.maker_files import samples, scores, with_metadata
from tests.support.nets import onnx_bytes

MEAN, STD = [0.7, 0.5, 0.6], [0.2, 0.25, 0.3]
LANDCOVER = {
    "model_type": "Segmentor",
    "class_names": {"0": "_background", "1": "building", "2": "road"},
    "resolution": 50,
    "tiles_size": 512,
    "tiles_overlap": 15,
    "standardization_mean": MEAN,
    "standardization_std": STD,
}
YOLO = {
    "author": "Ultralytics",
    "stride": 8,
    "task": "semantic",
    "batch": 1,
    "imgsz": [640, 640],
    "names": {0: "road", 1: "car", 2: "tree"},
    "channels": 3,
}


def deepness(path, name="unet_d2", **values):
    """A file with metadata of Deepness, which are JSON; those that are None are left out."""
    told = {key: value for key, value in {**LANDCOVER, **values}.items() if value is not None}
    path.write_bytes(with_metadata(onnx_bytes(name), told))
    return path


def ultralytics(path, model=None, **values):
    """A file with metadata of Ultralytics, which are Python's own text."""
    told = {key: value for key, value in {**YOLO, **values}.items() if value is not None}
    path.write_bytes(with_metadata(model or onnx_bytes("unet_d2"), told, encode=str))
    return path


def segmented(path, image, **options):
    return exactile.segment(path, image, verify=False, cache=False, progress=False, threads=1, **options)


def geotiff(path, image, metres):
    """``image`` on the ground, with square pixels of so many metres."""
    options = {"height": image.shape[0], "width": image.shape[1], "count": 3, "dtype": "uint8", "photometric": "RGB"}
    place = Affine(metres, 0.0, 440720.0, 0.0, -metres, 5551320.0)
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=place, **options) as file:
        file.write(image.transpose(2, 0, 1))
    return path


def fed_by_deepness(image):
    """As its preprocessing does it: float32 of sample * 1/255, then mean and deviation."""
    return (np.float32(image * (1.0 / 255.0)) - np.float32(MEAN)) / np.float32(STD)


def test_deepness_normalisation_and_names_are_taken(tmp_path):
    """In every plan the labels of plain ONNX Runtime, fed as Deepness feeds it."""
    path = deepness(tmp_path / "m.onnx")
    image = samples("uint8", (152, 132, 3))
    expected = scores("unet_d2", fed_by_deepness(image)).argmax(0)
    assert len(np.unique(expected)) > 1
    for plan, tile in (("whole", None), ("tile", (64, 96)), ("strip", (16, 132))):
        np.testing.assert_array_equal(segmented(path, image, plan=plan, tile=tile), expected)
    labels = deploy(load_network(path), image_dtype="uint8", strips=False).contract.result.labels
    assert [one.name for one in labels] == ["_background", "building", "road"]


def test_what_is_asked_for_wins(tmp_path):
    path, image = deepness(tmp_path / "m.onnx"), samples("uint8", (96, 80, 3))
    expected = scores("unet_d2", image.astype(np.float32)).argmax(0)
    np.testing.assert_array_equal(segmented(path, image, scale=1), expected)
    made = convert(path, tmp_path / "b", verify=False, classes=["a", "b", "c"]).file
    assert (made.source, made.image.dtype) == ("QGIS Deepness", "uint8")
    assert [part.name for part in made.classes] == ["a", "b", "c"]
    assert made.normalization.mean == tuple(MEAN)


@pytest.mark.parametrize(("mean", "differs"), [((0.5,), False), ((0.5, 0.5, 0.5), False), ((0.5, 0.5, 0.6), True)])
def test_the_same_in_other_words_needs_no_sentence(tmp_path, mean, differs):
    """One number is that of every channel."""
    path = deepness(tmp_path / "m.onnx", standardization_mean=[0.5] * 3, standardization_std=[0.25] * 3)
    asked = Normalization(scale=(255.0,), mean=mean, std=(0.25,))
    notes = deploy(load_network(path), image_dtype="uint8", normalization=asked, strips=False).contract.notes
    assert any("as was asked for" in note for note in notes) == differs


def test_samples_that_deepness_does_not_take_are_not_guessed(tmp_path):
    """Its numbers are of uint8: for uint16 the normalisation is to be said."""
    path, image = deepness(tmp_path / "m.onnx"), samples("uint16", (96, 80, 3))
    with pytest.raises(OptionError, match=r"m\.onnx: its normalisation is one of uint8 samples.*uint16.*--scale"):
        segmented(path, image)
    expected = scores("unet_d2", image.astype(np.float32) / np.float32(4095)).argmax(0)
    np.testing.assert_array_equal(segmented(path, image, scale=4095), expected)


def test_the_overlap_is_compared_and_the_pixel_size_too(tmp_path):
    """15 % of tiles of 512 pixels leave 38 at each side; 50 cm a pixel are not the 30 cm of the image."""
    path, image = deepness(tmp_path / "m.onnx"), geotiff(tmp_path / "i.tif", samples("uint8", (96, 80, 3)), 0.3)
    done = command("run", path, image, "-o", tmp_path / "l.tif", "--json", "--no-verify", "--no-progress")
    assert done.returncode == 0, done.stderr
    notes = json.loads(done.stdout)["notes"]
    assert "its file declares a border of 38 x 38 pixels in tiles of 512 x 512; 22 x 22 are enough" in notes
    assert any("made for pixels of 0.5 m; the image's are 0.3 m, and are never resampled" in note for note in notes)
    assert any("(sample / 255 - [0.7, 0.5, 0.6]) / [0.2, 0.25, 0.3]" in note for note in notes)


def test_a_fitting_pixel_size_needs_no_sentence_and_none_is_told(tmp_path):
    path, pixels = deepness(tmp_path / "m.onnx"), samples("uint8", (96, 80, 3))
    np.save(tmp_path / "i.npy", pixels)
    for image, says in ((geotiff(tmp_path / "i.tif", pixels, 0.5), []), (tmp_path / "i.npy", ["is not known"])):
        options = ("-o", tmp_path / "l.tif", "--json", "--no-verify", "--no-progress", "--overwrite")
        notes = json.loads(command("run", path, image, *options).stdout)["notes"]
        found = [note for note in notes if "made for pixels" in note]
        assert len(found) == len(says)
        assert all(text in note for text, note in zip(says, found, strict=True))


def one_channel(name="unet_d2"):
    """The first channel of the network, through a sigmoid."""
    model = onnx.load_from_string(onnx_bytes(name))
    result = model.graph.output[0].name
    model.graph.initializer.append(helper.make_tensor("first", TensorProto.INT64, [1], [0]))
    model.graph.node.append(helper.make_node("Gather", [result, "first"], ["one"], axis=1))
    model.graph.node.append(helper.make_node("Sigmoid", ["one"], ["probability"]))
    del model.graph.output[:]
    shape = ["n", 1, "h", "w"]
    model.graph.output.append(helper.make_tensor_value_info("probability", TensorProto.FLOAT, shape))
    return model.SerializeToString()


def test_the_threshold_is_that_of_one_channel(tmp_path):
    """seg_thresh 0.3 of a probability; the one name that is given is that of label 1."""
    told = {"model_type": "Segmentor", "class_names": [{"0": "coffee"}], "seg_thresh": 0.3, "seg_small_segment": 9}
    (tmp_path / "m.onnx").write_bytes(with_metadata(one_channel(), told))
    image = samples("uint8", (96, 80, 3))
    expected = 1 / (1 + np.exp(-scores("unet_d2", image / np.float32(255))[0].astype(np.float64))) > 0.3
    np.testing.assert_array_equal(segmented(tmp_path / "m.onnx", image), expected)
    contract = deploy(load_network(tmp_path / "m.onnx"), image_dtype="uint8", strips=False).contract
    assert [one.name for one in contract.result.labels] == ["background", "coffee"]
    assert any("a median of 9 pixels (seg_small_segment), which is not done here" in note for note in contract.notes)


def test_a_threshold_that_is_not_applied_is_said(tmp_path):
    """Of three channels the largest is taken; Deepness gives class 0 where none reaches its threshold."""
    notes = {
        found: deploy(load_network(deepness(tmp_path / f"{found}.onnx", seg_thresh=found)), image_dtype="uint8",
                      strips=False).contract.notes
        for found in (0.3, 0.6)
    }  # fmt: skip
    assert not any("seg_thresh" in note for note in notes[0.3])
    assert any("class 0 where no channel reaches 0.6 (seg_thresh)" in note for note in notes[0.6])


def test_a_regression_is_scaled(tmp_path):
    """model_type Regressor gives scores, times reg_output_scaling."""
    path = deepness(tmp_path / "m.onnx", model_type="Regressor", reg_output_scaling=2.5, class_names=None)
    image = samples("uint8", (96, 80, 3))
    expected = scores("unet_d2", fed_by_deepness(image)) * np.float32(2.5)
    for plan, tile in (("whole", None), ("tile", (64, 64)), ("strip", (16, 80))):
        found = segmented(path, image, plan=plan, tile=tile)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("values", [{"model_type": None}, {"model_type": "UNet"}, {"exactile.role": "graph"}])
def test_what_is_not_of_deepness_is_left_alone(tmp_path, values):
    """Without one of its words for the type nothing is taken, and samples stay as they are."""
    assert load_network(deepness(tmp_path / "m.onnx", **values)).declared is None


def test_keys_that_are_no_text_are_passed_over(tmp_path):
    """Bytes that are no UTF-8, which damage makes of them."""
    data = deepness(tmp_path / "m.onnx").read_bytes()
    assert data.count(b"resolution") == 1
    (tmp_path / "m.onnx").write_bytes(data.replace(b"resolution", b"res\xff\xfeution"))
    assert load_network(tmp_path / "m.onnx").declared.pixel_size_um is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model_type": "Detector"}, "type Detector for QGIS Deepness: its output is boxes"),
        ({"model_type": "Recognition"}, "it compares images"),
        ({"class_names": {"0": "a", "2": "b"}}, "class_names = .*without a gap"),
        ({"class_names": "a, b"}, "class_names = a, b; names of classes by number"),
        ({"resolution": "fine"}, "resolution = 'fine'; a number"),
        ({"standardization_mean": ["a"]}, "standardization_mean = .*numbers are expected"),
    ],
)
def test_what_deepness_cannot_mean_is_refused(tmp_path, values, says):
    with pytest.raises(ModelError, match=says):
        load_network(deepness(tmp_path / "m.onnx", **values))


def test_an_output_that_is_asked_for_by_name_is_taken_of_a_detector(tmp_path):
    path = deepness(tmp_path / "m.onnx", model_type="Detector")
    output = onnx.load(path).graph.output[0].name
    network = load_network(path, output_name=output)
    assert network.declared.classes == ()
    assert network.trace().geometry is not None


def test_ultralytics_semantic_is_taken(tmp_path):
    """Scores of each class, samples from 0 to 1; names are Python's text."""
    path, image = ultralytics(tmp_path / "m.onnx"), samples("uint8", (152, 132, 3))
    expected = scores("unet_d2", image / np.float32(255)).argmax(0)
    for plan, tile in (("whole", None), ("tile", (64, 96)), ("strip", (16, 132))):
        np.testing.assert_array_equal(segmented(path, image, plan=plan, tile=tile), expected)
    made = convert(path, tmp_path / "b", verify=False).file
    assert made.source == "Ultralytics, task semantic"
    assert [part.name for part in made.classes] == ["road", "car", "tree"]
    assert any("taken at its own resolution" in note for note in made.notes)


def test_one_class_of_ultralytics_is_where_its_score_is_above_0(tmp_path):
    model = onnx.load_from_string(one_channel())
    del model.graph.node[-1]
    model.graph.output[0].name = "one"
    path = ultralytics(tmp_path / "m.onnx", model.SerializeToString(), names={0: "road"})
    image = samples("uint8", (96, 80, 3))
    expected = scores("unet_d2", image / np.float32(255))[0] > 0
    assert len(np.unique(expected)) == 2
    np.testing.assert_array_equal(segmented(path, image), expected)


def test_labels_that_ultralytics_writes_into_the_graph_are_taken(tmp_path):
    """Newer exports hold the arg max: labels (N, H, W) of uint8."""
    model = onnx.load_from_string(onnx_bytes("unet_d2"))
    result = model.graph.output[0].name
    model.graph.node.append(helper.make_node("ArgMax", [result], ["best"], axis=1, keepdims=0))
    model.graph.node.append(helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.UINT8, ["n", "h", "w"]))
    path, image = ultralytics(tmp_path / "m.onnx", model.SerializeToString()), samples("uint8", (96, 80, 3))
    np.testing.assert_array_equal(segmented(path, image), scores("unet_d2", image / np.float32(255)).argmax(0))
    labels = deploy(load_network(path), image_dtype="uint8", strips=False).contract.result.labels
    assert [one.name for one in labels] == ["road", "car", "tree"]


@pytest.mark.parametrize(
    ("task", "says"),
    [("detect", "its output is boxes"), ("segment", "mask coefficients"), ("depth", "is not supported")],
)
def test_other_tasks_of_ultralytics_are_refused_with_what_they_are(tmp_path, task, says):
    path = ultralytics(tmp_path / "m.onnx", task=task)
    with pytest.raises(ModelError, match=f"of Ultralytics for the task {task}: .*{says}.*task semantic are taken"):
        load_network(path)
    assert load_network(path, output_name=onnx.load(path).graph.output[0].name).declared.classes == ()
