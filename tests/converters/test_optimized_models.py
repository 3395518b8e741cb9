"""Models that ONNX Runtime has optimised or quantised give what it gives for them, bit for bit, in tiles and strips."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from benchmarks.memory_model import measure
from exactile.errors import ModelError, OptionError
from exactile.plan.engine_memory import ACTIVATION_MARGIN
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy, load_network
from exactile_converters.deploy_whole import deploy_whole
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.reduced_precision.precision import at_precision
from exactile_converters.verify import verify
from tests.support.optimized_models import (
    ALL,
    EXTENDED,
    GELU,
    N,
    conv,
    convnext_block,
    gelu,
    many_operators,
    network,
    optimized,
    quantized,
    random,
    scalar,
)

IMAGE = np.random.default_rng(2).standard_normal((96, 80, 3)).astype(np.float32)


def whole(model: onnx.ModelProto) -> np.ndarray:
    """One pass of plain ONNX Runtime over the model as it was saved."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ascontiguousarray(IMAGE.transpose(2, 0, 1)[None])})[0][0]


def check(model: onnx.ModelProto, folder: Path) -> None:
    onnx.save(model, folder / "m.onnx")
    deployed = deploy(load_network(folder / "m.onnx"), image_dtype="float32", output="raw")
    assert deployed.no_strips_reason == ""
    expected = whole(model)
    with closing(Session(deployed, memory_bytes=1 << 40, threads=1)) as session:
        for plan, tile in (("whole", None), ("tile", (64, 48)), ("strip", (32, 80))):
            sink = ArraySink()
            session.segment(ArraySource(IMAGE), sink, plan=plan, tile=tile)
            assert np.array_equal(sink.result, expected), plan


def operators(model: onnx.ModelProto) -> set[str]:
    return {f"{node.domain}:{node.op_type}" for node in model.graph.node}


def swish() -> onnx.ModelProto:
    return network([N("Sigmoid", ["a"], ["s"]), N("Mul", ["a", "s"], ["b"])])


def fused() -> onnx.ModelProto:
    nodes = [N("Relu", ["a"], ["r"]), conv("r", "c", "k"), N("Clip", ["c", "low", "high"], ["b"])]
    return network(nodes, [random("k", 4, 4, 3, 3), scalar("low", -0.5), scalar("high", 0.5)])


def scaled_product() -> onnx.ModelProto:
    nodes = [
        N("Transpose", ["a"], ["t"], perm=[0, 2, 3, 1]),
        N("MatMul", ["t", "w"], ["m"]),
        N("Mul", ["m", "half"], ["s"]),
        N("Transpose", ["s"], ["b"], perm=[0, 3, 1, 2]),
    ]
    return network(nodes, [random("w", 4, 4), scalar("half", 0.5)])


def block(opset: int) -> Callable[[], onnx.ModelProto]:
    return lambda: network(*convnext_block(4), opset=opset)


OPTIMIZED = {
    "fused convolutions": (fused, {"com.microsoft:FusedConv"}),
    "swish": (swish, {"com.microsoft:QuickGelu"}),
    "gelu": (lambda: network(gelu("a", "b"), GELU), {"com.microsoft:Gelu"}),
    "gelu of opset 9": (lambda: network(gelu("a", "b"), GELU, opset=9), {"com.microsoft:Gelu"}),
    "scaled product": (scaled_product, {"com.microsoft:FusedMatMul"}),
    "ConvNeXt block": (block(17), {":LayerNormalization", "com.microsoft:BiasGelu"}),
    "ConvNeXt block of opset 11": (block(11), {":SimplifiedLayerNormalization", "com.microsoft:BiasGelu"}),
}


@pytest.mark.parametrize("name", OPTIMIZED)
def test_an_optimised_model_gives_what_onnx_runtime_gives(tmp_path, name):
    build, expected = OPTIMIZED[name]
    model = optimized(build(), tmp_path)
    assert expected <= operators(model)
    check(model, tmp_path)


def test_a_quantised_model_gives_what_onnx_runtime_gives(tmp_path):
    model = quantized(many_operators(), tmp_path)
    made = "AveragePool Add Concat LeakyRelu Mul Sigmoid Softmax"
    assert {f"com.microsoft:QLinear{op}" for op in made.split()} <= operators(model)
    check(model, tmp_path)


