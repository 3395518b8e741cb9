"""Small networks that take statistics of the whole image, written node by node. Weights from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import helper

from tests.support.placed_nets import Net

CHANNELS = 4
GROUPS = 2


@dataclass
class GlobalNet(Net):
    """A graph that grows node by node from ``image`` (1, 1, H, W)."""

    def layer(self, value: str, inputs: int, channels: int = CHANNELS, *, kernel: int = 3, stride: int = 1) -> str:
        """A convolution with weights from the seed."""
        weights = self._random.normal(size=(channels, inputs, kernel, kernel)) / kernel
        return self.add(
            "Conv",
            value,
            self.constant(weights, np.float32),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            channels=channels,
        )


def affine(net: GlobalNet, channels: int) -> tuple[str, str]:
    numbers = np.linspace(0.5, 1.5, channels, dtype=np.float32)
    return net.constant(numbers, np.float32), net.constant(numbers - 1, np.float32)


def instance_norm(net: GlobalNet, value: str, channels: int) -> str:
    return net.add("InstanceNormalization", value, *affine(net, channels), epsilon=1e-5)


def group_norm(net: GlobalNet, value: str, channels: int) -> str:
    """As PyTorch exports it."""
    grouped = net.add("Reshape", value, net.constant([0, GROUPS, -1]))
    ones, zeros = net.constant(np.ones(GROUPS), np.float32), net.constant(np.zeros(GROUPS), np.float32)
    normal = net.add("InstanceNormalization", grouped, ones, zeros, epsilon=1e-5)
    back = net.add("Reshape", normal, net.add("Shape", value))
    scale, bias = (net.add("Unsqueeze", one, net.constant([0, 2, 3])) for one in affine(net, channels))
    return net.add("Add", net.add("Mul", back, scale), bias)


def group_norm_operator(net: GlobalNet, value: str, channels: int) -> str:
    return net.add("GroupNormalization", value, *affine(net, channels), num_groups=GROUPS, epsilon=1e-5)


def decomposed_norm(net: GlobalNet, value: str, channels: int) -> str:
    """Mean and variance, one after the other, over channels, too."""
    assert channels
    mean = net.add("ReduceMean", value, net.constant([1, 2, 3]), keepdims=1)
    apart = net.add("Sub", value, mean)
    variance = net.add("ReduceMean", net.add("Pow", apart, net.constant(2, np.float32)), net.constant([1, 2, 3]))
    deviation = net.add("Sqrt", net.add("Add", variance, net.constant(1e-5, np.float32)))
    return net.add("Div", apart, deviation)


def mean_variance(net: GlobalNet, value: str, channels: int) -> str:
    assert channels
    return net.add("MeanVarianceNormalization", value, axes=[0, 2, 3])


def training_norm(net: GlobalNet, value: str, channels: int) -> str:
    """Batch normalisation that was left in training mode."""
    zeros, ones = net.constant(np.zeros(channels), np.float32), net.constant(np.ones(channels), np.float32)
    normal = net.add("Identity", value)
    net.nodes[-1] = helper.make_node(
        "BatchNormalization",
        [value, *affine(net, channels), zeros, ones],
        [normal, f"{normal}_mean", f"{normal}_variance"],
        training_mode=1,
        epsilon=1e-5,
    )
    return normal


def excitation(net: GlobalNet, value: str, channels: int) -> str:
    pooled = net.add("GlobalAveragePool", value)
    gate = net.add("Sigmoid", net.layer(pooled, channels, channels, kernel=1))
    return net.add("Mul", value, gate)


def excitation_by_matrices(net: GlobalNet, value: str, channels: int) -> str:
    """Fully connected layers on the pooled vector."""
    pooled = net.add("ReduceMean", value, net.constant([-1, -2]), keepdims=0)
    matrix = net.constant(np.random.default_rng(9).normal(size=(channels, channels)), np.float32)
    gate = net.add("Unsqueeze", net.add("Sigmoid", net.add("MatMul", pooled, matrix)), net.constant([2, 3]))
    return net.add("Mul", value, gate)


def largest(net: GlobalNet, value: str, channels: int) -> str:
    assert channels
    return net.add("Sub", value, net.add("GlobalMaxPool", value))


def smallest(net: GlobalNet, value: str, channels: int) -> str:
    assert channels
    return net.add("Sub", value, net.add("ReduceMin", value, net.constant([2, 3])))


def root_of_squares(net: GlobalNet, value: str, channels: int) -> str:
    assert channels
    norm = net.add("ReduceL2", value, net.constant([2, 3]))
    return net.add("Div", value, net.add("Add", norm, net.constant(1, np.float32)))


def image_pooling(net: GlobalNet, value: str, channels: int) -> str:
    """The pooled map, resized to the size of the map and joined to it."""
    pooled = net.layer(net.add("GlobalAveragePool", value), channels, channels, kernel=1)
    size = net.add("Slice", net.add("Shape", value), net.constant([2]), net.constant([4]))
    whole = net.add("Concat", net.constant([1, channels]), size, axis=0)
    spread = net.add("Resize", pooled, "", "", whole, mode="linear", coordinate_transformation_mode="half_pixel")
    return net.layer(net.add("Concat", value, spread, axis=1), 2 * channels, channels, kernel=1)


BLOCKS: dict[str, Callable[[GlobalNet, str, int], str]] = {
    "instance_norm": instance_norm,
    "group_norm": group_norm,
    "group_norm_operator": group_norm_operator,
    "decomposed_norm": decomposed_norm,
    "mean_variance": mean_variance,
    "training_norm": training_norm,
    "excitation": excitation,
    "excitation_by_matrices": excitation_by_matrices,
    "largest": largest,
    "smallest": smallest,
    "root_of_squares": root_of_squares,
    "image_pooling": image_pooling,
}


def chain(block: str, *, times: int = 2) -> bytes:
    """Convolutions with ``block`` between, half the size on the way: statistics that depend on statistics."""
    net = GlobalNet(seed=3, opset=21 if block == "group_norm_operator" else 18)
    value = net.layer("image", 1)
    value = skip = BLOCKS[block](net, value, CHANNELS)
    for _ in range(times - 1):
        value = net.layer(net.add("Relu", value), CHANNELS, stride=2)
        value = BLOCKS[block](net, value, CHANNELS)
    value = net.add("Resize", value, "", "", net.add("Shape", skip), mode="nearest", channels=CHANNELS,
                    coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    joined = net.add("Concat", skip, value, axis=1)
    return net.model(net.layer(joined, 2 * CHANNELS, 3))


def integers() -> bytes:
    """Weights, samples and means are integers: the sum of the whole map, modulo 8, is added to each pixel."""
    net = GlobalNet(seed=7)
    first = net.conv("image")
    total = net.add("ReduceSum", first, net.constant([2, 3]))
    offset = net.add("Mod", total, net.constant([8], np.float32), fmod=1)
    second = net.conv(net.add("Add", first, offset), stride=2)
    most = net.add("GlobalMaxPool", second)
    return net.model(net.conv(net.add("Sub", second, most)))


def pyramid() -> bytes:
    """Beside the mean of a small map, branches that look far: they need not be made in the pass that finds the mean."""
    net = GlobalNet(seed=4)
    small = net.add("Relu", net.layer(net.layer("image", 1, stride=2), CHANNELS, stride=2))
    far = [net.add("Relu", net.layer(small, CHANNELS, 2 * CHANNELS, kernel=15)) for _ in range(2)]
    pooled = net.layer(net.add("GlobalAveragePool", small), CHANNELS, CHANNELS, kernel=1)
    joined = net.add("Concat", *far, net.add("Mul", small, pooled), axis=1)
    return net.model(net.layer(joined, 5 * CHANNELS, 3))
