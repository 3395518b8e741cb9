"""Small ONNX networks with operators whose taps depend on the position in the image; weights are small integers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18


@dataclass
class Net:
    """A graph that grows node by node from ``image`` (1, 1, H, W); all maps have one channel, but joined ones."""

    seed: int = 0
    opset: int = OPSET
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=lambda: {"image": 1})

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, op: str, *inputs: str, channels: int = 1, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        self.channels[name] = channels
        return name

    def conv(self, source: str, kernel: int = 3, stride: int = 1, pads: tuple[int, int] | None = None) -> str:
        before, after = pads if pads is not None else ((kernel - 1) // 2, kernel // 2)
        weights = self._random.integers(-2, 3, (1, self.channels[source], kernel, kernel))
        return self.add(
            "Conv",
            source,
            self.constant(weights, np.float32),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
        )

    def pool(self, source: str, kernel: int = 2, stride: int = 2, ceil: int = 0) -> str:
        return self.add("MaxPool", source, kernel_shape=[kernel, kernel], strides=[stride, stride], ceil_mode=ceil)

    def resize(
        self,
        source: str,
        *,
        like: str | None = None,
        scale: float | tuple[float, float] | None = None,
        minus: int = 0,
        region: tuple[float, ...] = (),
        **attributes: Any,
    ) -> str:
        """To the height and width of ``like`` less ``minus`` pixels, or by ``scale``; ``region`` is the operand roi."""
        roi = self.constant(region, np.float32) if region else ""
        channels = self.channels[source]
        if like is None:
            assert scale is not None
            y, x = scale if isinstance(scale, tuple) else (scale, scale)
            return self.add(
                "Resize", source, roi, self.constant([1, 1, y, x], np.float32), channels=channels, **attributes
            )
        size = self.add("Slice", self.add("Shape", like), self.constant([2]), self.constant([4]))
        if minus:
            size = self.add("Sub", size, self.constant([minus]))
        whole = self.add("Concat", self.constant([1, channels]), size, axis=0)
        return self.add("Resize", source, roi, "", whole, channels=channels, **attributes)

    def join(self, *sources: str) -> str:
        return self.add("Concat", *sources, axis=1, channels=sum(self.channels[source] for source in sources))

    def model(self, output: str) -> bytes:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "H", "W"])
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, self.channels[output], "h", "w"])
        graph = helper.make_graph(self.nodes, "placed", [image], [result], self.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return made.SerializeToString()


def two_levels(**attributes: Any) -> bytes:
    """A small U-Net that resizes to the size of its skip connections, two levels deep."""
    net = Net()
    first = net.conv("image")
    second = net.conv(net.pool(first))
    third = net.conv(net.pool(second))
    up = net.conv(net.join(net.resize(third, like=second, **attributes), second))
    return net.model(net.conv(net.join(net.resize(up, like=first, **attributes), first)))


def pyramid(**attributes: Any) -> bytes:
    """Maps of three levels, all resized to the first, and the sum to the image: a segmentation head."""
    net = Net(seed=1)
    first = net.conv("image", kernel=3, stride=2)
    second = net.conv(first, kernel=3, stride=2)
    third = net.conv(second, kernel=3, stride=2)
    levels = [net.resize(level, like=first, **attributes) for level in (second, third)]
    return net.model(net.resize(net.conv(net.join(first, *levels)), like="image", **attributes))


def by_scale(scale: float | tuple[float, float], **attributes: Any) -> bytes:
    """A convolution, a Resize by a factor, and another convolution."""
    net = Net(seed=2)
    return net.model(net.conv(net.resize(net.conv("image"), scale=scale, **attributes)))


def to_size(minus: int, **attributes: Any) -> bytes:
    """A strided convolution, resized to the image's size less some pixels."""
    net = Net(seed=3)
    return net.model(net.conv(net.resize(net.conv("image", stride=2), like="image", minus=minus, **attributes)))
