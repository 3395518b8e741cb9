"""The families of segmentation-models-pytorch with random weights: the right verdict, and tiled equals whole."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy_in_passes, deploy_whole
from exactile_converters.plain_runs.subject import scores_of
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.torch_export import export_onnx
from exactile_converters.verify.probe import Subjects, probe_axis
from tests.placed.test_placed_networks import check_halo, traced_geometry
from tests.runs.test_exactness import segment
from tests.support.torchvision_operators import torchvision_declared

EXPORTERS = ("torchscript", "dynamo")
ENCODERS = ("resnet18", "mobilenet_v2", "efficientnet-b0")
TILEABLE = ("Unet", "UnetPlusPlus", "Linknet", "Segformer")

POSITIONED = {"Segformer"}
"""It resizes by the position in the image, which no shift of the image commutes with."""

# The operators that make the obstacle; a squeeze-and-excitation encoder meets its global pooling first.
OBSTACLES = {
    "FPN": {"Reshape"},
    "PSPNet": {"GlobalAveragePool", "ReduceMean", "Resize"},
    "DeepLabV3": {"GlobalAveragePool", "ReduceMean"},
    "DeepLabV3Plus": {"GlobalAveragePool", "ReduceMean"},
    "PAN": {"GlobalAveragePool", "ReduceMean", "Resize"},
    "MAnet": {"MatMul", "GlobalAveragePool", "ReduceMean"},
    "UPerNet": {"GlobalAveragePool", "ReduceMean", "ReduceSum"},
}
GLOBAL = {"GlobalAveragePool", "ReduceMean"}

SCALED = Normalization(scale=(255.0,))

# Images that tiles of the smallest size cut, of no stride's multiple, and such a tile.
PYRAMIDS = {"PSPNet": ((203, 181), (163, 165)), "UPerNet": ((203, 821), (203, 693))}
ONLY_MULTIPLES = {("UPerNet", "dynamo"): ((224, 832), (224, 704))}
"""As dynamo writes it, where it is told the stride."""


@pytest.fixture(scope="module")
def smp() -> Any:
    """The library, which imports torchvision."""
    with torchvision_declared():
        yield pytest.importorskip("segmentation_models_pytorch", exc_type=ImportError)


def exported(smp, family: str, encoder: str, exporter: str) -> bytes:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = getattr(smp, family)(encoder, encoder_weights=None, classes=3).eval()
        buffer = io.BytesIO()
        side = 256 if family == "PAN" else 64  # its attention pools the smallest map three times more
        export_onnx(network, buffer, 3, (side, side), exporter=exporter, stride=32)
    return buffer.getvalue()


def check_tileable(model: bytes) -> None:
    """No label differs, with the smallest tile that advances."""
    geometry = prepare_network(onnx.load_from_string(model), name="smp").trace().geometry
    assert geometry is not None
    tile = []
    for axis in (geometry.y, geometry.x):
        need = -(-axis.margin_before // axis.stride) * axis.stride + axis.stride + axis.margin_after
        tile.append(axis.accepted_size(need))
    image = np.random.default_rng(0).integers(0, 256, (tile[0] + 32, tile[1] + 32, 3), dtype=np.uint8)
    raw, summary, _ = segment(model, image, normalization=Normalization(scale=(255.0,)), tile=tuple(tile))
    pixels = (image.astype(np.float32) / 255).transpose(2, 0, 1)[None]
    (whole,) = ort.InferenceSession(model).run(None, {"image": pixels})
    assert summary.tiles == 4
    assert np.abs(raw - whole[0]).max() <= 1e-4 * max(1.0, np.abs(whole).max())


def check_tight(model: bytes) -> None:
    """Neither side of the halo could be a pixel smaller, by the probe that does not know the rules."""
    network = prepare_network(onnx.load_from_string(model), name="smp")
    traced = network.trace()
    scores = scores_of(network, traced.features).name
    subjects = Subjects.of(network, scores, traced.features[scores])
    for axis in ("y", "x"):
        probe = probe_axis(axis, subjects, traced.geometry, seed=0, progress=lambda *_: None)
        assert {side.verdict for side in probe.sides} == {"exact"}
        assert probe.stride_verdict == "exact"


def check_obstacles(model: bytes, operators: set[str]) -> None:
    traced = prepare_network(onnx.load_from_string(model), name="smp").trace()
    assert traced.geometry is None
    assert {obstacle.op for obstacle in traced.obstacles} & operators


def check_one_pass(model: bytes, size: tuple[int, int], extended: tuple[int, int]) -> None:
    """As ONNX Runtime does it over the image, which is reflected up to a size that the network takes."""
    network = prepare_network(onnx.load_from_string(model), name="smp")
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    deployed = deploy_whole(network, image_size=size, image_dtype="uint8", output="raw", normalization=SCALED)
    sink = ArraySink()
    summary = Session(deployed).segment(ArraySource(image), sink)
    pads = [(0, long - short) for short, long in zip(size, extended, strict=True)]
    pixels = (np.pad(image, [*pads, (0, 0)], mode="reflect").astype(np.float32) / 255).transpose(2, 0, 1)[None]
    session = ort.InferenceSession(model)
    (whole,) = session.run(None, {session.get_inputs()[0].name: pixels})
    assert (summary.plan, summary.domain) == ("whole", extended)
    assert np.abs(sink.result - whole[0][:, : size[0], : size[1]]).max() <= 1e-4 * max(1.0, np.abs(whole).max())


@pytest.mark.parametrize("family", ["Unet", "Linknet"])
def test_small_tileable_families_tile(smp, family):
    check_tileable(exported(smp, family, "resnet18", "torchscript"))


@pytest.mark.parametrize("family", ["FPN", "DeepLabV3Plus", "MAnet"])
def test_small_families_with_obstacles_are_refused(smp, family):
    check_obstacles(exported(smp, family, "resnet18", "torchscript"), OBSTACLES[family])


def test_a_small_family_with_obstacles_runs_in_one_pass(smp):
    """At the next size that the network takes."""
    check_one_pass(exported(smp, "DeepLabV3Plus", "resnet18", "torchscript"), (250, 300), (256, 304))


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("family", OBSTACLES)
def test_families_with_obstacles_run_in_one_pass(smp, family, encoder, exporter):
    check_one_pass(exported(smp, family, encoder, exporter), (256, 512), (256, 512))


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("family", TILEABLE)
def test_tileable_families_tile(smp, family, encoder, exporter):
    """EfficientNet's squeeze-and-excitation is an obstacle in every family."""
    model = exported(smp, family, encoder, exporter)
    if encoder.startswith("efficientnet"):
        check_obstacles(model, GLOBAL)
    else:
        check_tileable(model)
        if family in POSITIONED:
            geometry = traced_geometry(model, (544, 576))
            check_halo(model, (544, 576), geometry)
        else:
            check_tight(model)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("family", OBSTACLES)
