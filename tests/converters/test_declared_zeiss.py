"""Models of Zeiss: fed as their makers document it, named as their files say, tiles compared with what they declare."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

import exactile
from exactile.errors import ModelError, OptionError, SourceError
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization, deploy, load_network
from tests.support.command import within as command
from tests.support.maker_files import CLASSES, FIXED_PX, LARGEST, channels_last, czann, czseg, samples, scores, zipped
from tests.support.nets import onnx_bytes

PLANS = (("whole", None), ("tile", (64, 96)), ("strip", (16, 132)))


def segmented(path, image, **options):
    return exactile.segment(path, image, verify=False, cache=False, progress=False, threads=1, **options)


@pytest.mark.parametrize("dtype", LARGEST)
def test_grey_samples_of_every_type_become_0_to_1(tmp_path, dtype):
    """A .czann of one channel gives in every plan the labels of plain ONNX Runtime fed with samples from 0 to 1."""
    path = czann(tmp_path / "m.czann", "unet_d1", Classes=["a", "b", "c"])
    image = samples(dtype, (152, 132, 1))
    expected = scores("unet_d1", image.astype(np.float32) / np.float32(LARGEST[dtype])).argmax(0)
    assert len(np.unique(expected)) > 1
    for plan, tile in PLANS:
        np.testing.assert_array_equal(segmented(path, image[..., 0], plan=plan, tile=tile), expected)


@pytest.mark.parametrize("kind", ["czann", "czseg", "czmodel"])
def test_colours_are_given_blue_first(tmp_path, kind):
    """Of an image of red, green, blue the network gets blue, green, red; --channels 2,1,0 undoes it."""
    path = (czann if kind == "czann" else czseg)(tmp_path / f"m.{kind}")
    image = samples("uint8", (152, 132, 3))
    fed = image.astype(np.float32) / np.float32(255)
    expected, other = (scores("unet_d2", given).argmax(0) for given in (fed[..., ::-1], fed))
    assert (expected != other).any()
    for plan, tile in PLANS:
        np.testing.assert_array_equal(segmented(path, image, plan=plan, tile=tile), expected)
    np.testing.assert_array_equal(segmented(path, image, channels=(2, 1, 0)), other)


@pytest.mark.parametrize("said", ["true", None])
def test_the_network_is_checked_on_what_it_is_fed(tmp_path, said):
    """Before it is used: its tiles and strips equal one pass over noise of the range that its file declares."""
    path = czseg(tmp_path / "m.czseg", "unet_d1", pixels=["Gray8"], ScaleInputsByBitdepth=said)
    image, asked = samples("uint8", (96, 80, 1)), () if said else ("--scale", "255")
    np.save(tmp_path / "i.npy", image[..., 0])
    done = command("run", path, tmp_path / "i.npy", "-o", tmp_path / "l.npy", "--json", "--no-progress", *asked)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verification"]["by"] == "running"
    expected = scores("unet_d1", image / np.float32(255)).argmax(0)
    np.testing.assert_array_equal(np.load(tmp_path / "l.npy"), expected)


def test_its_geometry_is_proved_on_an_image(tmp_path):
    """The verify command feeds the image as the file says."""
    np.save(tmp_path / "i.npy", samples("uint8", (200, 180, 1))[..., 0])
    done = command("verify", czann(tmp_path / "m.czann", "unet_d1"), "--image", tmp_path / "i.npy", "--no-progress")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("said", "scale"), [("true", 65535), ("false", 1)])
def test_a_czseg_says_whether_samples_are_scaled(tmp_path, said, scale):
    path = czseg(tmp_path / "m.czseg", "unet_d1", pixels=["Gray8 Gray16"], ScaleInputsByBitdepth=said)
    image = samples("uint16", (96, 80, 1))
    expected = scores("unet_d1", image.astype(np.float32) / np.float32(scale)).argmax(0)
    np.testing.assert_array_equal(segmented(path, image[..., 0]), expected)


def test_a_czseg_that_does_not_say_so_is_refused_until_it_is_said(tmp_path):
    path = czseg(tmp_path / "m.czmodel", "unet_d1", pixels=["Gray8"], ScaleInputsByBitdepth=None)
    image = samples("uint8", (96, 80, 1))
    with pytest.raises(OptionError, match=r"does not say whether samples are scaled.*--scale 1 .*--scale 255"):
        segmented(path, image[..., 0])
    expected = scores("unet_d1", image.astype(np.float32)).argmax(0)
    np.testing.assert_array_equal(segmented(path, image[..., 0], scale=1), expected)


def test_several_items_are_channels_one_after_the_other(tmp_path):
    """Pixel types Gray8 and Bgr24 make four channels: the first as it is, the colours turned."""
    model = load_network(czseg(tmp_path / "m.czseg", pixels=["Bgr24"])).declared
    assert model.channel_order == (2, 1, 0)
    with pytest.raises(ModelError, match=r"declares 4 channel\(s\), and the network takes 3"):
        load_network(czseg(tmp_path / "n.czseg", pixels=["Gray8", "Bgr24"]))


def test_an_explicit_option_wins_and_the_summary_says_so(tmp_path):
    """The command prints what samples become, and what the file says where that is something else."""
    path, image = czseg(tmp_path / "m.czseg", "unet_d1", pixels=["Gray8"]), tmp_path / "i.npy"
    np.save(image, samples("uint8", (96, 80, 1))[..., 0])
    options = ("-o", tmp_path / "l.tif", "--overwrite", "--json", "--no-verify", "--no-progress", "--plan", "tile")
    notes = json.loads(command("run", path, image, *options).stdout)["notes"]
    assert "samples of uint8 become sample / 255, as its file says (Zeiss CZSEG)" in notes
    again = command("run", path, image, *options)
    assert json.loads(again.stdout)["notes"] == notes  # of the model that was kept
    notes = json.loads(command("run", path, image, *options, "--scale", "100", "--mean", "2").stdout)["notes"]
    assert (
        "samples of uint8 become sample / 100 - 2, as was asked for; its file (Zeiss CZSEG) says sample / 255" in notes
    )
    same = json.loads(command("run", path, image, *options, "--scale", "255").stdout)["notes"]
    assert not any("samples of" in note for note in same)


@pytest.mark.parametrize(
    ("overlap", "says"), [(16, "8 x 8 pixels in tiles of 64 x 64; the graph needs 22 x 22"), (60, "22 x 22 are enough")]
)
def test_the_declared_border_is_compared_with_the_graphs(tmp_path, overlap, says):
    path = czann(tmp_path / "m.czann", MinOverlap=[overlap, overlap])
    notes = deploy(load_network(path), image_dtype="uint8", strips=False).contract.notes
    assert sum(says in note for note in notes) == 1
    told = command("inspect", path)
    assert told.returncode == 0, told.stderr
    assert says in " ".join(told.stdout.split())
    assert json.loads(command("inspect", path, "--json").stdout)["declared"]["border"] == [overlap // 2] * 2


def test_a_right_border_needs_no_sentence(tmp_path):
    path = czann(tmp_path / "m.czann", MinOverlap=[44, 44])
    notes = deploy(load_network(path), image_dtype="uint8", strips=False).contract.notes
    assert not any("border" in note for note in notes)


def test_names_and_colours_come_into_the_bundle(tmp_path):
    """A bundle has the classes of the file, its normalisation, and sentences on what is done otherwise."""
    path = czseg(tmp_path / "m.czseg", Postprocessing="FullyConnectedConditionalRandomField")
    made = convert(path, tmp_path / "b", verify=False).file
    assert made.source == "Zeiss CZSEG"
    assert [part.name for part in made.classes] == [name for name, _ in CLASSES]
    assert [part.color for part in made.classes] == ["#ff0000", "#00ff00", "#0001fe"]
    assert made.normalization.scale == (255.0,)
    assert sum("FullyConnectedConditionalRandomField" in note for note in made.notes) == 1
    image = samples("uint8", (96, 80, 3))
    opened = exactile.open_bundle(tmp_path / "b")
    found = exactile.segment(opened.model, image, progress=False)
    np.testing.assert_array_equal(found, scores("unet_d2", image[..., ::-1] / np.float32(255)).argmax(0))


def test_options_of_convert_win(tmp_path):
    path = czann(tmp_path / "m.czann", "unet_d1")
    made = convert(
        path, tmp_path / "b", image_dtype="uint16", normalization=Normalization(scale=(4095.0,)),
        classes=["x", "y", "z"], output="labels", verify=False)  # fmt: skip
    assert made.file.normalization.scale == (4095.0,)
    assert [part.name for part in made.file.classes] == ["x", "y", "z"]
    assert sum("its file (Zeiss CZANN) says sample / 65535" in note for note in made.file.notes) == 1


def test_fewer_bits_are_fed_the_same(tmp_path):
    """An fp16 bundle normalises as the file says: its labels are those of the float32 network but for a few."""
    image = samples("uint8", (96, 80, 1))
    convert(czann(tmp_path / "m.czann", "unet_d1"), tmp_path / "b", precision="fp16", verify=False)
    found = exactile.segment(exactile.open_bundle(tmp_path / "b").model, image[..., 0], progress=False)
    assert (found != scores("unet_d1", image / np.float32(255)).argmax(0)).mean() < 0.01


def test_names_of_another_number_of_classes_are_left_out(tmp_path):
    path = czann(tmp_path / "m.czann", Classes=["a", "b"])
    model = deploy(load_network(path), image_dtype="uint8", strips=False)
    assert model.contract.result.labels == ()
    assert sum("names 2 classes (a, b), but the network has 3" in note for note in model.contract.notes) == 1


def test_a_regression_gives_scores(tmp_path):
    """Type Regression, here of twice the size: the network's own output, in tiles and strips."""
    path = czann(tmp_path / "m.czann", "super_resolution", Type="Regression", Classes=None, Scaling=[5e-7, 5e-7])
    image = samples("uint8", (64, 70, 1))
    expected = scores("super_resolution", image / np.float32(255))
    for plan, tile in (("whole", None), ("tile", (32, 40)), ("strip", (16, 70))):
        found = segmented(path, image[..., 0], plan=plan, tile=tile)
        assert found.shape == (4, 128, 140)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert deploy(load_network(path), image_dtype="uint8").contract.pixel_size_um == pytest.approx(0.5)


