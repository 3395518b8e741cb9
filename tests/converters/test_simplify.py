"""A simplified graph computes what the graph did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.errors import ModelError
from exactile_converters.bundles import simplify_checked as checked
from exactile_converters.cleanup.simplify import simplify
from exactile_converters.networks.network import Network
from exactile_converters.prepare.from_onnx import load_network, prepare_network
from tests.converters.test_exports import FILES, HERE, TILEABLE, fixed_side, kind


def run(model: bytes, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model)
    (entry,) = session.get_inputs()
    return session.run(None, {entry.name: image})[0]


def simplified(network: Network) -> bytes:
    simplify(network)
    return ir.to_proto(network.model).SerializeToString()


def cut_and_swapped(opset: int, channels: int, at: int) -> bytes:
    """Channels are cut in two by slices of the last axis, the second of which comes first, and joined again."""
    random = np.random.default_rng(0)
    into, out = (
        random.integers(-2, 3, shape).astype(np.float32) for shape in ((channels, 3, 1, 1), (4, channels, 1, 1))
    )
    numbers = {"zero": 0, "at": at, "end": channels, "axis": 3}
    initializers = [numpy_helper.from_array(np.array([n], np.int64), name) for name, n in numbers.items()]
    nodes = [
        helper.make_node("Conv", ["image", "into"], ["maps"]),
        helper.make_node("Transpose", ["maps"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Slice", ["last", "at", "end", "axis"], ["second"]),
        helper.make_node("Slice", ["last", "zero", "at", "axis"], ["first"]),
        helper.make_node("Relu", ["second"], ["changed"]),
        helper.make_node("Concat", ["changed", "first"], ["joined"], axis=3),
        helper.make_node("Transpose", ["joined"], ["back"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["back", "out"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "cut_and_swapped",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4, "h", "w"])],
        [*initializers, numpy_helper.from_array(into, "into"), numpy_helper.from_array(out, "out")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize(("channels", "at"), [(4, 2), (5, 2), (5, 3)])
def test_slices_stay_where_they_cut(opset, channels, at):
    model = cut_and_swapped(opset, channels, at)
    image = np.random.default_rng(1).integers(-4, 5, (1, 3, 8, 9)).astype(np.float32)
    found = run(simplified(prepare_network(onnx.load_from_string(model), name="cut")), image)
    assert np.array_equal(found, run(model, image))


@pytest.mark.parametrize("name", [name for name in FILES if kind(name) in TILEABLE])
def test_exports_compute_what_they_did(name):
    path: Path = HERE / name
    network = load_network(path)
    side = fixed_side(name) or 64
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3)).astype(np.float32)
    image = image if network.labels[3] == "c" else image.transpose(0, 3, 1, 2)
    expected = run(path.read_bytes(), image)
    assert np.abs(run(simplified(network), image) - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


def test_a_graph_that_simplifying_changed_is_refused(monkeypatch):
    def wrong(network: Network) -> None:
        simplify(network)
        relu = next(node for node in network.model.graph if node.op_type == "Relu")
        relu.outputs[0].replace_all_uses_with(relu.inputs[0])

    network = prepare_network(onnx.load_from_string(cut_and_swapped(18, 5, 2)), name="cut")
    checked.simplify_checked(network, network.trace())
    monkeypatch.setattr(checked, "simplify", wrong)
    network = prepare_network(onnx.load_from_string(cut_and_swapped(18, 5, 2)), name="cut")
    with pytest.raises(ModelError, match="changed its result"):
        checked.simplify_checked(network, network.trace())
