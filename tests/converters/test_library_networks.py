"""Networks of MONAI, nnU-Net and torchvision, and HRNet with object context: passes equal one pass over the image.

Held against PyTorch in float64, a result may be 1.5 times as far off as one pass of plain ONNX Runtime is.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import exactile
from exactile.contract import DeployedModel
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization, deploy_in_passes
from exactile_converters.networks.network import Network
from exactile_converters.passes.deploy import obstacles_left
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.torch_export import export_onnx
from tests.passes.test_reductions import in_float64, one_pass, picture, tile_of
from tests.support.library_networks import SMALL, small
from tests.support.torchvision_operators import torchvision_declared

SIZE = (106, 141)
LARGE = (1000, 1003)
LARGE_TILE = 320
MULTIPLE = 32
"""Sizes that every network takes."""
SCALED = Normalization(scale=(255.0,))
FURTHER = 1.5
"""Times as far from the result in float64 as one pass."""

EXTENT = {"monai_basic_unet": (203, 170), "monai_basic_unet_shuffled": (203, 170), "hrnet_ocr": (96, 900)}
"""Images that are larger than the tiles of a network."""

MULTIPLES = {"monai_unet": 4, "monai_unet_grouped": 4}
"""Images of sizes that ONNX Runtime refuses are extended to these, not to the next size that it runs."""

STRIDES = {"monai_basic_unet": 16, "monai_basic_unet_shuffled": 16, "hrnet_ocr": 32, "torchvision_deeplabv3": 8,
           "torchvision_lraspp": 8}  # fmt: skip
QUICK = [name for name in SMALL if name not in {"monai_basic_unet_shuffled", "hrnet_ocr"}]


def module_of(name: str) -> torch.nn.Module:
    for begin, package in (("monai", "monai"), ("nnunet", "dynamic_network_architectures")):
        if name.startswith(begin):
            pytest.importorskip(package, reason=f"{package} is not installed: make test installs it")
    if name.startswith("torchvision"):
        with torchvision_declared():
            pytest.importorskip("torchvision", exc_type=ImportError)
    return small(name)


def exported(name: str, exporter: str) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(module_of(name), buffer, 3, (64, 96), exporter=exporter, stride=STRIDES.get(name, 4))
    return buffer.getvalue()


def network_of(model: bytes) -> Network:
    return prepare_network(onnx.load_from_string(model), name="library.onnx")


def extended(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """By reflection, below and on the right."""
    more = [(0, large - small) for large, small in zip(size, image.shape[:2], strict=True)]
    return np.pad(image, [*more, (0, 0)], mode="reflect")


def taken(model: bytes, size: tuple[int, int], multiple: int | None) -> tuple[int, int]:
    """``size`` as far as ONNX Runtime runs the network at it, else the next multiples, or the next that it runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def runs(height: int, width: int) -> bool:
        try:
            session.run(None, {"image": np.zeros((1, 3, height, width), np.float32)})
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            return False
        return True

    most = -(-size[0] // MULTIPLE) * MULTIPLE, -(-size[1] // MULTIPLE) * MULTIPLE
    step = multiple or 1
    height = next(px for px in tried(size[0], most[0], step) if runs(px, most[1]))
    width = next(px for px in tried(size[1], most[1], step) if runs(height, px))
    return height, width


def tried(px: int, most: int, step: int) -> Iterator[int]:
    """``px``, and then multiples of ``step``."""
    yield px
    yield from range(px + -px % step, most + 1, step)


def enlarged(model: DeployedModel, size: tuple[int, int], tile: tuple[int, int], least: int) -> tuple[int, int]:
    """``tile``, with strides of the network added until it is as large as ``least``."""
    axes = (model.contract.geometry.y, model.contract.geometry.x)
    more = [-(-max(0, least - side) // axis.stride) * axis.stride for side, axis in zip(tile, axes, strict=True)]
    rows, columns = (min(px, side + added) for px, side, added in zip(size, tile, more, strict=True))
    return rows, columns


def ways_of(
    found: DeployedModel, size: tuple[int, int], least: int
) -> list[tuple[DeployedModel, str, tuple[int, int]]]:
    """Tiles with kept maps, of two sizes, and tiles and strips that compute all from the image."""
    stride = found.contract.geometry.y.stride
    again = replace(found, keeping=None)
    tiles = [(again, tile_of(again, size, stride))]
    kept = found.keeping.at(size) if found.keeping is not None else None
    if kept is not None:
        tile = tile_of(kept, size, stride)
        tiles += [(found, tile), (found, enlarged(found, size, tile, tile[0] + stride))]
    ways = [(way, "tile", enlarged(found, size, tile, least)) for way, tile in tiles]
    if again.strips is not None:
        ways.append((again, "strip", (max(least, again.strips.startup_rows), size[1])))
    return ways


def check(found: DeployedModel, model: bytes, name: str, image: np.ndarray, least: int = 0) -> None:
    """Every way, by the error of one pass."""
    domain, module = taken(model, image.shape[:2], MULTIPLES.get(name)), module_of(name)
    seen = extended(image, domain)
    exact, whole = in_float64(module, seen), one_pass(model, seen)
    several = False
    for way, plan, tile in ways_of(found, domain, least):
        sink = ArraySink()
        summary = Session(way).segment(ArraySource(image), sink, plan=plan, tile=tile)
        assert summary.domain == domain
        several |= max(one.tiles for one in summary.passes) > 1
        rows, columns = sink.result.shape[1:]
        right, one = exact[:, :rows, :columns], whole[:, :rows, :columns]
        allowed = FURTHER * np.abs(one - right).max()
        assert np.abs(sink.result - right).max() <= allowed, (plan, tile, np.abs(sink.result - right).max(), allowed)
        ordered = np.sort(right, axis=0)
        sure = ordered[-1] - ordered[-2] > 2 * allowed
        assert sure.mean() > 0.9
        np.testing.assert_array_equal(sink.result.argmax(0)[sure], one.argmax(0)[sure])
    assert several


def deployed(model: bytes, size: tuple[int, int] | None) -> DeployedModel:
    network = network_of(model)
    assert network.trace().obstacles
    assert not obstacles_left(network)
    return deploy_in_passes(network, image_dtype="uint8", output="raw", image_size=size, normalization=SCALED)


@pytest.mark.parametrize("name", QUICK)
def test_small(name):
    size, model = EXTENT.get(name, SIZE), exported(name, "torchscript")
    check(deployed(model, size), model, name, picture(size))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SMALL if name not in QUICK])
def test_small_that_take_longer(name):
    size, model = EXTENT.get(name, SIZE), exported(name, "torchscript")
    check(deployed(model, size), model, name, picture(size))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_small_by_dynamo(name):
    size, model = EXTENT.get(name, SIZE), exported(name, "dynamo")
    check(deployed(model, size), model, name, picture(size))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_large(name):
    model = exported(name, "torchscript")
    check(deployed(model, LARGE), model, name, picture(LARGE), LARGE_TILE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["monai_segresnet", "nnunet_residual", "object_context"])
def test_bundle(tmp_path, name):
    """Made for images of any size."""
    model = exported(name, "torchscript")
    path = tmp_path / "network.onnx"
    path.write_bytes(model)
    convert(path, tmp_path / "bundle", output="raw", normalization=SCALED, tile=(64, 64))
    opened = exactile.open_bundle(tmp_path / "bundle")
    check(opened.model, model, name, picture(SIZE))
