"""From PyTorch to a bundle: framework, ONNX, tiles, strips and one whole pass all agree."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

import exactile
from exactile.errors import ModelError, NotTileableError, OptionError
from exactile_converters.cleanup.simplify import simplify
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization
from exactile_converters.readers.from_torch import from_file
from exactile_converters.torch_export import export_onnx
from models.fc_densenet import LAYERS, FCDenseNet, fc_densenet
from models.resnet_unet import ResNetUNet
from models.segnet import SegNet
from models.unet import UNet
from tests.support.command import exactile as command
from tests.support.command import within
from tests.support.nets import random_weights
from tests.support.torch_factories import AddedUp, InTraining, Pooled, SeveralOutputs, WithDropout, unet

ENTRIES = {
    "U-Net": lambda: UNet(3, 3, features=4, depth=3),
    "FC-DenseNet-56": lambda: FCDenseNet(3, 3, layers=LAYERS[56], growth=4),
    "SegNet": lambda: SegNet(3, 3, features=4),
    "ResNet U-Net": lambda: ResNetUNet(3, 3, features=8),
}


def framework(module: torch.nn.Module, image: np.ndarray, scale: float = 255.0) -> np.ndarray:
    """The module's own result for a whole image, (C, H, W)."""
    with torch.inference_mode():
        found = module.eval()(torch.from_numpy(image.astype(np.float32) / np.float32(scale)).permute(2, 0, 1)[None])
    return found[0].numpy()


def check(bundle, module, size=(256, 224)) -> None:
    """Framework == bundle in one pass == tiles == strips."""
    model = exactile.open_bundle(bundle).model
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = framework(module, image)
    results = {}
    for plan in ("whole", "tile", "strip"):
        if plan == "strip" and model.strips is None:
            continue
        sink = exactile.ArraySink()
        exactile.Session(model).segment(exactile.ArraySource(image), sink, plan=plan)
        results[plan] = sink.result
        assert np.abs(sink.result - expected).max() <= 1e-4 * np.abs(expected).max()
        assert np.count_nonzero(sink.result.argmax(0) != expected.argmax(0)) == 0
    assert "tile" in results


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "FC-DenseNet-56" else name for name in ENTRIES]
)
def test_a_module_becomes_a_bundle(name, tmp_path):
    module = random_weights(ENTRIES[name](), 0)
    made = convert(module, tmp_path / "b", normalization=Normalization(scale=(255.0,)), output="raw")
    assert made.agreement.max_abs <= made.agreement.tolerance
    assert made.agreement.images >= 1
    check(tmp_path / "b", module)


