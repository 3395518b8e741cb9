"""Networks that resize by the position in the image, as PyTorch exports them: the result is one pass over the image.

The reference is plain ONNX Runtime over the image itself, whose size is a multiple of nothing.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exactile.contract import DeployedModel
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.deploy_whole import deploy_whole
from exactile_converters.from_onnx import prepare_network
from tests.positioned_nets import POSITIONED, positioned_onnx

TOLERANCE = 2e-6
"""Of the largest value: sums may be ordered otherwise."""

SMALL = (100, 131)


def picture(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: patches of several sizes and noise, so that every class is found."""
    random = np.random.default_rng([height, width])
    pixels = random.normal(0, 20, (height, width, 3))
    for side in (5, 17, 41):
        patches = random.normal(40, 40, (height // side + 1, width // side + 1, 3))
        pixels += patches.repeat(side, 0).repeat(side, 1)[:height, :width]
    return pixels.clip(0, 255).astype(np.uint8)


@cache
def one_pass(model: bytes, size: tuple[int, int]) -> np.ndarray:
    """(C, H', W') float32."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options)
    pixels = (picture(*size).astype(np.float32) / np.float32(255)).transpose(2, 0, 1)[None]
    return session.run(None, {"image": pixels})[0][0]


def check_equal(raw: np.ndarray, reference: np.ndarray) -> None:
    assert raw.shape == reference.shape
    assert np.abs(raw - reference).max() <= TOLERANCE * np.abs(reference).max()
    labels = reference.argmax(0)
    assert len(np.unique(labels)) > 1
    assert np.count_nonzero(raw.argmax(0) != labels) == 0


def deployed_for(model: bytes, size: tuple[int, int]) -> DeployedModel:
    network = prepare_network(onnx.load_from_string(model), name="placed")
    tiled = network.trace().geometry is not None
    return (deploy if tiled else deploy_whole)(
        network, image_size=size, image_dtype="uint8", output="raw", normalization=Normalization(scale=(255.0,))
    )


def segmented(deployed: DeployedModel, size: tuple[int, int], **options):
    sink = ArraySink()
    summary = Session(deployed, memory_bytes=8 << 30).segment(ArraySource(picture(*size)), sink, **options)
    return sink.result, summary


BY_BOTH = [
    *((name, "torchscript") for name in POSITIONED),
    *(pytest.param(name, "dynamo", marks=pytest.mark.slow) for name in POSITIONED),
]


@pytest.mark.parametrize(("name", "exporter"), BY_BOTH)
def test_whole_pass_at_the_image_s_own_size(name, exporter):
    """The image is not extended."""
    model = positioned_onnx(name, exporter)
    deployed = deployed_for(model, SMALL)
    raw, summary = segmented(deployed, SMALL, plan="whole")
    assert not summary.padded_because
    check_equal(raw, one_pass(model, SMALL))