def test_a_zero_point_that_is_left_out_is_zero(tmp_path):
    """Of int8: ONNX Runtime moves the operators in front of the last one, and takes it for uint8 then."""
    model = quantized(many_operators(), tmp_path)
    del model.graph.node[-1].input[2]
    assert whole(model).min() < 0
    check(model, tmp_path)


def test_a_concatenation_without_scales_is_refused(tmp_path):
    """ONNX Runtime itself takes the process down with it."""
    model = quantized(many_operators(), tmp_path)
    node = next(node for node in model.graph.node if node.op_type == "QLinearConcat")
    node.input[6] = ""
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"\(QLinearConcat\) has no scale or zero point"):
        load_network(tmp_path / "m.onnx")


def test_an_optimised_quantised_model_gives_what_onnx_runtime_gives(tmp_path):
    """There, channels come last."""
    model = optimized(quantized(many_operators(), tmp_path), tmp_path, ALL)
    assert {"com.microsoft:QLinearConv", "com.microsoft:NhwcMaxPool"} <= operators(model)
    check(model, tmp_path)


def test_a_quantised_model_is_probed_to_the_pixel(tmp_path):
    """Quantisation would hide from a probe how far an influence goes: what is poked is the same in floating point."""
    onnx.save(quantized(many_operators(), tmp_path), tmp_path / "m.onnx")
    found = verify(load_network(tmp_path / "m.onnx"))
    assert found.holds
    assert all(side.verdict == "exact" for probe in found.probes for side in probe.sides)
    assert found.comparison is not None
    assert found.comparison.difference.max_abs == 0


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_quantised_model_is_not_quantised_again(tmp_path, precision):
    network = prepare_network(quantized(many_operators(), tmp_path), name="m.onnx")
    with pytest.raises(OptionError, match=r"is quantised \(QLinearAdd, .*--precision fp32, which leaves it"):
        at_precision(network, precision, (), "minmax")


@pytest.mark.parametrize("level", [EXTENDED, ALL])
def test_global_pooling_of_a_quantised_model_is_named_and_runs_in_one_pass(tmp_path, level):
    """Squeeze-and-excitation; at the second level with channels last."""
    nodes = [
        N("GlobalAveragePool", ["a"], ["g"]),
        N("Conv", ["g", "w"], ["c"]),
        N("Sigmoid", ["c"], ["s"]),
        N("Mul", ["a", "s"], ["b"]),
    ]
    model = optimized(quantized(network(nodes, [random("w", 4, 4, 1, 1)]), tmp_path), tmp_path, level)
    prepared = prepare_network(model, name="m.onnx")
    assert [obstacle.op for obstacle in prepared.trace().obstacles] == ["QLinearGlobalAveragePool"]
    deployed = deploy_whole(prepared, image_size=IMAGE.shape[:2], image_dtype="float32", output="raw")
    with closing(Session(deployed, memory_bytes=1 << 40, threads=1)) as session:
        session.segment(ArraySource(IMAGE), sink := ArraySink())
    assert np.array_equal(sink.result, whole(model))


@pytest.mark.parametrize("name", ["quantised", "ConvNeXt block"])
def test_a_fresh_process_takes_no_more_than_predicted(tmp_path, name):
    model = network(*convnext_block(16), features=16)
    model = quantized(many_operators(32), tmp_path) if name == "quantised" else optimized(model, tmp_path)
    onnx.save(model, tmp_path / "m.onnx")
    deployed = deploy(load_network(tmp_path / "m.onnx"), image_dtype="uint8", strips=False)
    (tmp_path / "graph.onnx").write_bytes(deployed.graph)
    memory, tile = deployed.contract.memory, (512, 512)
    predicted = memory.weights_bytes + memory.activation_bytes(*tile)
    measured = min(measure(deployed, tmp_path / "graph.onnx", tile, runs=2, threads=None) for _ in range(2))
    assert measured <= predicted * ACTIVATION_MARGIN
    assert predicted <= 1.6 * measured


def test_a_model_for_one_kind_of_processor_is_refused_with_the_way_out(tmp_path):
    model = swish()
    model.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    model.graph.node[0].domain = "com.microsoft.nchwc"
    model.graph.node[0].name = "blocked"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"'blocked' is Conv of com\.microsoft\.nchwc.*ORT_ENABLE_EXTENDED"):
        load_network(tmp_path / "m.onnx")