REFERENCE = {
    "U-Net": lambda: UNet(3, 3, features=64, depth=4),
    "FC-DenseNet-56": lambda: fc_densenet(56, 3, 3),
    "FC-DenseNet-67": lambda: fc_densenet(67, 3, 3),
    "FC-DenseNet-103": lambda: fc_densenet(103, 3, 3),
    "SegNet": lambda: SegNet(3, 3),
    "ResNet U-Net": lambda: ResNetUNet(3, 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCE)
def test_the_published_networks_become_bundles(name, tmp_path):
    module = random_weights(REFERENCE[name](), 0)
    convert(module, tmp_path / "b", normalization=Normalization(scale=(255.0,)), output="raw")
    check(tmp_path / "b", module, (608, 96))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_file_becomes_a_bundle(tmp_path):
    module = random_weights(unet(), 0).eval()
    torch.jit.trace(module, torch.zeros(1, 3, 64, 64)).save(tmp_path / "traced.pt")
    convert(tmp_path / "traced.pt", tmp_path / "b", normalization=Normalization(scale=(255.0,)), output="raw")
    assert exactile.open_bundle(tmp_path / "b").file.source == "TorchScript"
    check(tmp_path / "b", module)


@pytest.mark.parametrize("dynamic", [True, False])
def test_an_exported_program_becomes_a_bundle(tmp_path, dynamic):
    module = random_weights(unet(), 0).eval()
    sides = {2: 4 * torch.export.Dim("h", max=1024), 3: 4 * torch.export.Dim("w", max=1024)} if dynamic else None
    program = torch.export.export(
        module, (torch.zeros(1, 3, 256, 224),), dynamic_shapes=({**sides},) if sides else None
    )
    torch.export.save(program, tmp_path / "program.pt2")
    convert(tmp_path / "program.pt2", tmp_path / "b", normalization=Normalization(scale=(255.0,)), output="raw")
    assert exactile.open_bundle(tmp_path / "b").file.source == "PyTorch exported program"
    check(tmp_path / "b", module)


def test_the_graph_is_clean(tmp_path):
    """Batch normalisation and dropout are gone, and the result is the same."""
    module = WithDropout().eval()
    made = convert(module, tmp_path / "b", normalization=Normalization(scale=(255.0,)), output="raw")
    graph = onnx.load(tmp_path / "b" / "graph.onnx", load_external_data=False).graph
    operators = [node.op_type for node in graph.node]
    assert not {"BatchNormalization", "Dropout"} & set(operators)
    assert operators.count("Conv") == 2
    assert made.agreement.max_abs <= 1e-5
    check(tmp_path / "b", module)


def test_batch_normalisation_is_folded_where_the_exporter_left_it(tmp_path):
    from exactile_converters.prepare.from_onnx import load_network

    module = random_weights(unet(), 0)
    export_onnx(module, tmp_path / "dynamo.onnx", 3, exporter="dynamo", stride=4)
    network = load_network(tmp_path / "dynamo.onnx")
    geometry = network.trace().geometry
    simplify(network)
    assert "BatchNormalization" not in {node.op_type for node in network.model.graph}
    assert network.trace().geometry == geometry


def test_the_command_builds_from_a_factory_and_a_state_dict(tmp_path):
    module = random_weights(unet(), 5)
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, tmp_path / "best.pth")
    done = command(
        *("convert", "--torch", "tests.support.torch_factories:unet", "--weights", tmp_path / "best.pth"),
        *("-o", tmp_path / "b", "--scale", 255, "--output", "raw", "--classes", "background,cell,border"),
    )
    assert done.returncode == 0, done.stderr
    assert "ONNX Runtime against the framework: max-abs" in done.stdout
    check(tmp_path / "b", module)
    told = command("info", tmp_path / "b", "--test")
    assert told.returncode == 0
    assert "whole: 0 of" in told.stdout
    assert "1 cell" in told.stdout
    contract = json.loads(command("info", tmp_path / "b", "--json").stdout)
    assert contract["geometry"]["y"]["stride"] == 4


def test_the_command_runs_a_bundle_as_it_runs_the_model(tmp_path):
    module = random_weights(unet(), 0)
    export_onnx(module, tmp_path / "unet.onnx", 3)
    image = np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)
    np.save(tmp_path / "image.npy", image)
    for model, options in (("unet.onnx", ["--scale", 255]), ("b", [])):
        if model == "b":
            assert command("convert", tmp_path / "unet.onnx", "-o", tmp_path / "b", "--scale", 255).returncode == 0
        target = tmp_path / f"{model}.npy"
        done = command("run", tmp_path / model, tmp_path / "image.npy", "-o", target, *options)
        assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "b.npy"), np.load(tmp_path / "unet.onnx.npy"))
    refused = command("run", tmp_path / "b", tmp_path / "image.npy", "-o", tmp_path / "x.npy", "--scale", 255)
    assert refused.returncode == 2
    assert "--scale: fixed in the bundle" in refused.stderr
    np.save(tmp_path / "deep.npy", image.astype(np.uint16))
    refused = command("run", tmp_path / "b", tmp_path / "deep.npy", "-o", tmp_path / "x.npy")
    assert refused.returncode == 2
    assert "uint16 samples and the model was deployed for uint8" in refused.stderr


