"""Strips of networks of fewer bits are one pass of plain ONNX Runtime over the same graph, bit for bit."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from exactile.contract import DeployedModel
from exactile.machine.architecture import GPU, architecture
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.inspection import inspect_network
from exactile_converters.prepare.from_onnx import prepare_network
from tests.geometry.test_random_quantised import random_network
from tests.support.optimized_models import ALL, N, conv, in_pairs, many_operators, network, random, without_dead_nodes

IMAGE = np.random.default_rng(2).standard_normal((97, 83, 3)).astype(np.float32)
"""No multiple of a stride."""

EVEN = {"pads": [1] * 4, "output_padding": [1, 1]}
UNEVEN = {"pads": [1, 1, 0, 0]}


def up_and_down(mode: str, **padding: list[int]) -> onnx.ModelProto:
    """Pooling, a transposed convolution that overlaps, resampling, and two skip connections."""
    nodes = [
        N("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        conv("p", "c0", "k0"),
        N("Relu", ["c0"], ["c"]),
        N("AveragePool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        conv("d", "e", "k1"),
        N("ConvTranspose", ["e", "t"], ["f"], strides=[2, 2], **(padding or EVEN)),
        N("Concat", ["f", "c"], ["g"], axis=1),
        N("Resize", ["g", "", "twice"], ["h"], mode=mode),
        N("Concat", ["h", "a"], ["i"], axis=1),
        conv("i", "j", "k2"),
        N("Sigmoid", ["j"], ["b"]),
    ]
    constants = [
        *(random("k0", 4, 4, 3, 3), random("k1", 4, 4, 3, 3), random("t", 4, 4, 3, 3), random("k2", 4, 12, 3, 3)),
        numpy_helper.from_array(np.float32([1, 1, 2, 2]), "twice"),
    ]
    return network(nodes, constants)


NETWORKS = {
    "many operators": many_operators,
    "nearest": lambda: up_and_down("nearest"),
    "bilinear": lambda: up_and_down("linear"),
    "padded unevenly": lambda: up_and_down("linear", **UNEVEN),
    **{f"random {seed}": lambda seed=seed: without_dead_nodes(random_network(seed)) for seed in range(4)},
}


def in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    return convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)


def one_pass(model: onnx.ModelProto, image: np.ndarray, geometry) -> np.ndarray:
    """Plain ONNX Runtime, over the image reflected up to a size that the network takes."""
    size = tuple(axis.accepted_size(n) for axis, n in zip((geometry.y, geometry.x), image.shape, strict=False))
    pads = [(0, to - n) for to, n in zip(size, image.shape, strict=False)]
    padded = np.pad(image, [*pads, (0, 0)], mode="reflect")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    for name, length in zip("nhw", (1, *size), strict=True):
        options.add_free_dimension_override_by_name(name, length)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": np.ascontiguousarray(padded.transpose(2, 0, 1)[None])})
    return result[0][:, : image.shape[0], : image.shape[1]]


def deployed(model: onnx.ModelProto) -> DeployedModel:
    return deploy(prepare_network(model, name="net"), image_dtype="float32", output="raw")


def check(model: onnx.ModelProto, reference: onnx.ModelProto | None = None) -> None:
    made = deployed(model)
    assert made.strips is not None, made.no_strips_reason
    geometry = made.contract.geometry
    of_size = geometry.of_size(IMAGE.shape[:2])
    expected = one_pass(reference or model, IMAGE, of_size)
    stride = geometry.y.stride
    rows = -(-max(8, made.strips.startup_rows) // stride) * stride
    wide, narrow = (of_size.x.accepted_size(px) for px in (IMAGE.shape[1], IMAGE.shape[1] * 2 // 3))
    with closing(Session(made, memory_bytes=1 << 40, threads=1)) as session:
        for plan, tile in (("whole", None), ("strip", (rows, wide)), ("strip", (rows, narrow))):
            sink = ArraySink()
            session.segment(ArraySource(IMAGE), sink, plan=plan, tile=tile)
            assert np.array_equal(sink.result, expected), (plan, tile)


@pytest.mark.parametrize("name", NETWORKS)
def test_strips_of_quantised_pairs_are_one_pass(tmp_path, name):
    check(in_pairs(NETWORKS[name](), tmp_path))


@pytest.mark.parametrize("name", NETWORKS)
def test_strips_of_half_precision_are_one_pass(name):
    """With a transposed convolution that pads one side more, of the graph that GPUs take: padded alike, and cut."""
    model = in_half_precision(NETWORKS[name]())
    reference = onnx.ModelProto()
    reference.CopyFrom(model)
    for node in list(reference.graph.node):
        if node.op_type == "ConvTranspose" and helper.get_node_attr_value(node, "pads") == UNEVEN["pads"]:
            cut_behind(reference.graph, node)
    check(model, reference)


def cut_behind(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """No padding after, one pixel before by a Slice."""
    target, node.output[0] = node.output[0], "uncut"
    next(attribute for attribute in node.attribute if attribute.name == "pads").CopyFrom(
        helper.make_attribute("pads", [0] * 4)
    )
    lists = {"from": [1, 1], "to": [1 << 40] * 2, "of": [2, 3]}
    graph.initializer.extend(numpy_helper.from_array(np.int64(value), name) for name, value in lists.items())
    graph.node.insert(list(graph.node).index(node) + 1, N("Slice", ["uncut", *lists], [target]))


def test_strips_compute_with_integers_where_one_pass_does(tmp_path):
    """Counted in the graphs that ONNX Runtime runs: no convolution falls back to floating point at a seam."""
    model = in_pairs(up_and_down("nearest"), tmp_path)
    strips = deployed(model).strips
    whole = integer_kernels(model.SerializeToString(), {}, tmp_path)
    assert whole["QLinearConv"] >= 3
    for graph in strips.graphs.values():
        assert integer_kernels(graph.graph, strips.weights, tmp_path)["QLinearConv"] == whole["QLinearConv"]
    assert sum(carry.dtype == "uint8" for carry in strips.carries) > len(strips.carries) / 2


def integer_kernels(graph: bytes, weights: dict, folder) -> Counter:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ALL
    options.optimized_model_filepath = str(folder / "run.onnx")
    if weights:
        options.add_external_initializers(
            list(weights), [ort.OrtValue.ortvalue_from_numpy(a) for a in weights.values()]
        )
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "run.onnx").graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300, 360))
def test_strips_of_many_random_networks_are_one_pass(tmp_path, seed):
    model = without_dead_nodes(random_network(seed))
    check(in_pairs(model, tmp_path))
    check(in_half_precision(model))


def test_other_processors_do_without_these_strips(tmp_path):
    """A GPU computes pairs in floating point, and half precision in half precision: tiles are one pass there."""
    made = deployed(in_pairs(up_and_down("nearest"), tmp_path))
    assert made.strips.processor == architecture()
    assert made.on(architecture()) is made
    for other in (GPU, "another"):
        found = made.on(other)
        assert found.strips is None
        assert f"its strips hold the arithmetic of {architecture()} CPUs" in found.no_strips_reason
    full = deployed(up_and_down("nearest"))
    assert full.on(GPU) is full


def test_a_session_on_another_processor_takes_tiles(tmp_path):
    made = deployed(in_pairs(many_operators(), tmp_path))
    made = replace(made, strips=replace(made.strips, processor="another"))
    with closing(Session(made, memory_bytes=1 << 40, threads=1)) as session:
        summary = session.segment(ArraySource(IMAGE), ArraySink())
    assert summary.plan != "strip"


def test_inspect_tells_the_strips(tmp_path):
    found = inspect_network(prepare_network(in_pairs(many_operators(), tmp_path), name="net"))
    assert found.strips is not None
    assert found.no_strips_reason == ""
