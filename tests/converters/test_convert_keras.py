"""From Keras to a bundle; Keras runs on PyTorch here. TensorFlow only where it is installed."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import exactile
from exactile.errors import ModelError
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization, deploy_in_passes
from tests.support.command import exactile as command
from tests.support.folders import TESTS

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")


sys.path.insert(0, str(TESTS / "exports"))

from nets_keras import build  # noqa: E402

from exactile_converters.readers.from_keras import from_keras_model  # noqa: E402
from tests.support import normed_keras  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def check(bundle: Path, model) -> None:
    opened = exactile.open_bundle(bundle)
    axes = opened.model.contract.geometry
    size = (axes.y.accepted_size(150), axes.x.accepted_size(130))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = keras.ops.convert_to_numpy(model(image[None].astype(np.float32), training=False))
    expected = result[0].transpose(2, 0, 1)
    for plan in ("whole", "tile", "strip"):
        sink = exactile.ArraySink()
        exactile.Session(opened.model).segment(exactile.ArraySource(image), sink, plan=plan)
        assert np.abs(sink.result - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["unet_transpose", "unet_nearest", "unet_bilinear"])
def test_a_keras_file_with_free_sizes_becomes_a_bundle_for_any_size(tmp_path, name):
    model = build(name)
    model.save(tmp_path / "net.keras")
    made = convert(tmp_path / "net.keras", tmp_path / "b", output="raw")
    assert made.file.source == "Keras"
    assert made.agreement.max_abs <= made.agreement.tolerance
    check(tmp_path / "b", model)


def test_the_command_takes_a_keras_file(tmp_path):
    build("unet_transpose").save(tmp_path / "net.keras")
    done = command("convert", tmp_path / "net.keras", "-o", tmp_path / "b", "--classes", "a,b,c")
    assert done.returncode == 0, done.stderr
    assert "max-abs" in done.stdout
    assert command("info", tmp_path / "b", "--test").returncode == 0


def test_what_is_no_keras_file_is_told(tmp_path):
    (tmp_path / "net.keras").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be loaded by Keras"):
        convert(tmp_path / "net.keras", tmp_path / "b")
    with pytest.raises(ModelError, match="no file"):
        convert(tmp_path / "absent.keras", tmp_path / "b")


def test_a_saved_model_becomes_a_bundle(tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    pytest.importorskip("tf2onnx")
    model = build("unet_transpose")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("needs KERAS_BACKEND=tensorflow")
    tensorflow.saved_model.save(model, str(tmp_path / "saved"))
    made = convert(tmp_path / "saved", tmp_path / "b", output="raw")
    assert made.file.source == "TensorFlow SavedModel"
    check(tmp_path / "b", model)


@pytest.mark.parametrize(
    "name",
    [
        "groups",
        pytest.param("group_of_all", marks=pytest.mark.slow),
        "group_for_each_channel",
        "excited",
        pytest.param("excited_vector", marks=pytest.mark.slow),
        pytest.param("largest", marks=pytest.mark.slow),
    ],
)
def test_statistics_of_the_whole_image(name):
    """Found in passes: the result is that of Keras on the whole image."""
    keras.utils.set_random_seed(5)
    model = normed_keras.build(name)
    network = from_keras_model(model, name=name).network
    image = np.random.default_rng(0).integers(0, 256, (60, 76, 3), dtype=np.uint8)
    image[30:] //= 4
    scaled = Normalization(scale=(255.0,))
    found = deploy_in_passes(network, image_dtype="uint8", output="raw", image_size=(60, 76), normalization=scaled)
    values = image[None].astype(np.float32) / np.float32(255)
    expected = keras.ops.convert_to_numpy(model(values, training=False))[0].transpose(2, 0, 1)
    for way in (replace(found, keeping=None), found):
        for plan, tile in (("tile", (32, 32)), ("strip", None)):
            sink = exactile.ArraySink()
            summary = exactile.Session(way).segment(exactile.ArraySource(image), sink, plan=plan, tile=tile)
            assert plan != "tile" or max(one.tiles for one in summary.passes) > 1
            assert np.abs(sink.result - expected).max() <= 1e-5 * np.abs(expected).max()