def test_the_first_of_several_outputs_is_taken(tmp_path):
    module = SeveralOutputs()
    convert(module, tmp_path / "b", output="raw", normalization=Normalization(scale=(255.0,)))
    check(tmp_path / "b", module.net)


def test_what_cannot_be_checked_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ModelError, match="is not the framework's"):
        convert(InTraining(), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_an_untileable_module_lists_its_obstacles(tmp_path):
    with pytest.raises(NotTileableError, match="CumSum"):
        convert(AddedUp(), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_module_that_takes_a_mean_of_the_whole_image_becomes_a_bundle(tmp_path):
    module = random_weights(Pooled(), 0)
    convert(module, tmp_path / "b", normalization=Normalization(scale=(255.0,)), output="raw")
    assert len(exactile.open_bundle(tmp_path / "b").model.levels) == 1
    check(tmp_path / "b", module)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--torch", "tests.support.torch_factories"), "takes package.module:factory"),
        (("--torch", "tests.support.torch_factories:absent"), "no attribute 'absent'"),
        (("--torch", "no.such.module:unet"), "No module named"),
        (("--torch", "tests.support.torch_factories:broken"), "the weights server is on fire"),
        (("--torch", "tests.support.torch_factories:not_a_module"), "not a torch.nn.Module"),
        (("--torch", "tests.support.torch_factories:unet", "--weights", "absent.pth"), "no file at"),
        (("--weights", "absent.pth", "x.onnx"), "--weights belongs to --torch"),
        ((), "give either a file to convert or --torch"),
    ],
)
def test_wrong_options_are_told(tmp_path, options, says):
    done = within("convert", *options, "-o", tmp_path / "b")
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert not (tmp_path / "b").exists()


def test_weights_of_another_network_are_told(tmp_path):
    torch.save(UNet(3, 3, features=8, depth=1).state_dict(), tmp_path / "other.pth")
    done = within(
        "convert",
        "--torch",
        "tests.support.torch_factories:unet",
        "--weights",
        tmp_path / "other.pth",
        "-o",
        tmp_path / "b",
    )
    assert done.returncode == 2
    assert "the weights do not fit" in done.stderr


def test_a_pickled_module_is_not_opened(tmp_path):
    """Unpickling runs whatever code the file brings."""
    torch.save(unet(), tmp_path / "pickled.pt")
    with pytest.raises(ModelError, match=r"--torch package\.module:factory"):
        from_file(tmp_path / "pickled.pt", channels=None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tile": (100, 1024)}, "stride 4"),
        ({"tile": (16, 1024)}, "least 52"),
        ({"classes": ["a", "b"]}, "2 class names are given, but the network has 3"),
        ({"colors": ["#112233"]}, "1 colours for 3 classes"),
        ({"colors": ["red", "green", "blue"]}, "six hexadecimal digits"),
    ],
)
def test_what_does_not_suit_the_network_is_told(tmp_path, options, says):
    if options.get("tile") == (100, 1024):
        options = {"tile": (102, 1024)}
    with pytest.raises(OptionError, match=says):
        convert(unet(), tmp_path / "b", **options)
    assert not (tmp_path / "b").exists()


def test_an_example_shape_says_channels_and_size(tmp_path):
    class Gate(torch.nn.Module):
        """Nothing in it says how many channels it takes, and it does not take 256 x 256 pixels."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            assert image.shape[-1] <= 128
            return torch.nn.functional.max_pool2d(image, 3, stride=1, padding=1)

    with pytest.raises(OptionError, match="give --input-channels"):
        convert(Gate(), tmp_path / "b", output="raw")
    made = convert(Gate(), tmp_path / "b", output="raw", example_shape=(1, 4, 64, 96))
    assert made.file.image.channels == 4
    assert made.file.geometry.y.before == 1
