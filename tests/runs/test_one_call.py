"""``exactile.segment``: what the command line gives, as an array, in one call."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from rich.console import Console

import exactile
from exactile.errors import BudgetError, NotTileableError, OptionError, SourceError
from exactile.request import progress
from exactile_converters.deploy import Normalization, deploy, load_network
from tests.support import whole_nets
from tests.support.command import run_json
from tests.support.nets import onnx_bytes, onnx_file
from tests.support.oracle import whole_pass

NAME = "unet_d2"
NUMBERS = {"scale": 255, "mean": (0.5, 0.4, 0.6), "std": 0.25}


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(2).integers(0, 256, (97, 130, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return onnx_file(tmp_path_factory.mktemp("models"), NAME)


@pytest.fixture(scope="module")
def geometry(model):
    return load_network(model).trace().geometry


def scores(image, geometry, border="model"):
    """The network's own output over the whole image by plain ONNX Runtime."""
    numbers = {name: np.array(value) for name, value in NUMBERS.items()}
    return whole_pass(onnx_bytes(NAME), image, geometry, border, **numbers)


def test_one_line_gives_the_labels_of_one_whole_pass(model, image, geometry):
    labels = exactile.segment(model, image, **NUMBERS)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, scores(image, geometry).argmax(0))


@pytest.mark.parametrize("plan", ["whole", "tile", "strip"])
def test_every_plan_and_output(model, image, geometry, plan):
    tile = {"tile": (96, 128)} if plan == "tile" else {}
    raw = exactile.segment(str(model), image, output="raw", plan=plan, **tile, **NUMBERS)
    assert np.abs(raw - scores(image, geometry)).max() < 1e-4


def test_borders_and_thresholds(model, image, geometry):
    expected = scores(image, geometry, "reflect")
    planes = exactile.segment(model, image, output="multilabel", threshold=0.75, border="reflect", **NUMBERS)
    unsure = np.abs(expected - np.log(3)) < 1e-4
    assert np.array_equal(planes[~unsure], (expected > np.log(3))[~unsure])


def test_it_is_what_the_command_line_gives(model, image, tmp_path):
    """From a file, normalised by statistics of the whole image, of channels in another order."""
    tifffile.imwrite(tmp_path / "image.tif", image, tile=(64, 64), photometric="rgb")
    options = ("--normalize", "percentile", "--channels", "2,1,0")
    run_json(model, tmp_path / "image.tif", "-o", tmp_path / "labels.npy", *options)
    labels = exactile.segment(model, tmp_path / "image.tif", normalize="percentile", channels=(2, 1, 0))
    assert np.array_equal(labels, np.load(tmp_path / "labels.npy"))


def test_models_that_were_deployed_before(model, image, geometry):
    """They have their output and normalisation; what is asked for beside is refused."""
    normalization = Normalization(scale=(255.0,), mean=NUMBERS["mean"], std=(0.25,))
    deployed = deploy(load_network(model), image_dtype="uint8", normalization=normalization)
    assert np.array_equal(exactile.segment(deployed, image), scores(image, geometry).argmax(0))
    with pytest.raises(OptionError, match="--scale, --output: fixed in the model"):
        exactile.segment(deployed, image, scale=255, output="raw")


def test_a_network_with_obstacles(tmp_path, image):
    path = tmp_path / "pooled.onnx"
    path.write_bytes(whole_nets.pooled())
    import onnxruntime as ort

    pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None].astype(np.float32))
    (whole,) = ort.InferenceSession(whole_nets.pooled()).run(None, {"image": pixels})
    assert np.array_equal(exactile.segment(path, image), whole[0].argmax(0))
    assert np.array_equal(exactile.segment(path, image, plan="tile"), whole[0].argmax(0))
    path = tmp_path / "attention.onnx"
    path.write_bytes(whole_nets.attention())
    with pytest.raises(NotTileableError, match="MatMul"):
        exactile.segment(path, image, plan="tile")


def test_what_cannot_be_is_raised(model, image, tmp_path):
    with pytest.raises(BudgetError, match=r"memory budget is 20\.0 MiB"):
        exactile.segment(model, image, memory="20MiB")
    with pytest.raises(BudgetError, match=r"memory budget is 20\.0 MiB"):
        exactile.segment(model, image, memory=20 << 20)
    with pytest.raises(OptionError, match="--memory takes an amount"):
        exactile.segment(model, image, memory="lots")
    with pytest.raises(OptionError, match="--mean: fixed numbers exclude --normalize zscore"):
        exactile.segment(model, image, mean=0.5, normalize="zscore")
    with pytest.raises(OptionError, match="normalize must be one of fixed, zscore, percentile, got 'max'"):
        exactile.segment(model, image, normalize="max")
    with pytest.raises(SourceError, match="nowhere"):
        exactile.segment(model, tmp_path / "nowhere.tif")


def test_a_bar_is_drawn_where_somebody_sees_it(model, image, monkeypatch):
    """On a terminal, if it is wanted; the bar ends at 100 %."""
    drawn = {}
    for kind, options in (("terminal", {}), ("file", {}), ("unwanted", {"progress": False})):
        text = io.StringIO()
        monkeypatch.setattr(
            progress, "Console", lambda text=text, kind=kind, **_: Console(file=text, force_terminal=kind != "file")
        )
        exactile.segment(model, image, plan="whole", **options)
        drawn[kind] = text.getvalue()
    assert "100%" in drawn["terminal"]
    assert drawn["file"] == drawn["unwanted"] == ""


def test_a_notebook_is_told_from_a_pipe():
    """It draws bars if it has ipywidgets, without which rich only warns."""

    class Notebook:
        is_terminal, is_jupyter = False, True

    import importlib.util

    assert progress.is_watched(Notebook()) == (importlib.util.find_spec("ipywidgets") is not None)


def test_a_deployed_bundle_is_segmented_without_the_converter(model, image, tmp_path):
    """In a process that cannot import onnx."""
    from exactile_converters.convert import convert

    convert(model, tmp_path / "net.bundle", normalization=Normalization(scale=(255.0,)))
    np.save(tmp_path / "image.npy", image)
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "import exactile, numpy as np\n"
        f"labels = exactile.segment({str(tmp_path / 'net.bundle')!r}, {str(tmp_path / 'image.npy')!r})\n"
        f"np.save({str(tmp_path / 'labels.npy')!r}, labels)\n"
        "assert exactile.segment is exactile.segment and 'onnx_ir' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert np.array_equal(np.load(tmp_path / "labels.npy"), exactile.segment(model, image, scale=255))
