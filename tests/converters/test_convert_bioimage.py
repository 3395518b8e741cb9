"""BioImage.IO packages: their processing is done, their test result comes out, their halo is not believed."""

from __future__ import annotations

import shutil
import warnings
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import yaml

import exactile
from exactile.errors import ModelError, OptionError
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization
from tests.support.command import exactile as command
from tests.support.nets import onnx_bytes

AXES = [{"type": "batch"}, {"type": "channel", "channel_names": ["r", "g", "b"]}]
CLASSES = ["background", "cell", "border"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


PRE = {
    "z-score of each channel": (
        [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["x", "y"], "eps": 1e-6}}],
        lambda x: (x - x.mean((2, 3), keepdims=True)) / (x.std((2, 3), keepdims=True) + 1e-6),
    ),
    "z-score of all": (
        [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "x", "y"], "eps": 1e-4}}],
        lambda x: (x - x.mean()) / (x.std() + 1e-4),
    ),
    "percentiles, clipped": (
        [
            {"id": "scale_range", "kwargs": {"axes": ["x", "y"], "min_percentile": 2, "max_percentile": 99}},
            {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
        ],
        lambda x: np.clip(
            (x - np.percentile(x, 2, axis=(2, 3), keepdims=True))
            / (np.ptp(np.percentile(x, [2, 99], axis=(2, 3), keepdims=True), axis=0) + 1e-6),
            0,
            1,
        ),
    ),
    "fixed mean and deviation": (
        [
            {"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": 0.0}},
            {
                "id": "fixed_zero_mean_unit_variance",
                "kwargs": {"mean": [0.5, 0.4, 0.6], "std": [0.2, 0.25, 0.3], "axis": "channel"},
            },
        ],
        lambda x: (x / 255 - np.reshape([0.5, 0.4, 0.6], (1, 3, 1, 1))) / np.reshape([0.2, 0.25, 0.3], (1, 3, 1, 1)),
    ),
}
POST = {
    "nothing": ([], lambda x: x),
    "sigmoid": ([{"id": "sigmoid"}], sigmoid),
    "softmax": ([{"id": "softmax", "kwargs": {"axis": "channel"}}], softmax),
    "binary": (
        [{"id": "sigmoid"}, {"id": "binarize", "kwargs": {"threshold": 0.5}}],
        lambda x: (sigmoid(x) > 0.5).astype(np.float32),
    ),
}


def space(name: str, **more) -> dict:
    return {"type": "space", "id": name, **more}


def package(folder: Path, pre: str = "z-score of each channel", post: str = "sigmoid", *, halo: int = 16) -> Path:
    """A valid package of format 0.5 around a U-Net whose halo is 22."""
    folder.mkdir()
    (folder / "weights.onnx").write_bytes(onnx_bytes("unet_d2"))
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 96, 80)).astype(np.float32)
    steps, function = PRE[pre]
    after, last = POST[post]
    session = ort.InferenceSession(folder / "weights.onnx")
    (scores,) = session.run(None, {"image": function(image.astype(np.float64)).astype(np.float32)})
    np.save(folder / "in.npy", image)
    np.save(folder / "out.npy", last(scores).astype(np.float32))
    (folder / "README.md").write_text("# A little U-Net")
    size = {"min": 64, "step": 4}
    description = {
        "format_version": "0.5.3",
        "type": "model",
        "name": "Little U-Net",
        "description": "for tests",
        "authors": [{"name": "The exactile authors"}],
        "license": "MIT",
        "documentation": "README.md",
        "inputs": [
            {
                "id": "raw",
                "axes": [*AXES, space("y", size=size), space("x", size=size)],
                "data": {"type": "float32"},
                "test_tensor": {"source": "in.npy"},
                "preprocessing": steps,
            }
        ],
        "outputs": [
            {
                "id": "classes",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": CLASSES},
                    *(space(n, halo=halo, size={"tensor_id": "raw", "axis_id": n}) for n in ("y", "x")),
                ],
                "test_tensor": {"source": "out.npy"},
                "postprocessing": after,
            }
        ],
        "weights": {"onnx": {"source": "weights.onnx", "opset_version": 17}},
    }
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    return folder


def changed(folder: Path, change) -> Path:
    description = yaml.safe_load((folder / "rdf.yaml").read_text())
    change(description)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    return folder


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


def each_once(pre: str, post: str) -> bool:
    """Every step before and every one after the network is in one of these pairs; all pairs are ``slow``."""
    return list(PRE).index(pre) == list(POST).index(post)


@pytest.mark.parametrize(
    ("pre", "post"),
    [
        pytest.param(pre, post, marks=() if each_once(pre, post) else pytest.mark.slow)
        for pre, post in product(PRE, POST)
    ],
)
def test_a_package_gives_its_test_result_in_every_plan(tmp_path, pre, post):
    made = convert(package(tmp_path / "net", pre, post), tmp_path / "b")
    assert made.agreement.max_abs <= made.agreement.tolerance
    opened = exactile.open_bundle(tmp_path / "b")
    image = np.load(tmp_path / "net" / "in.npy")[0].transpose(1, 2, 0).copy()
    expected = np.load(tmp_path / "net" / "out.npy")[0]
    for plan, tile in (("whole", None), ("tile", (64, 64)), ("strip", (16, 80))):
        sink = exactile.ArraySink()
        exactile.Session(opened.model).segment(exactile.ArraySource(image), sink, plan=plan, tile=tile)
        if post == "binary":
            assert np.count_nonzero(sink.result != expected) <= 1e-3 * expected.size
        else:
            assert np.abs(sink.result - expected).max() <= 1e-4 * np.abs(expected).max()