def test_several_classes_at_once_become_planes(tmp_path):
    path = czann(tmp_path / "m.czann", "unet_d1", Type="MultiClassSemanticSegmentation")
    assert deploy(load_network(path), image_dtype="uint8", strips=False).contract.result.kind == "multilabel"


def test_a_scale_of_a_metre_is_no_pixel_size(tmp_path):
    """Files say 1.0 where nobody gave a size."""
    assert load_network(czann(tmp_path / "m.czann", Scaling=[1.0, 1.0])).declared.pixel_size_um is None


def written_by_czmodel(folder):
    """A .czann and a .czmodel of Zeiss' own package."""
    from czmodel.core.legacy_model_metadata import ModelMetadata as Legacy
    from czmodel.core.model_metadata import ModelMetadata, ModelType
    from czmodel.core.util.model_packing import create_legacy_model_zip, create_model_zip

    described = ModelMetadata(
        model_type=ModelType.SINGLE_CLASS_SEMANTIC_SEGMENTATION,
        input_shape=[FIXED_PX, FIXED_PX, 3],
        output_shape=[FIXED_PX, FIXED_PX, 3],
        classes=["a", "b", "c"],
        model_name="Cells",
        min_overlap=[90, 90],
        scaling=(1e-6, 1e-6),
    )
    legacy = Legacy(
        name="Cells", classes=["a", "b", "c"], pixel_types="Bgr24", color_handling="SplitRgb", border_size=45
    )
    model = channels_last("unet_d2")
    create_model_zip(model, described, str(folder / "m.czann"))
    create_legacy_model_zip(model, legacy, str(folder / "m.czmodel"))
    return folder / "m.czann", folder / "m.czmodel"


