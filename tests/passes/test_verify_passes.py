"""``verify`` of networks that take statistics of the whole image, and its pass in float64."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from typer.testing import CliRunner

from exactile.cli.main import app
from exactile.kept_maps.store import MapStore
from exactile.passes.merge import Merged
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization
from exactile_converters.passes.fixed import with_fixed_statistics
from exactile_converters.plain_runs.subject import private_copy, value_named
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.verify import double, verify
from exactile_converters.verify.comparison import against_double
from exactile_converters.verify.double import DoublePass, NoDoubleError
from exactile_converters.verify.double_kernels import FASTER
from exactile_converters.verify.in_passes import prepared
from tests.passes.test_reductions import exported, module_of
from tests.support.global_nets import GlobalNet, chain


def network_of(model: bytes):
    return prepare_network(onnx.load_from_string(model), name="global.onnx")


def double_of(model: bytes) -> DoublePass:
    network = network_of(model)
    local = with_fixed_statistics(network)
    copy, traced = private_copy(network), local.trace()
    feature = traced.features[local.result.name]
    return DoublePass(copy, value_named(copy, network.result.name), feature, traced)


def test_every_way_is_compared_with_one_pass_and_with_float64():
    """Two sizes along both axes, two grids of tiles, maps kept and not, strips."""
    found = verify(network_of(chain("instance_norm", times=2)))
    assert found.holds
    assert found.passes.no_float64 == ""
    assert (found.passes.levels, found.passes.statistics) == (2, 2)
    tiles = [way for way in found.passes.ways if way.plan == "tile"]
    assert {way.kept_maps for way in tiles} == {True, False}
    assert len({way.pixels.size for way in tiles}) == 4
    assert len({(way.pixels.size, way.tile) for way in tiles}) > 4
    assert all(way.tiles > 1 and max(way.pass_tiles) > 1 for way in tiles)
    assert any(way.plan == "strip" for way in found.passes.ways)
    for way in (found.comparison, *found.passes.ways):
        assert 0 < way.float64.one_pass_max_abs < 1e-5
        assert 0 < way.float64.max_abs <= way.float64.allowed < 3e-5


def test_the_users_image_is_compared_and_swept():
    image = np.random.default_rng(0).integers(0, 256, (71, 66, 1), dtype=np.uint8)
    found = verify(
        network_of(chain("excitation")),
        source=ArraySource(image),
        normalization=Normalization(scale=(255.0,)),
        tile=(24, 28),
        with_sweep=True,
    )
    assert found.holds
    assert found.comparison.pixels.size == (71, 66)
    assert found.comparison.tiles > 4
    assert found.passes.fixed.holds
    assert found.sweep.halos[0].rmse > 0
    assert found.sweep.halos[-1].different_labels == 0


def drop_a_zone(monkeypatch) -> None:
    add, calls = Merged.add, []

    def dropping(self, partials):
        calls.append(partials)
        if len(calls) % 3:
            add(self, partials)

    monkeypatch.setattr(Merged, "add", dropping)


def round_statistics(monkeypatch) -> None:
    """To sixteen bits or so: less than the tolerance of one pass shows."""
    values = Merged.values

    def rounded(self):
        return {name: array * np.float32(1 + 1e-5) for name, array in values(self).items()}

    monkeypatch.setattr(Merged, "values", rounded)


def spoil_kept_maps(monkeypatch) -> None:
    read = MapStore.read

    def shifted(self, maps, tile, buffers):
        return {name: np.roll(part, 1, axis=-1) for name, part in read(self, maps, tile, buffers).items()}

    monkeypatch.setattr(MapStore, "read", shifted)


@pytest.mark.parametrize("spoil", [drop_a_zone, round_statistics, spoil_kept_maps])
def test_wrong_passes_fail(monkeypatch, spoil):
    spoil(monkeypatch)
    ways, _ = prepared(network_of(chain("instance_norm", times=2)), None, Normalization(), None, 0, 1 << 40)
    found = [ways.tried(way) for way in ways.in_tiles(0)]
    failed = {way.kept_maps for way in found if not way.holds}
    assert failed == ({True} if spoil is spoil_kept_maps else {True, False})


def test_the_command_says_it_to_people_and_machines(tmp_path, monkeypatch):
    (tmp_path / "net.onnx").write_bytes(chain("excitation"))
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "net.onnx"), "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)["passes"]
    assert found["holds"] is True
    assert all(way["holds"] and way["against_float64"]["holds"] for way in found["ways"])
    drop_a_zone(monkeypatch)
    failed = CliRunner().invoke(app, ["verify", str(tmp_path / "net.onnx")])
    assert failed.exit_code == 1
    assert "2 statistics of the whole image, in 2 passes" in failed.stdout
    assert failed.stdout.rstrip().endswith("THE CLAIM FAILS")


def test_without_a_pass_in_float64_one_pass_is_the_judge(monkeypatch):
    monkeypatch.setattr(double, "MOST_MACS", 0)
    ways, _ = prepared(network_of(chain("excitation")), None, Normalization(), None, 0, 1 << 40)
    found = ways.tried(next(ways.in_tiles(0)))
    assert found.holds
    assert found.float64 is None
    assert "too long in float64" in ways.no_float64


def test_an_operator_without_float64_is_named():
    net = GlobalNet(seed=1)
    value = net.layer("image", 1)
    pooled = net.add("Mul", value, net.add("GlobalAveragePool", value))
    model = onnx.load_from_string(net.model(net.layer(pooled, 4, 2)))
    relu = next(node for node in model.graph.node if node.op_type == "Mul")
    made = helper.make_node("QuickGelu", [relu.output[0]], ["gelu"], domain="com.microsoft")
    for node in model.graph.node:
        node.input[:] = ["gelu" if name == relu.output[0] else name for name in node.input]
    model.graph.node.insert(list(model.graph.node).index(relu) + 1, made)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(NoDoubleError, match="QuickGelu"):
        double_of(model.SerializeToString())


@pytest.mark.parametrize("name", ["nnunet_plain", "group_norm_of_one"])
def test_a_pass_in_float64_is_that_of_the_module(name):
    """PyTorch computes the same module in double precision, where ONNX's epsilon is a float32."""
    found = double_of(exported(name, "torchscript"))
    image = np.random.default_rng(2).random((36, 52, 3)).astype(np.float32)
    with torch.no_grad():
        tensor = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float64))
        expected = module_of(name).double()(tensor)[0].numpy()
    np.testing.assert_allclose(found.run(image), expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_a_pass_that_computes_something_else_is_no_judge():
    """What is 1 apart is no rounding, whatever is compared with it."""
    whole = np.random.default_rng(0).normal(size=(2, 9, 9)).astype(np.float32)
    with pytest.raises(NoDoubleError, match="no rounding"):
        against_double(whole, whole, whole.astype(np.float64) + 1, probability=False)
    near = against_double(whole + np.float32(1e-3), whole, whole.astype(np.float64), probability=False)
    assert not near.holds
    labels = replace(near, max_abs=0.0, other_labels=1)
    assert not labels.holds


RNG = np.random.default_rng(0)
X = RNG.normal(size=(1, 8, 21, 17))
KERNELS = [
    ("Conv", [X, RNG.normal(size=(6, 8, 3, 3)), RNG.normal(size=6)],
     {"pads": [1, 2, 0, 1], "strides": [2, 1], "dilations": [1, 2]}),
    ("Conv", [X, RNG.normal(size=(8, 1, 5, 5))], {"pads": [2] * 4, "group": 8}),
    ("Conv", [X, RNG.normal(size=(6, 4, 3, 3))], {"auto_pad": "SAME_LOWER", "group": 2, "strides": [2, 2]}),
    ("ConvTranspose", [X, RNG.normal(size=(8, 5, 3, 3)), RNG.normal(size=5)],
     {"pads": [1, 0, 1, 1], "strides": [2, 2], "output_padding": [1, 1]}),
    ("ConvTranspose", [X, RNG.normal(size=(8, 3, 2, 2))], {"strides": [2, 3], "group": 2}),
    ("ConvTranspose", [X, RNG.normal(size=(8, 1, 4, 4))], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("MaxPool", [X], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "count_include_pad": 1}),
    ("AveragePool", [X], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 0, 1], "ceil_mode": 1}),
    ("AveragePool", [X],
     {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 0, 1], "ceil_mode": 1, "count_include_pad": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "inputs", "attributes"), KERNELS)
def test_float64_kernels_compute_what_onnx_runtime_does(operator, inputs, attributes):
    def model(kind: int) -> onnx.ModelProto:
        names = [f"i{index}" for index in range(len(inputs))]
        given = [helper.make_tensor_value_info(name, kind, one.shape) for name, one in zip(names, inputs, strict=True)]
        node = helper.make_node(operator, names, ["out"], **attributes)
        graph = helper.make_graph([node], "one", given, [helper.make_tensor_value_info("out", kind, None)])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)

    feed = {f"i{index}": one for index, one in enumerate(inputs)}
    (found,) = ReferenceEvaluator(model(TensorProto.DOUBLE), new_ops=list(FASTER)).run(None, feed)
    session = onnxruntime.InferenceSession(model(TensorProto.FLOAT).SerializeToString())
    (expected,) = session.run(None, {name: one.astype(np.float32) for name, one in feed.items()})
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
