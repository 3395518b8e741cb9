"""How fast the machine is: measured once, kept, and what plans make of it."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import closing
from dataclasses import replace
from importlib.resources import files

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from exactile.bundle.opening import open_bundle
from exactile.machine_speed import measured_speed
from exactile.machine_speed.machine_name import machine_name
from exactile.machine_speed.measured_speed import CONVOLUTIONS, CONVOLUTIONS_MAC, machine_speed
from exactile.machine_speed.speed import REACHED, MachineSpeed, usual_speed
from exactile.plan.speed import AT_HAND_BYTES
from exactile.planning import Planner, Wish
from exactile.planning import speed as planned_speed
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.nothing import NoSink
from exactile.sources.array import ArraySource
from exactile_converters.graphs.computing import MAC_PER_BYTE, mac_per_pixel
from exactile_converters.prepare.from_onnx import prepare_network
from tests.plan.test_lanes import deployed
from tests.runs.test_exactness import image_for
from tests.support.command import exactile as command
from tests.support.nets import onnx_file

NUMBERS = b'{"format": "%s", "machine": "", "threads": 1, "mac_per_s": %d, "touched_bytes_per_s": 1}'


@pytest.fixture(autouse=True)
def measured_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("EXACTILE_CACHE_DIR", str(tmp_path / "cache"))
    machine_speed.cache_clear()
    yield
    machine_speed.cache_clear()


def forbid(monkeypatch):
    """Measuring is an error from now on; what this process knows is forgotten."""

    def refuse(_threads: int) -> float:
        raise AssertionError("measured")

    monkeypatch.setattr(measured_speed, "_mac_per_s", refuse)
    monkeypatch.setattr(measured_speed, "_touched_bytes_per_s", refuse)
    machine_speed.cache_clear()


def test_it_is_measured_once_and_kept(monkeypatch):
    found = machine_speed(2)
    assert 1e8 < found.mac_per_s < 1e14
    assert 1e7 < found.touched_bytes_per_s < 1e13
    forbid(monkeypatch)
    assert machine_speed(2) == found
    with pytest.raises(AssertionError, match="measured"):
        machine_speed(1)


def test_the_file_says_what_was_measured_where(tmp_path):
    found = machine_speed(1)
    (path,) = (tmp_path / "cache" / "machine").iterdir()
    assert json.loads(path.read_text()) == {
        "format": "exactile.machine-speed",
        "machine": machine_name(),
        "threads": 1,
        "mac_per_s": found.mac_per_s,
        "touched_bytes_per_s": found.touched_bytes_per_s,
        "disturbed": json.loads(path.read_text())["disturbed"],
    }


def measuring(monkeypatch, mac_per_s: float, share: float) -> None:
    monkeypatch.setattr(measured_speed, "_mac_per_s", lambda _threads: (mac_per_s, share))
    monkeypatch.setattr(measured_speed, "_touched_bytes_per_s", lambda _threads: mac_per_s / 10)
    machine_speed.cache_clear()


def test_what_was_measured_beside_other_work_is_measured_again_later(tmp_path, monkeypatch):
    measuring(monkeypatch, 2e9, share=0.5)
    assert machine_speed(2).mac_per_s == 2e9
    (path,) = (tmp_path / "cache" / "machine").iterdir()
    assert json.loads(path.read_text())["disturbed"] is True

    measuring(monkeypatch, 9e9, share=1.0)
    assert machine_speed(2).mac_per_s == 2e9  # not before some minutes

    measuring(monkeypatch, 1e9, share=0.5)
    past = time.time() - 700
    os.utime(path, (past, past))
    assert machine_speed(2) == MachineSpeed(mac_per_s=2e9, touched_bytes_per_s=2e8)  # the fastest of both

    measuring(monkeypatch, 1e9, share=0.9)
    os.utime(path, (past, past))
    assert machine_speed(2) == MachineSpeed(mac_per_s=1e9, touched_bytes_per_s=1e8)
    assert json.loads(path.read_text())["disturbed"] is False

    measuring(monkeypatch, 9e9, share=1.0)
    os.utime(path, (past, past))
    assert machine_speed(2).mac_per_s == 1e9  # once and for all


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[" * 100_000, b"{}", NUMBERS % (b"other", 1), NUMBERS % (b"exactile.machine-speed", -1)],
)
def test_a_damaged_file_is_measured_and_written_anew(tmp_path, content):
    machine_speed(1)
    (path,) = (tmp_path / "cache" / "machine").iterdir()
    path.write_bytes(content)
    machine_speed.cache_clear()
    found = machine_speed(1)
    assert json.loads(path.read_text())["mac_per_s"] == found.mac_per_s


def test_another_machine_is_measured(monkeypatch):
    machine_speed(1)
    forbid(monkeypatch)
    monkeypatch.setattr(measured_speed, "machine_name", lambda: "another; onnxruntime 1.99")
    with pytest.raises(AssertionError, match="measured"):
        machine_speed(1)


@pytest.mark.parametrize("obstacle", ["a file", "no platformdirs"])
def test_without_a_cache_folder_it_is_measured_in_each_process(tmp_path, monkeypatch, obstacle):
    (tmp_path / "cache").write_text("a file is in the way")
    if obstacle == "no platformdirs":
        monkeypatch.delenv("EXACTILE_CACHE_DIR")
        monkeypatch.setitem(sys.modules, "platformdirs", None)
    found = machine_speed(1)
    assert machine_speed(1) == found
    forbid(monkeypatch)
    with pytest.raises(AssertionError, match="measured"):
        machine_speed(1)


def test_the_convolutions_that_are_timed_are_what_they_are_counted_as():
    """Counted by the shapes of the weights; computed here as by torch."""
    content = files("exactile.machine_speed").joinpath(CONVOLUTIONS).read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    shapes = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    made_of = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "ConstantOfShape"}
    kernels = [shapes[made_of[node.input[1]]] for node in convolutions]
    assert sum(int(np.prod(kernel)) for kernel in kernels) == CONVOLUTIONS_MAC
    image = np.random.default_rng(0).random((1, 16, 9, 11), np.float32)
    (found,) = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": image})
    expected = torch.from_numpy(image)
    for kernel in kernels:
        weight = torch.full(tuple(kernel), 1 / 64)
        expected = torch.conv2d(expected, weight, padding=int(kernel[2]) // 2)
        expected = torch.relu(expected)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def network_of(*nodes: onnx.NodeProto, **kernels: tuple[int, ...]):
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in kernels.items()],
    )
    return prepare_network(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), name="net")


def test_multiply_accumulates_of_convolutions_are_counted():
    """Rectifiers belong to the kernel before."""
    network = network_of(
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["y"], pads=[1] * 4, strides=[2, 2]),
        w=(64, 3, 3, 3),
        v=(32, 64, 3, 3),
    )
    traced = network.trace()
    assert mac_per_pixel(traced.nodes, traced.features) == pytest.approx(64 * 3 * 9 + 32 * 64 * 9 / 4)


def test_operators_that_memory_bounds_count_as_many_as_take_as_long():
    network = network_of(
        helper.make_node("AveragePool", ["x"], ["a"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Conv", ["a", "w"], ["y"]),
        w=(2, 3, 1, 1),
    )
    traced = network.trace()
    moved = (3 + 3) * 4 + (3 + 2) * 4
    assert mac_per_pixel(traced.nodes, traced.features) == pytest.approx(moved * MAC_PER_BYTE)


def test_a_bundle_keeps_it_and_one_without_it_is_opened(tmp_path):
    made = command("convert", onnx_file(tmp_path, "unet_d2"), "-o", tmp_path / "net.bundle", "--no-verify")
    assert made.returncode == 0, made.stderr
    found = open_bundle(tmp_path / "net.bundle").model.contract.mac_per_pixel
    assert found == pytest.approx(deployed("unet_d2").contract.mac_per_pixel)
    assert found > 1000
    path = tmp_path / "net.bundle" / "contract.json"
    content = json.loads(path.read_text())
    del content["mac_per_pixel"]
    path.write_text(json.dumps(content))
    assert open_bundle(tmp_path / "net.bundle").model.contract.mac_per_pixel == 0


def planner_of(mac: float, **options) -> Planner:
    model = deployed("unet_d2")
    model = replace(model, contract=replace(model.contract, mac_per_pixel=mac))
    return Planner(model, budget_bytes=1 << 40, process_bytes=0, **options)


def test_touching_memory_takes_as_long_as_was_measured(monkeypatch):
    machine = MachineSpeed(mac_per_s=50e9, touched_bytes_per_s=2e9)
    monkeypatch.setattr(planned_speed, "usual_speed", lambda _threads: machine)
    speed = planner_of(6500.0, threads=2).speed((1000, 1000))
    seconds_for_a_pixel = 6500.0 / (REACHED * 50e9)
    assert speed.once(3e9 + AT_HAND_BYTES) * seconds_for_a_pixel == pytest.approx(1.5)
    assert speed.once(AT_HAND_BYTES) == 0
    assert planner_of(0.0, threads=2).speed((1000, 1000)).once(3e9) == 0
    assert planner_of(6500.0, threads=2, engine_stays=True).speed((1000, 1000)).once(3e9) == 0


def test_where_computing_is_cheap_memory_that_is_touched_decides():
    """One pass of a network of many operations, low strips of one of few: by the same graphs and memory."""
    image = ArraySource(image_for("unet_d2", 1000, 1000))
    plans = [planner_of(mac).choose(image, NoSink(), Wish()).plan for mac in (1e7, 1e3)]
    assert [plan.name for plan in plans] == ["whole", "strip"]


def test_the_machine_is_measured_for_long_runs_with_memory_for_it(monkeypatch):
    asked = []
    monkeypatch.setattr(measured_speed, "machine_speed", lambda threads: asked.append(threads) or usual_speed(threads))
    mac = 6500.0
    seconds = usual_speed(2).mac_per_s / mac  # as many pixels are computed in one, by usual figures
    short, long = (int((seconds * planned_speed.LONG_S * share) ** 0.5) for share in (0.9, 1.1))
    planner = planner_of(mac, threads=2)
    planner.speed((short, short))
    assert asked == []
    planner.speed((long, long))
    assert asked == [2]
    little = Planner(
        planner_of(mac)._model, budget_bytes=measured_speed.MEASURING_BYTES, process_bytes=0, threads=2
    )  # fmt: skip
    little.speed((long, long))
    assert asked == [2]


def test_a_run_by_what_was_measured_is_equal_to_one_pass(monkeypatch):
    monkeypatch.setattr(planned_speed, "LONG_S", 0.0)
    image, results = image_for("unet_d2", 301, 403), []
    for plan in ("auto", "whole"):
        with closing(Session(deployed("unet_d2"), memory_bytes=8 << 30, threads=2)) as session:
            sink = ArraySink()
            session.segment(ArraySource(image), sink, plan=plan)
            results.append(sink.result)
    assert measured_speed.machine_speed.cache_info().currsize == 1
    np.testing.assert_array_equal(*results)


def test_a_small_image_of_a_network_that_computes_hardly_anything_is_one_tile():
    """Reading and writing a pixel takes longer than touching its memory."""
    image = ArraySource(image_for("unet_d2", 200, 40))
    assert len(planner_of(1.0).choose(image, NoSink(), Wish(plan="tile")).plan) == 1
