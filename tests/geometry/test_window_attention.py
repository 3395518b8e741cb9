"""Attention in windows, shifted and masked, is local: tiles give what one pass of plain ONNX Runtime gives."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.verify.claim_check import check_claim
from tests.support.oracle import given_pass
from tests.support.window_nets import MaxViT, Swin, SwinUpsampled, exported

TOLERANCE = 2e-6
"""Of the largest value: sums in another order."""

CASES = {
    "added": (Swin(), "torchscript", (36, 40)),
    "infinite, odd": (Swin(mask="infinite"), "torchscript", (37, 43)),
    "chosen, odd": (Swin(mask="chosen"), "torchscript", (35, 41)),
    "patches, odd": (Swin(patch=2, size=4), "torchscript", (61, 70)),
    "windows of 5, shifted by 1 and 2": (Swin(size=5, shifts=(1, 2)), "torchscript", (52, 45)),
    "resized with corners aligned, odd": (SwinUpsampled(), "torchscript", (61, 75)),
    "dynamo": (Swin(patch=2, size=2, shifts=(0, 1)), "dynamo", (36, 40)),
    "dynamo, chosen": (Swin(patch=2, size=2, shifts=(0, 1), mask="chosen"), "dynamo", (36, 40)),
    "blocks of MaxViT": (MaxViT(), "torchscript", (36, 44)),
    "blocks of MaxViT by dynamo": (MaxViT(), "dynamo", (36, 44)),
}

SLOW = {"windows of 5, shifted by 1 and 2", "dynamo, chosen", "blocks of MaxViT by dynamo"}


def prepared(model: bytes) -> Network:
    return prepare_network(onnx.load_from_string(model), name="windows")


def in_pieces(model: bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    """The result in tiles, and in strips where there are any, of a few strides more than the halo."""
    network = deploy(prepared(model), image_dtype="float32", output="raw", image_size=image.shape[:2])
    axes = (network.contract.geometry.y, network.contract.geometry.x)
    tile = tuple(one.accepted_size(one.margin_before + one.margin_after + 2 * one.stride) for one in axes)
    found = {}
    for plan in ("tile", "strip") if network.strips is not None else ("tile",):
        sink = ArraySink()
        summary = Session(network, threads=1).segment(ArraySource(image), sink, plan=plan, tile=tile)
        assert (summary.plan, summary.padded_because) == (plan, "")
        found[plan] = sink.result
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CASES]
)
def test_pieces_give_what_one_pass_gives(name):
    net, exporter, size = CASES[name]
    model = exported(net, exporter, stride=4)
    image = np.random.default_rng(size).random((*size, 3), np.float32)
    expected = given_pass(model, image)
    for found in in_pieces(model, image).values():
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
        assert np.array_equal(found.argmax(0), expected.argmax(0))


@pytest.mark.parametrize(
    ("net", "halo"),
    [(Swin(shifts=(0,)), (0, 0)), (Swin(shifts=(1,)), (3, 1)), (Swin(shifts=(0, 1)), (4, 4)), (MaxViT(), (1, 1))],
)
def test_windows_look_as_far_as_their_shifts(net, halo):
    """A window of 4 that is shifted by 1 begins 3 rows before a multiple of 4, or ends 1 behind."""
    geometry = prepared(exported(net)).trace().geometry
    assert geometry is not None
    for axis in (geometry.y, geometry.x):
        assert (axis.stride, axis.before, axis.after) == (4, *halo)


@pytest.mark.parametrize("mask", ["none", "one row less", "weak"])
def test_edges_that_no_mask_keeps_apart_are_an_obstacle(mask):
    (obstacle,) = prepared(exported(Swin(mask=mask, shifts=(2,)))).trace().obstacles
    assert "no mask keeps the two apart" in obstacle.reason


def test_a_mask_of_what_a_tile_uses_is_an_obstacle():
    """The last row of windows is masked, and they read nothing beyond a tile that ends there."""
    (obstacle,) = prepared(exported(Swin(mask="last row", shifts=(0,)))).trace().obstacles
    assert "a constant that varies along" in obstacle.reason


def test_attention_in_a_grid_is_an_obstacle():
    """Its parts grow with the image: pixels far apart meet."""
    (obstacle,) = prepared(exported(MaxViT(grid=True))).trace().obstacles
    assert "as attention in a grid" in obstacle.reason


@pytest.mark.slow
def test_the_check_before_use_agrees():
    assert check_claim(prepared(exported(Swin()))).tiles == ""


def shift(start: int, end: int, last: int) -> onnx.ModelProto:
    """(1, 1, n, 2): rows ``start`` to ``last``, and behind them those from the first to ``end``."""
    nodes = [
        helper.make_node("Slice", ["image", "start", "last", "axis"], ["rest"]),
        helper.make_node("Slice", ["image", "zero", "end", "axis"], ["moved"]),
        helper.make_node("Concat", ["rest", "moved"], ["out"], axis=2),
    ]
    values = {"start": start, "end": end, "last": last, "zero": 0, "axis": 2}
    constants = [numpy_helper.from_array(np.array([number]), name) for name, number in values.items()]
    shape = [1, 1, "rows", 2]
    graph = helper.make_graph(
        nodes,
        "shift",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 1, "moved_rows", 2])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("start", [3, -2])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 9])
def test_a_shift_written_as_one_operator_moves_the_same_rows(start, rows):
    """Also where the map has fewer rows than it is shifted by."""
    proto = shift(start, start, 2**63 - 1)
    network = prepare_network(onnx.load_from_string(proto.SerializeToString()), name="shift")
    assert network.result.producer().op_type == "Gather"
    image = np.random.default_rng(rows).random((rows, 2, 1), np.float32)
    written = ir.to_proto(network.model).SerializeToString()
    assert np.array_equal(given_pass(written, image), given_pass(proto.SerializeToString(), image))


@pytest.mark.parametrize(("start", "end", "last"), [(3, 2, 2**63 - 1), (3, 3, 8), (3, 3, -1)])
def test_parts_that_are_no_shift_stay(start, end, last):
    network = prepare_network(shift(start, end, last), name="parts")
    assert network.result.producer().op_type == "Concat"
