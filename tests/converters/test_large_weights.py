"""Weights are read once, looked through in parts, and left outside of strip graphs."""

from __future__ import annotations

import resource
import subprocess
import sys
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile_converters.graphs import interval, weighted_ranges
from exactile_converters.graphs.interval import of_array
from exactile_converters.graphs.io import Normalization, ResultWish, wrap
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.strips.build import build_strips
from exactile_converters.strips.outside import SHARED_FROM_BYTES, share_weights
from tests.converters.test_graph_io import model_of, weights

WISH = ResultWish(kind="labels", map_dtype=None, threshold=None, activation=None)


@cache
def plain(channels: int = 32) -> bytes:
    nodes = [
        ("Conv", ["image", "w0"], ["a"], {"pads": [1] * 4}),
        ("Conv", ["a", "w1"], ["b"], {"pads": [1] * 4}),
        ("Conv", ["b", "w2"], ["out"], {}),
    ]
    constants = {"w0": weights(channels, 3, 3, 3), "w1": weights(channels, channels, 3, 3)}
    return model_of(nodes, {**constants, "w2": weights(3, channels, 1, 1)})


def strips_of(network):
    traced = network.trace()
    wrapped = wrap(network, traced.features, image_dtype="uint8", normalization=Normalization(), wish=WISH)
    return build_strips(wrapped, traced.sizes, traced.geometry.y.remainder)


def test_strip_graphs_share_the_networks_own_weights():
    network = prepare_network(onnx.load_from_string(plain()), name="plain")
    own = network.model.graph.initializers["w1"].const_value.numpy()
    strips = strips_of(network)
    assert np.shares_memory(strips.weights["w1"], own)
    assert all(own.tobytes() not in graph.graph for graph in strips.graphs.values())
    assert strips.weights.keys() >= {"w0", "w1"}
    outside = {
        tensor.name
        for graph in strips.graphs.values()
        for tensor in onnx.load_from_string(graph.graph).graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    }
    assert outside == strips.weights.keys()


def test_what_is_left_outside_is_what_would_be_moved_out(monkeypatch):
    """The same graphs, byte for byte, and the same weights, as where values are put in and taken out again."""
    early = strips_of(prepare_network(onnx.load_from_string(plain()), name="plain"))
    monkeypatch.setattr("exactile_converters.strips.build.large_constants", lambda _graph: {})
    late = strips_of(prepare_network(onnx.load_from_string(plain()), name="plain"))
    assert {role: graph.graph for role, graph in early.graphs.items()} == {
        role: graph.graph for role, graph in late.graphs.items()
    }
    assert list(early.weights) == list(late.weights)
    assert all(np.array_equal(array, late.weights[name]) for name, array in early.weights.items())


def test_small_constants_stay_in_the_graph():
    small = np.zeros(SHARED_FROM_BYTES // 4 - 1, np.float32)
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(small, "small")])
    kept = {}
    assert share_weights(helper.make_model(graph), kept) == {}
    assert kept == {}


@pytest.mark.parametrize("at", [None, 0, 700, 999])
def test_the_range_of_a_constant_is_found_in_parts(monkeypatch, at):
    array = np.random.default_rng(0).integers(-500, 500, 1000).astype(np.float32)
    if at is not None:
        array[at] = np.nan
    at_once = of_array(array)
    monkeypatch.setattr(interval, "BLOCK", 96)
    assert of_array(array) == at_once
    assert of_array(np.full(200, np.nan, np.float32)) == interval.UNKNOWN
    assert at_once.nan == (at is not None)
    assert at_once.whole


def test_weights_are_added_up_channel_by_channel_in_parts(monkeypatch):
    """To the same last digit: a range decides by it whether values are probabilities."""
    array = np.random.default_rng(0).standard_normal((37, 19, 3, 3)).astype(np.float32)
    at_once = weighted_ranges._split(array.astype(np.float64), (1, 2, 3))
    monkeypatch.setattr(weighted_ranges, "BLOCK", 4 * 19 * 9)
    for one, other in zip(weighted_ranges._split_rows(array), at_once, strict=True):
        assert np.array_equal(one, other)


def deep(features: int, depth: int = 4) -> bytes:
    """A U-Net of random weights: with 64 features, 124 MB."""
    generator, nodes, constants = np.random.default_rng(0), [], {}

    def weight(*shape: int) -> str:
        name = f"w{len(constants)}"
        constants[name] = generator.standard_normal(shape, np.float32) * np.float32(0.05)
        return name

    def add(op: str, *inputs: str, **attributes) -> str:
        nodes.append((op, list(inputs), [f"t{len(nodes)}"], attributes))
        return nodes[-1][2][0]

    def double(value: str, given: int, made: int) -> str:
        for channels in (given, made):
            value = add("Conv", value, weight(made, channels, 3, 3), weight(made), pads=[1] * 4)
            value = add("Relu", value)
        return value

    value, given, skips = "image", 3, []
    for level in range(depth):
        value, given = double(value, given, features << level), features << level
        skips.append(value)
        value = add("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    value = double(value, given, features << depth)
    for level in reversed(range(depth)):
        made = features << level
        value = add("ConvTranspose", value, weight(2 * made, made, 2, 2), weight(made), strides=[2, 2])
        value = double(add("Concat", skips[level], value, axis=1), 2 * made, made)
    nodes.append(("Conv", [value, weight(4, features, 1, 1)], ["out"], {}))
    return model_of(nodes, constants)


@pytest.mark.slow
def test_a_network_of_100_mb_is_inspected_within_1_gib_and_some_seconds(tmp_path):
    path = tmp_path / "unet.onnx"
    path.write_bytes(deep(64))
    assert path.stat().st_size > 100e6
    script = (
        "import sys; from exactile.cli.main import app; from exactile.machine.memory import peak_resident_bytes\n"
        "try: app(sys.argv[1:])\n"
        "finally: print(peak_resident_bytes(), file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", script, "inspect", str(path)], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert int(done.stderr.split()[-1]) <= 1 << 30
    # Five seconds on a machine that does nothing else; a busy one has twice that.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