def test_files_of_zeiss_own_package_are_read(tmp_path):
    new, old = (load_network(path).declared for path in written_by_czmodel(tmp_path))
    assert (new.source, old.source) == ("Zeiss CZANN", "Zeiss CZSEG")
    assert new.classes == old.classes == ("a", "b", "c")
    assert new.border_px == old.border_px == (45, 45)
    assert new.tile_px == (64, 64)
    assert new.pixel_size_um == pytest.approx(1.0)
    assert old.colors[0] == "#ff0000"
    assert new.scaling.normalization("uint16") == Normalization(scale=(65535.0,))
    assert "does not say" in old.scaling.unknown


BOMB = '<?xml version="1.0"?><!DOCTYPE Model [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
SAVED_MODEL = b"PK\x03\x04 a zipped folder"
REFUSED = {
    "boxes": (lambda path: czann(path, Type="ObjectDetection"), "'ObjectDetection': its output is boxes"),
    "objects": (lambda path: czann(path, Type="SingleClassInstanceSegmentation"), "it separates objects"),
    "one answer": (lambda path: czann(path, Type="MultiClassClassification"), "classifies the image as a whole"),
    "no type": (lambda path: czann(path, Type=None), "type None: only"),
    "volumes": (lambda path: czann(path, InputShape=[9, 64, 64, 1]), r"takes volumes, .* = \(9, 64, 64, 1\)"),
    "no shape": (lambda path: czann(path, InputShape="64"), "InputShape is '64'"),
    "other channels": (lambda path: czann(path, InputShape=[64, 64, 5]), r"declares 5 channel\(s\).*takes 3"),
    "no overlap": (lambda path: czann(path, MinOverlap=[-1, 2]), "MinOverlap is"),
    "no names": (lambda path: czann(path, Classes="a"), "Classes is 'a'"),
    "no json": (lambda path: zipped(path, {"model.json": "{", "model.model": "x"}), "is not JSON"),
    "a list": (lambda path: zipped(path, {"model.json": "[]", "model.model": "x"}), "holds list"),
    "no onnx": (lambda path: czann(path, model=b"\x08\x01 no model"), "is not an ONNX model"),
    "saved model": (lambda path: czann(path, model=SAVED_MODEL), "a zipped one of TensorFlow or PyTorch"),
    "two models": (
        lambda path: zipped(path, {"a.xml": "<Model/>", "b.model": "", "c.model": ""}),
        "one file that ends in .model",
    ),
    "entities": (lambda path: czseg(path, head=BOMB), r"a document type \(Model\) is declared"),
    "no xml": (lambda path: zipped(path, {"a.xml": "Model", "b.model": "x"}), "is not XML"),
    "another root": (lambda path: zipped(path, {"a.xml": "<Setup/>", "b.model": "x"}), "begins with 'Setup'"),
    "features": (lambda path: czseg(path, FeatureExtractor="BasicFeatures25"), "by features that ZEN computes"),
    "no pixel type": (lambda path: czseg(path, pixels=["Gray64ComplexFloat"]), "takes pixels of Gray64ComplexFloat"),
    "unlike pixels": (lambda path: czseg(path, pixels=["Gray8 Bgr24"]), "alternatives must have as many channels"),
    "no border": (lambda path: czseg(path, BorderSize="wide"), "BorderSize is 'wide'"),
    "no boolean": (lambda path: czseg(path, ScaleInputsByBitdepth="often"), "true or false is expected"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path, case):
    make, says = REFUSED[case]
    with pytest.raises(ModelError, match=says):
        load_network(make(tmp_path / "m.czann"))


def test_a_damaged_archive_is_refused(tmp_path):
    path = czann(tmp_path / "m.czann")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("model.model").header_offset
    data[at + 200 : at + 260] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.model in it cannot be read"):
        load_network(path)


def test_a_description_without_end_is_not_read(tmp_path):
    path = zipped(tmp_path / "m.czann", {"model.json": " " * (1 << 21), "model.model": "x"})
    with pytest.raises(ModelError, match="more than 1048576 bytes"):
        load_network(path)


def test_weights_outside_the_archive_are_refused(tmp_path):
    import onnx

    model = onnx.load_from_string(channels_last("unet_d2"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    path = czann(tmp_path / "m.czann", model=(tmp_path / "m.onnx").read_bytes())
    with pytest.raises(ModelError, match="has weights in another file"):
        load_network(path)


def test_the_file_is_told_by_its_content(tmp_path):
    """Whatever its name is; where an image is expected, it is said what it is."""
    path = czann(tmp_path / "model.zip", "unet_d1")
    assert convert(path, tmp_path / "b", verify=False).file.source == "Zeiss CZANN"
    with pytest.raises(SourceError, match=r"is a model of Zeiss \(.czann, .czseg, .czmodel\); it is no image"):
        exactile.open_source(path)


def test_plain_onnx_declares_nothing(tmp_path):
    (tmp_path / "m.onnx").write_bytes(onnx_bytes("unet_d1"))
    assert load_network(tmp_path / "m.onnx").declared is None