def test_torchscript_weights_do_where_there_are_no_onnx_ones(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.MaxPool2d(2),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(4, 3, 2, 2),
    ).eval()
    torch.manual_seed(0)
    folder = package(tmp_path / "net", pre="fixed mean and deviation", post="softmax", halo=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is going; packages with it are still there
        torch.jit.trace(module, torch.zeros(1, 3, 64, 64)).save(folder / "weights.pt")
    image = PRE["fixed mean and deviation"][1](np.load(folder / "in.npy").astype(np.float64)).astype(np.float32)
    with torch.no_grad():
        np.save(folder / "out.npy", softmax(module(torch.from_numpy(image)).numpy()))

    def change(description):
        description["weights"] = {"torchscript": {"source": "weights.pt", "pytorch_version": "2.6"}}

    converted = convert(changed(folder, change), tmp_path / "net.bundle")
    assert converted.agreement is not None
    assert converted.agreement.max_abs < 1e-6


def test_a_zip_is_the_same_package(tmp_path):
    archive = zipped(package(tmp_path / "net"))
    done = command("convert", archive, "-o", tmp_path / "b", "--dtype", "uint8")
    assert done.returncode == 0, done.stderr
    assert "the package's test result: max-abs" in done.stdout
    opened = exactile.open_bundle(tmp_path / "b")
    assert opened.file.source == "BioImage.IO package"
    assert [part.name for part in opened.file.classes] == CLASSES
    assert opened.model.contract.image.dtype == "uint8"


@pytest.mark.parametrize(("halo", "says"), [(16, "the graph needs 22: with the declared halo"), (30, "22 are enough")])
def test_the_declared_halo_is_compared_with_the_graphs(tmp_path, halo, says):
    made = convert(package(tmp_path / "net", halo=halo), tmp_path / "b")
    assert len(made.file.notes) == 2
    assert all(says in note for note in made.file.notes)


def test_a_right_halo_needs_no_note(tmp_path):
    assert convert(package(tmp_path / "net", halo=22), tmp_path / "b").file.notes == ()


def test_a_test_result_that_does_not_come_out_is_refused(tmp_path):
    folder = package(tmp_path / "net")
    result = np.load(folder / "out.npy")
    result[0, 1, 30, 30] += 0.1
    np.save(folder / "out.npy", result)
    with pytest.raises(ModelError, match="does not give its test result"):
        convert(folder, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_the_packages_normalisation_is_not_overridden(tmp_path):
    with pytest.raises(OptionError, match="the package says how"):
        convert(package(tmp_path / "net"), tmp_path / "b", normalization=Normalization(scale=(255.0,)))


def whole_result(description):
    description["outputs"][0]["postprocessing"] = [{"id": "zero_mean_unit_variance"}]


def later_statistics(description):
    steps = description["inputs"][0]["preprocessing"]
    description["inputs"][0]["preprocessing"] = [{"id": "clip", "kwargs": {"min": 0.0, "max": 200.0}}, *steps]


def volume(description):
    for tensor in description["inputs"]:
        tensor["axes"].insert(2, {"type": "space", "id": "z", "size": 8})


def elsewhere(description):
    description["weights"]["onnx"]["source"] = "https://example.org/weights.onnx"


def javascript_only(description):
    onnx = description["weights"].pop("onnx")
    description["weights"]["tensorflow_js"] = {"source": onnx["source"], "tensorflow_version": "2.15"}


def escaping(description):
    description["weights"]["onnx"]["source"] = "../weights.onnx"


def lost(description):
    description["weights"]["onnx"]["source"] = "gone.onnx"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (whole_result, "needs the whole result"),
        (later_statistics, "must come first"),
        (volume, "axes z in addition to y and x"),
        (elsewhere, "not in the package"),
        (javascript_only, "weights are tensorflow_js; ONNX or TorchScript weights are needed"),
        (escaping, r"outside|not valid"),
        (lost, "gone.onnx is missing|not valid"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path, change, says):
    shutil.copy(package(tmp_path / "other") / "weights.onnx", tmp_path)
    folder = changed(package(tmp_path / "net"), change)
    with pytest.raises(ModelError, match=says):
        convert(folder, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_damaged_archive_or_declaration_is_told(tmp_path):
    (tmp_path / "net.zip").write_bytes(b"PK" + bytes(100))
    with pytest.raises(ModelError, match="no zip archive"):
        convert(tmp_path / "net.zip", tmp_path / "b")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    with pytest.raises(ModelError, match=r"no rdf\.yaml"):
        convert(tmp_path / "empty.zip", tmp_path / "b")
    (package(tmp_path / "net") / "rdf.yaml").write_text("type: model\nname: [")
    with pytest.raises(ModelError, match=r"cannot be read|not valid"):
        convert(tmp_path / "net", tmp_path / "b")