def test_families_with_obstacles_are_refused(smp, family, encoder, exporter):
    check_obstacles(exported(smp, family, encoder, exporter), OBSTACLES[family] | GLOBAL)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("family", PYRAMIDS)
def test_pyramid_pooling_runs_in_passes(smp, family, exporter):
    """Bins of 1, 2, 3 and 6: tiles and strips give the labels of one pass."""
    model = exported(smp, family, "resnet18", exporter)
    size, tile = ONLY_MULTIPLES.get((family, exporter), PYRAMIDS[family])
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image[:, size[1] // 2 :] //= 2
    network = prepare_network(onnx.load_from_string(model), name="smp")
    deployed = deploy_in_passes(network, image_size=size, image_dtype="uint8", output="raw", normalization=SCALED)
    (whole,) = ort.InferenceSession(model).run(
        None, {"image": (image.astype(np.float32) / 255).transpose(2, 0, 1)[None]}
    )
    for found, plan, cut in (
        (replace(deployed, keeping=None), "tile", tile),
        (deployed, "tile", None),
        (deployed, "strip", None),
    ):
        sink = ArraySink()
        summary = Session(found).segment(ArraySource(image), sink, plan=plan, tile=cut)
        assert cut is None or (summary.tiles > 1 and max(one.tiles for one in summary.passes) > 1)
        assert np.abs(sink.result - whole[0]).max() <= 3e-6 * np.abs(whole).max()
        assert np.array_equal(sink.result.argmax(0), whole[0].argmax(0))
