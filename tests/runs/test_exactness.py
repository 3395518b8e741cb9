"""The product: tiled equals one pass over the whole image, for every network, border and awkward size."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx
import pytest

from exactile.plan.border import BORDERS
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.nets import INTEGER_NETS, NETS, onnx_bytes
from tests.support.oracle import whole_pass

MEMORY = 8 << 30
LARGE_NETS = {
    "fc_densenet56",
    "fc_densenet56_transpose2",
    "segnet",
    "resnet_unet",
    "unet_d4",
    "unet_transpose3_d4",
    "unet_bilinear_d4",
    "unet_nearest_d4",
}
LARGEST, SLOW = "fc_densenet56_transpose2", pytest.mark.slow
"""Its like, fc_densenet56, is not slow."""

INTEGER_CASES = [
    (name, border)
    for name in INTEGER_NETS
    for border in BORDERS
    if name not in LARGE_NETS or border == "model" or (name, border) == ("unet_transpose3_d4", "reflect")
]


def image_for(name: str, height: int, width: int, largest: int = 255) -> np.ndarray:
    generator = np.random.default_rng(height * 7919 + width)
    return generator.integers(0, largest + 1, (height, width, NETS[name].channels), dtype=np.uint8)


@lru_cache(maxsize=2)  # of a network that several cases in turn run
def prepared(model: bytes):
    network = prepare_network(onnx.load_from_string(model), name="net")
    return network, network.trace().geometry


@lru_cache(maxsize=2)
def converted(model: bytes, image_dtype: str, normalization: Normalization | None, output: str, *, strips: bool):
    network, geometry = prepared(model)
    made = deploy(network.copy(), image_dtype=image_dtype, normalization=normalization, output=output, strips=strips)
    return geometry, made


def segment(model: bytes, image: np.ndarray, *, output="raw", normalization=None, memory=MEMORY, **options):
    """What ``model`` makes of ``image``. Strips are made where they may be run."""
    plan = options.get("plan", "auto")
    strips = plan == "strip" or (plan == "auto" and options.get("tile") is None)
    geometry, deployed = converted(model, str(image.dtype), normalization, output, strips=strips)
    sink = ArraySink()
    summary = Session(deployed, memory_bytes=memory).segment(ArraySource(image), sink, **options)
    return sink.result, summary, geometry


def smallest_tile(model: bytes, extra: int = 1) -> tuple[int, int]:
    """The least tile that advances, and a little more: the most seams."""
    _, geometry = prepared(model)
    sides = []
    for axis in (geometry.y, geometry.x):
        need = -(-axis.before // axis.stride) * axis.stride + axis.stride * extra + axis.after
        sides.append(axis.accepted_size(max(need, 1)))
    return sides[0], sides[1]


POSITIONED = {"unet_bilinear_skip_d2"}
"""It resizes to the size of a skip connection."""


def image_size(name: str, tile: tuple[int, int]) -> tuple[int, int]:
    """Three tiles each way, or two where tiles are large; no multiple of anything."""
    stride = NETS[name].stride
    if name in POSITIONED:  # other sizes go through in one piece
        return tile[0] + 2 * stride, tile[1] + 3 * stride
    steps = 1 if max(tile) > 256 else 2
    return tile[0] + steps * stride - stride // 2 + 1, tile[1] + (steps + 1) * stride - 1


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW if name == LARGEST else ()) for name in NETS])
def test_tiled_labels_equal_whole_labels(name):
    """Zero different labels with smallest tiles on random weights, and raw outputs to re-association."""
    model = onnx_bytes(name)
    tile = smallest_tile(model)
    image = image_for(name, *image_size(name, tile))
    normalization = Normalization(scale=(255.0,), mean=(0.5,), std=(0.25,))
    raw, summary, geometry = segment(model, image, normalization=normalization, tile=tile)
    reference = whole_pass(model, image, geometry, scale=255, mean=0.5, std=0.25)
    assert summary.tiles > 1
    assert raw.shape == reference.shape
    assert np.abs(raw - reference).max() <= 1e-4 * max(1.0, np.abs(reference).max())
    if name in LARGE_NETS:
        labels = raw.argmax(0)
    else:
        labels, _, _ = segment(model, image, output="labels", normalization=normalization, tile=tile)
    assert np.count_nonzero(labels != reference.argmax(0)) == 0


@pytest.mark.parametrize(
    ("name", "border"), [pytest.param(*case, marks=SLOW if case[0] == LARGEST else ()) for case in INTEGER_CASES]
)
def test_integer_weights_agree_bit_for_bit(name, border):
    """With exact arithmetic a single wrong border pixel would show.

    A border adds a halo around the image: tiles that advance by one stride would be hundreds.
    """
    model = onnx_bytes(name, weights="integer")
    tile = smallest_tile(model, extra=1 if border == "model" else 2)
    image = image_for(name, *image_size(name, tile), largest=7)
    raw, summary, geometry = segment(model, image, tile=tile, border=border)
    assert summary.tiles >= (2 if border == "model" else 9)
    assert np.array_equal(raw, whole_pass(model, image, geometry, border))


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(
    "size",
    [(1, 1), (1, 70), (65, 1), (48, 48), (47, 49), (101, 97), (56, 57), (57, 56), (100, 1), (3, 200)],
)
def test_awkward_sizes(size, border):
    """Smaller than a tile, one pixel wide, one pixel more than tiles hold, odd; unsymmetric halo."""
    name = "unet_transpose3_d2"
    image = image_for(name, *size, largest=7)
    model = onnx_bytes(name, weights="integer")
    raw, _, geometry = segment(model, image, tile=(56, 60), border=border)
    assert np.array_equal(raw, whole_pass(model, image, geometry, border))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_sample_types_pass_through_the_graph(dtype):
    name = "unet_d2"
    image = image_for(name, 83, 90).astype(dtype)
    model = onnx_bytes(name)
    raw, _, geometry = segment(model, image, tile=(64, 64), normalization=Normalization(scale=(100.0,)))
    assert np.allclose(raw, whole_pass(model, image, geometry, scale=100.0), atol=1e-4)


def test_one_value_for_each_channel_normalises_like_numpy():
    name = "unet_d2"
    image = image_for(name, 70, 61)
    values = {"scale": (255.0, 128.0, 64.0), "mean": (0.1, 0.2, 0.3), "std": (0.3, 0.2, 0.1)}
    model = onnx_bytes(name)
    raw, _, geometry = segment(model, image, tile=(60, 64), normalization=Normalization(**values))
    arrays = {key: np.array(value, np.float32) for key, value in values.items()}
    assert np.allclose(raw, whole_pass(model, image, geometry, **arrays), atol=1e-4)


def test_probabilities_are_the_softmax_of_the_raw_output():
    name = "unet_d2"
    image = image_for(name, 70, 61)
    model = onnx_bytes(name)
    probabilities, _, geometry = segment(
        model, image, output="probabilities", tile=(60, 64), normalization=Normalization(scale=(255.0,))
    )
    scores = np.exp(whole_pass(model, image, geometry, scale=255.0).astype(np.float64))
    assert probabilities.shape == scores.shape
    assert np.allclose(probabilities, scores / scores.sum(axis=0), atol=1e-5)


def test_a_forced_whole_pass_equals_plain_onnx_runtime():
    name = "unet_d2"
    image = image_for(name, 101, 99)
    raw, summary, geometry = segment(onnx_bytes(name), image, plan="whole")
    assert (summary.plan, summary.tiles, summary.domain) == ("whole", 1, (104, 100))
    assert np.allclose(raw, whole_pass(onnx_bytes(name), image, geometry), atol=1e-3)
