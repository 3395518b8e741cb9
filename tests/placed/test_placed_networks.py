"""Networks that resize by the position in the image, as PyTorch exports them: the result is one pass over the image.

The reference is plain ONNX Runtime over the image itself, whose size is a multiple of nothing.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.geometry import AxisGeometry, Geometry
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.inspection import inspect_network
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.positioned_nets import POSITIONED, positioned_onnx

TOLERANCE = 2e-6
"""Of the largest value: sums may be ordered otherwise."""

SMALL = {
    "unet_to_skip": (181, 131),
    "unet_aligned": (182, 133),
    "unet_padded": (179, 135),
    "fcn": (181, 99),
    "hrnet": (595, 67),
    "segformer": (651, 71),
}
LARGE = (1000, 1003)
PLANS = ("whole", "tile", "strip")

BY_BOTH = [
    *((name, "torchscript") for name in POSITIONED),
    ("unet_to_skip", "dynamo"),
    *(pytest.param(name, "dynamo", marks=pytest.mark.slow) for name in POSITIONED if name != "unet_to_skip"),
]
ALL_LARGE = [(name, exporter) for name in POSITIONED for exporter in ("torchscript", "dynamo")]


def picture(height: int, width: int) -> np.ndarray:
    """(H, W, 3) float32, 0 to 1: patches of several sizes and noise, so that every class is found."""
    random = np.random.default_rng([height, width])
    pixels = random.normal(0, 20, (height, width, 3))
    for side in (5, 17, 41):
        patches = random.normal(40, 40, (height // side + 1, width // side + 1, 3))
        pixels += patches.repeat(side, 0).repeat(side, 1)[:height, :width]
    return (pixels / 255).clip(0, 1).astype(np.float32)


@cache
def plain(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model, options)


def one_pass(model: bytes, image: np.ndarray) -> np.ndarray:
    """(C, H', W') float32."""
    return plain(model).run(None, {"image": image.transpose(2, 0, 1)[None]})[0][0]


def traced_geometry(model: bytes, size: tuple[int, int]) -> Geometry:
    """Of images of ``size``."""
    network = prepare_network(onnx.load_from_string(model), name="placed")
    traced = network.with_own_sizes(network.trace(), size)
    assert traced.geometry is not None
    return traced.geometry.of_size(size)


def tile_side(axis: AxisGeometry, size: int, more: int) -> int:
    """Halo on both sides and ``more`` strides; what lies beyond a multiple of the stride is the image's."""
    halo = -(-(axis.before + axis.extra_before) // axis.stride) * axis.stride + axis.after + axis.extra_after
    strides = -(-halo // axis.stride) + more
    return min(size, strides * axis.stride + size % axis.stride)


def check_plans(
    model: bytes, size: tuple[int, int], more: int, plans: tuple[str, ...] = PLANS, tolerance: float = TOLERANCE
) -> Geometry:
    """In all ``plans`` the labels are those of one pass, and so are the values, but for rounding."""
    image, geometry = picture(*size), traced_geometry(model, size)
    reference = one_pass(model, image)
    labels = reference.argmax(0)
    assert len(np.unique(labels)) > 1
    network = prepare_network(onnx.load_from_string(model), name="placed")
    deployed = deploy(network, image_dtype="float32", output="raw", image_size=size, strips="strip" in plans)
    session = Session(deployed, memory_bytes=8 << 30)
    tile = tile_side(geometry.y, size[0], more), tile_side(geometry.x, size[1], more)
    for plan in plans:
        sink = ArraySink()
        summary = session.segment(ArraySource(image), sink, plan=plan, tile=tile if plan == "tile" else None)
        assert summary.plan in (plan, "whole")
        assert summary.plan == "whole" or summary.tiles > 1
        assert not summary.padded_because
        assert sink.result.shape == reference.shape
        assert np.abs(sink.result - reference).max() <= tolerance * np.abs(reference).max()
        assert np.count_nonzero(sink.result.argmax(0) != labels) == 0
    return geometry


def check_halo(model: bytes, size: tuple[int, int], geometry: Geometry) -> None:
    """What is beyond the halo changes nothing; what is well inside changes something."""
    image = picture(*size)
    noise = np.random.default_rng(1).random(image.shape, np.float32)
    reference = one_pass(model, image)
    for dim, axis in enumerate((geometry.y, geometry.x)):
        begin = size[dim] // axis.stride // 2 * axis.stride
        box = (slice(None),) * (dim + 1) + (slice(begin, begin + axis.stride),)
        for share, changes in ((1, False), (0.25, True)):
            first, last = begin - int(axis.before * share), begin + axis.stride + int(axis.after * share)
            for outside in (slice(0, max(0, first)), slice(last, None)):
                where = (slice(None),) * dim + (outside,)
                if not image[where].size:
                    continue
                other = image.copy()
                other[where] = noise[where]
                assert np.array_equal(one_pass(model, other)[box], reference[box]) is not changes


@pytest.mark.parametrize(("name", "exporter"), BY_BOTH)
def test_small_networks(name, exporter):
    model = positioned_onnx(name, exporter)
    geometry = check_plans(model, SMALL[name], 3, PLANS[:2] if name == "segformer" else PLANS)
    check_halo(model, SMALL[name], geometry)


def test_inspection_finds_the_strips():
    network = prepare_network(onnx.load_from_string(positioned_onnx("unet_aligned", "torchscript")), name="placed")
    found = inspect_network(network)
    assert found.no_strips_reason == ""
    assert found.strips is not None


@pytest.mark.slow
def test_a_segformer_in_strips():
    check_plans(positioned_onnx("segformer", "torchscript"), SMALL["segformer"], 3, ("strip",))


def test_one_deployed_model_serves_every_remainder():
    """Heights and widths of every remainder modulo the stride, without being told the image's size."""
    model = positioned_onnx("unet_aligned", "torchscript")
    network = prepare_network(onnx.load_from_string(model), name="placed")
    deployed = deploy(network, image_dtype="float32", output="raw")
    session = Session(deployed, memory_bytes=8 << 30)
    for more in range(8):
        image = picture(184 + more, 72 + (3 * more + 1) % 8)
        reference = one_pass(model, image)
        for plan in PLANS:
            sink = ArraySink()
            summary = session.segment(
                ArraySource(image), sink, plan=plan, tile=(168 + more, image.shape[1]) if plan == "tile" else None
            )
            assert summary.plan == plan
            assert not summary.padded_because
            assert np.abs(sink.result - reference).max() <= TOLERANCE * np.abs(reference).max()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter"), ALL_LARGE)
def test_published_networks_at_1000_by_1003(name, exporter):
    """HRNet's halo is larger than the image: tiles are the whole of it. Fifty layers add to the rounding."""
    check_plans(positioned_onnx(name, exporter, large=True), LARGE, 14, tolerance=2 * TOLERANCE)


def padded_then_halved() -> bytes:
    """At even sizes, which are padded to odd ones, halving depends on the position; at odd ones it does not."""
    nodes = [
        helper.make_node("Relu", ["image"], ["a"]),
        helper.make_node("Pad", ["a", "one_below_and_right"], ["b"]),
        helper.make_node(
            "Resize",
            ["b", "", "half"],
            ["y"],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        ),
    ]
    constants = {
        "one_below_and_right": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        "half": np.array([1, 1, 0.5, 0.5], np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


@pytest.mark.parametrize("size", [(7, 7), (6, 7), (7, 6), (6, 6), (33, 41), (32, 41), (34, 40)])
def test_sizes_that_do_not_ask_for_the_position_run_by_a_graph_that_is_told(size):
    """The position is told at the first size that was looked at, and so at all."""
    model, image = padded_then_halved(), np.random.default_rng(0).random((*size, 1), np.float32)
    (expected,) = plain(model).run(None, {"image": image.transpose(2, 0, 1)[None]})
    network = prepare_network(onnx.load_from_string(model), name="net")
    session = Session(deploy(network, image_dtype="float32", output="raw"), memory_bytes=8 << 30)
    for tile in (None, (3, 5), (8, 16)):
        sink = ArraySink()
        summary = session.segment(ArraySource(image), sink, plan="tile", tile=tile)
        assert (summary.tiles > 1) == (tile is not None and (size[0] > tile[0] or size[1] > tile[1]))
        np.testing.assert_array_equal(sink.result, expected[0])
