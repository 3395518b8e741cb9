"""Transposed convolutions pad both sides alike in every graph, and give what the network gives, bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.cuda_kernels.symmetric_padding import symmetric
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.converters.test_graph_io import model_of, weights

W0, W1, W2 = weights(4, 3, 3, 3), weights(4, 4, 3, 3), weights(2, 4, 3, 3)
PADDINGS = {
    "at the end": {"strides": [2, 2], "pads": [0, 0, 1, 1]},
    "at the start": {"strides": [2, 2], "pads": [1, 1, 0, 0]},
    "of columns": {"strides": [2, 2], "pads": [1, 0, 1, 1], "output_padding": [1, 0]},
    "automatic": {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    "beyond the kernel": {"strides": [2, 2], "pads": [0, 2, 2, 0], "output_padding": [1, 1]},
}


def model(attributes) -> onnx.ModelProto:
    nodes = [
        ("Conv", ["image", "w0"], ["a"], {"pads": [1] * 4, "strides": [2, 2]}),
        ("Relu", ["a"], ["b"], {}),
        ("ConvTranspose", ["b", "w1"], ["c"], attributes),
        ("Conv", ["c", "w2"], ["out"], {"pads": [1] * 4}),
    ]
    return onnx.load_from_string(model_of(nodes, {"w0": W0, "w1": W1, "w2": W2}))


@pytest.mark.parametrize("plan", ["whole", "tile", "strip"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_every_plan_is_one_pass_of_the_network(padding, plan):
    net = model(PADDINGS[padding])
    deployed = deploy(prepare_network(net, name="net"), image_dtype="float32", output="raw")
    axes = deployed.contract.geometry
    size = axes.y.accepted_size(60), axes.x.accepted_size(44)
    image = np.random.default_rng(1).integers(0, 9, (*size, 3)).astype(np.float32)
    session = ort.InferenceSession(net.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": np.ascontiguousarray(image.transpose(2, 0, 1)[None])})
    tile = axes.y.accepted_size(24), axes.x.accepted_size(24)
    options = {"whole": {}, "tile": {"tile": tile}, "strip": {"tile": (axes.y.accepted_size(12), size[1])}}[plan]
    sink = ArraySink()
    summary = Session(deployed, memory_bytes=8 << 30).segment(ArraySource(image), sink, plan=plan, **options)
    assert (summary.tiles == 1) == (plan == "whole")
    np.testing.assert_array_equal(sink.result, expected[0])


@pytest.mark.parametrize("padding", PADDINGS)
def test_no_graph_has_other_padding(padding):
    deployed = deploy(prepare_network(model(PADDINGS[padding]), name="net"), image_dtype="uint8")
    assert deployed.strips is not None
    graphs = [deployed.graph, *(strip.graph for strip in deployed.strips.graphs.values())]
    transposed = [
        {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        for graph in graphs
        for node in onnx.load_from_string(graph).graph.node
        if node.op_type == "ConvTranspose"
    ]
    assert len(transposed) == len(graphs)
    for attributes in transposed:
        assert attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        assert attributes["pads"][:2] == attributes["pads"][2:]


def test_padding_that_is_alike_stays():
    assert symmetric([(1, 1), (0, 0)]) == ([(1, 1), (0, 0)], None)
