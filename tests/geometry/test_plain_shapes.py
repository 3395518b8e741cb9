"""Shapes at many sizes of the image: rules tell what ONNX's shape inference tells, and are asked in its place."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, shape_inference

from exactile_converters.geometry import probe as probe_module
from exactile_converters.geometry.feature_maps import image_shape
from exactile_converters.geometry.plain_shapes import BROADCAST, UNCHANGED, plain_shape
from exactile_converters.geometry.probe import Probe
from exactile_converters.prepare.from_onnx import prepare_network
from tests.converters.test_graph_io import channels_last, model_of, weights
from tests.support.nets import NETS, onnx_bytes


def joined() -> bytes:
    """Branches that fit each other at even sizes alone."""
    nodes = [
        ("MaxPool", ["image"], ["small"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("ConvTranspose", ["small", "w"], ["large"], {"strides": [2, 2]}),
        ("Concat", ["image", "large"], ["both"], {"axis": 1}),
        ("Sigmoid", ["large"], ["gate"], {}),
        ("Mul", ["large", "gate"], ["gated"], {}),
        ("Add", ["image", "gated"], ["sum"], {}),
        ("Transpose", ["sum"], ["turned"], {"perm": [0, 2, 3, 1]}),
        ("Transpose", ["turned"], ["back"], {"perm": [0, 3, 1, 2]}),
        ("SpaceToDepth", ["both"], ["packed"], {"blocksize": 2}),
        ("SpaceToDepth", ["back"], ["other"], {"blocksize": 2}),
        ("Concat", ["packed", "other"], ["out"], {"axis": 1}),
    ]
    return model_of(nodes, {"w": weights(3, 3, 2, 2)})


def by_arithmetic() -> bytes:
    """Sizes computed from sizes, as exporters write them, and maps resized to them."""
    numbers = {"one": [1], "two": [2], "first": [0], "second": [1], "third": [2], "fourth": [3], "many": [2**31]}
    constants = {name: np.array(value, np.int64) for name, value in numbers.items()}
    nodes = [
        ("Shape", ["image"], ["shape"], {}),
        ("Gather", ["shape", "third"], ["rows"], {"axis": 0}),
        ("Slice", ["shape", "fourth", "many", "first"], ["columns"], {}),
        ("Div", ["rows", "two"], ["half"], {}),
        ("Mul", ["half", "two"], ["even"], {}),
        ("Sub", ["rows", "even"], ["odd"], {}),
        ("Add", ["half", "odd"], ["more"], {}),
        ("Cast", ["more"], ["real"], {"to": TensorProto.FLOAT}),
        ("Floor", ["real"], ["whole"], {}),
        ("Cast", ["whole"], ["number"], {"to": TensorProto.INT64}),
        ("Squeeze", ["number", "first"], ["scalar"], {}),
        ("Unsqueeze", ["scalar", "first"], ["vector"], {}),
        ("Gather", ["shape", "first"], ["batch"], {"axis": 0}),
        ("Gather", ["shape", "second"], ["channels"], {"axis": 0}),
        ("Concat", ["batch", "channels", "vector", "columns"], ["sizes"], {"axis": 0}),
        ("Resize", ["image", "", "", "sizes"], ["small"], {"mode": "nearest"}),
        ("Resize", ["image", "", "scales"], ["smaller"], {"mode": "nearest"}),
        ("Conv", ["small", "w"], ["a"], {}),
        ("Resize", ["smaller", "", "", "sizes"], ["b"], {"mode": "linear"}),
        ("Add", ["a", "b"], ["out"], {}),
    ]
    constants["scales"] = np.array([1, 1, 0.5, 0.7], np.float32)
    return model_of(nodes, {**constants, "w": weights(3, 3, 1, 1)})


def probed(network, size, memory):
    shape = image_shape(network.labels, network.channels, size)
    return Probe(network.model, network.image.name, shape, memory=memory)


MODELS = {
    **{name: lambda name=name: onnx_bytes(name) for name in NETS},
    "joined": joined,
    "arithmetic": by_arithmetic,
    "last": channels_last,
}


@pytest.mark.parametrize(
    "name", [name if name in {"unet_d2", "resnet_unet", "valid", "joined", "arithmetic", "last"} else
             pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)  # fmt: skip
def test_probes_that_share_a_memory_find_what_others_find(name):
    """Facts and failures alike, at sizes that suit the network and at such as do not."""
    network = prepare_network(onnx.load_from_string(MODELS[name]()), name=name)
    memory = {}
    for size in ((64, 96), (96, 64), (65, 96), (97, 131), (33, 64), (8, 8), (128, 64)):
        found, alone = probed(network, size, memory), probed(network, size, None)
        assert found.failures == alone.failures
        assert found.facts.keys() == alone.facts.keys()
        for key, fact in alone.facts.items():
            other = found.facts[key]
            assert (other.dtype, other.shape) == (fact.dtype, fact.shape)
            assert (other.value is None) == (fact.value is None)
            assert fact.value is None or np.array_equal(other.value, fact.value)


def test_onnx_is_asked_once_for_each_node(monkeypatch):
    asked = []
    infer = shape_inference.infer_node_outputs

    def counting(schema, node, *arguments, **options):
        asked.append(node.op_type)
        return infer(schema, node, *arguments, **options)

    monkeypatch.setattr(probe_module.shape_inference, "infer_node_outputs", counting)
    network = prepare_network(onnx.load_from_string(joined()), name="joined")
    memory = {}
    probed(network, (64, 96), memory)
    assert len(asked) == len(list(network.model.graph))
    del asked[:]
    assert not probed(network, (66, 90), memory).failures
    assert asked == []
    refused = probed(network, (65, 96), memory)
    assert {node.op_type for node in refused.failures} == {"Concat", "Add"}
    assert asked == ["Concat", "Add"]


def test_sizes_computed_from_sizes_are_computed_without_onnx(monkeypatch):
    def forbidden(*_arguments, **_options):
        raise AssertionError("asked")

    network = prepare_network(onnx.load_from_string(by_arithmetic()), name="arithmetic")
    memory = {}
    probed(network, (64, 96), memory)
    monkeypatch.setattr(probe_module.shape_inference, "infer_node_outputs", forbidden)
    monkeypatch.setattr(probe_module, "ReferenceEvaluator", forbidden)
    found = probed(network, (67, 131), memory)
    assert found.facts["sizes"].value.tolist() == [1, 3, 34, 131]
    assert found.facts["out"].shape == (1, 3, 34, 131)
    assert found.facts["smaller"].shape == (1, 3, 33, 91)


def made(op: str, shapes: list[tuple[int, ...]], dtype=onnx.TensorProto.FLOAT) -> tuple[int, ...]:
    """By ONNX."""
    names = [f"i{index}" for index in range(len(shapes))]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, names, ["out"])],
        "g",
        [onnx.helper.make_tensor_value_info(name, dtype, shape) for name, shape in zip(names, shapes, strict=True)],
        [onnx.helper.make_empty_tensor_value_info("out")],
    )
    opset = onnx.helper.make_opsetid("", 20)
    found = shape_inference.infer_shapes(onnx.helper.make_model(graph, opset_imports=[opset]), strict_mode=True)
    return tuple(dim.dim_value for dim in found.graph.output[0].type.tensor_type.shape.dim)


@pytest.mark.parametrize("op", BROADCAST)
@pytest.mark.parametrize("shapes", [[(2, 3, 5, 7), (3, 1, 1)], [(1, 3, 5, 7), (2, 1, 5, 1)], [(4,), (2, 1)]])
def test_broadcasting_is_that_of_onnx(op, shapes):
    logical = op in {"And", "Or"}
    if op == "Where":
        pytest.skip("its condition is of another type")
    node = prepared_node(op, len(shapes))
    dtype = onnx.TensorProto.BOOL if logical else onnx.TensorProto.FLOAT
    assert plain_shape(node, shapes) == made(op, shapes, dtype)
    assert plain_shape(node, [(2, 3), (4, 3)]) is None


def prepared_node(op: str, inputs: int):
    import onnx_ir as ir

    return ir.node(op, [ir.Value(name=f"i{index}") for index in range(inputs)])


def test_what_rules_do_not_know_is_left_to_onnx():
    assert plain_shape(prepared_node("Resize", 1), [(1, 3, 8, 8)]) is None
    assert plain_shape(prepared_node("Relu", 1), [None]) is None
    assert {plain_shape(prepared_node(op, 1), [(1, 3, 8, 9)]) for op in UNCHANGED} == {(1, 3, 8, 9)}
