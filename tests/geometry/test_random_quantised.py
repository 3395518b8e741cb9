"""Random networks, quantised and optimised by ONNX Runtime, run in tiles and strips as in one pass, bit for bit."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.converters.test_optimized_models import IMAGE, whole
from tests.support.optimized_models import ALL, EXTENDED, N, network, optimized, quantized, random

OPERATORS = (
    "Conv", "depthwise", "LeakyRelu", "Sigmoid", "Relu", "Softmax", "MaxPool", "AveragePool", "down", "up", "Add",
    "Mul", "Concat",
)  # fmt: skip
MOST_CHANNELS = 16


@dataclass(slots=True)
class Drawing:
    """Maps are (name, channels, times halved)."""

    rng: np.random.Generator
    maps: list[tuple[str, int, int]] = field(default_factory=lambda: [("a", 4, 0)])
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def node(self, op: str, *inputs: str, channels: int, level: int, **attributes) -> None:
        name = f"m{len(self.maps)}"
        self.nodes.append(N(op, inputs, [name], **attributes))
        self.maps.append((name, channels, level))

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.constants)}"
        self.constants.append(random(name, *shape))
        return name

    def up(self) -> None:
        name, channels, level = self.maps[-1]
        scales = f"s{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.float32([1, 1, 2, 2]), scales))
        mode = str(self.rng.choice(["nearest", "linear"]))
        self.node("Resize", name, "", scales, channels=channels, level=level - 1, mode=mode)

    def add(self, op: str) -> None:
        name, channels, level = self.maps[int(self.rng.integers(max(0, len(self.maps) - 3), len(self.maps)))]
        fitting = [one for one in self.maps if one[2] == level and (one[1] == channels or op == "Concat")]
        other = fitting[int(self.rng.integers(len(fitting)))]
        size, dilation = (int(number) for number in self.rng.integers(1, 4, 2))
        reach = (size - 1) * dilation
        same = {"channels": channels, "level": level}
        match op:
            case "Conv":
                pads = [reach // 2, reach // 2, reach - reach // 2, reach - reach // 2]
                weight = self.weight(4, channels, size, size)
                self.node("Conv", name, weight, channels=4, level=level, pads=pads, dilations=[dilation] * 2)
            case "depthwise":
                self.node("Conv", name, self.weight(channels, 1, 3, 3), **same, group=channels, pads=[1] * 4)
            case "Softmax":
                self.node(op, name, **same, axis=1)
            case "MaxPool" | "AveragePool":
                self.node(op, name, **same, kernel_shape=[3, 3], pads=[1] * 4)
            case "down" if level < 2:
                kind = str(self.rng.choice(["MaxPool", "AveragePool"]))
                self.node(kind, name, channels=channels, level=level + 1, kernel_shape=[2, 2], strides=[2, 2])
            case "up" if self.maps[-1][2]:
                self.up()
            case "Add" | "Mul":
                self.node(op, name, other[0], **same)
            case "Concat" if channels + other[1] <= MOST_CHANNELS:
                self.node(op, name, other[0], channels=channels + other[1], level=level, axis=1)
            case "LeakyRelu" | "Sigmoid" | "Relu":
                self.node(op, name, **same)


def random_network(seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    drawing = Drawing(rng)
    for _ in range(int(rng.integers(4, 10))):
        drawing.add(str(rng.choice(OPERATORS)))
    while drawing.maps[-1][2]:
        drawing.up()
    name, channels, _ = drawing.maps[-1]
    weight = drawing.weight(4, channels, 1, 1)
    return network([*drawing.nodes, N("Conv", [name, weight], ["b"])], drawing.constants)


def check_seed(seed: int, folder) -> None:
    model = quantized(random_network(seed), folder)
    for form in (model, optimized(model, folder, EXTENDED), optimized(model, folder, ALL)):
        deployed = deploy(prepare_network(form, name="random"), image_dtype="float32", output="raw")
        assert deployed.strips is not None
        expected, geometry = whole(form), deployed.contract.geometry
        stride = geometry.y.stride
        rows = -(-max(8, deployed.strips.startup_rows) // stride) * stride
        tile = tuple(
            axis.accepted_size(axis.margin_before + axis.margin_after + 24) for axis in (geometry.y, geometry.x)
        )
        with closing(Session(deployed, memory_bytes=1 << 40, threads=1)) as session:
            for plan, shape in (("tile", tile), ("strip", (rows, IMAGE.shape[1]))):
                sink = ArraySink()
                session.segment(ArraySource(IMAGE), sink, plan=plan, tile=shape)
                assert np.array_equal(sink.result, expected), (seed, plan)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_quantised_network_is_right_to_the_bit(tmp_path, seed):
    check_seed(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 200))
def test_many_random_quantised_networks_are_right_to_the_bit(tmp_path, seed):
    check_seed(seed, tmp_path)
