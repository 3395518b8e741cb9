"""Softmax, products and norms over the whole image: written as reductions, whose statistics are found in passes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from exactile_converters.networks.network import Network
from exactile_converters.passes.deploy import obstacles_left
from exactile_converters.passes.reductions import take_out
from exactile_converters.prepare.from_onnx import prepare_network
from tests.passes.test_passes import check
from tests.support.global_nets import GlobalNet

SIZE = (41, 57)


def network_of(model: bytes) -> Network:
    return prepare_network(onnx.load_from_string(model), name="sums.onnx")


def flat(net: GlobalNet, value: str, channels: int = 4) -> str:
    """(1, C, H W)"""
    return net.add("Reshape", value, net.constant([1, channels, -1]))


def upright(net: GlobalNet, value: str, like: str) -> str:
    return net.add("Reshape", value, net.add("Shape", like))


def softmax(net: GlobalNet, value: str) -> str:
    return upright(net, net.add("Softmax", flat(net, value), axis=2), value)


def log_softmax(net: GlobalNet, value: str) -> str:
    """With pixels before channels."""
    turned = net.add("Transpose", flat(net, value), perm=[0, 2, 1])
    found = net.add("Transpose", net.add("LogSoftmax", turned, axis=-2), perm=[0, 2, 1])
    return upright(net, found, value)


def log_of_exponentials(net: GlobalNet, value: str) -> str:
    """Of values whose exponentials are larger than any float32."""
    large = net.add("Mul", value, net.constant(40, np.float32))
    total = net.add("ReduceLogSumExp", large, net.constant([2, 3]))
    return net.add("Sub", value, net.add("Div", total, net.constant(100, np.float32)))


def log_of_all_exponentials(net: GlobalNet, value: str) -> str:
    total = net.add("ReduceLogSumExp", value, net.constant([1, 2, 3]), keepdims=0)
    return net.add("Add", value, total)


def power_mean(power: int):
    def block(net: GlobalNet, value: str) -> str:
        return net.add("Div", value, net.add("GlobalLpPool", value, p=power))

    return block


def flattened_norms(net: GlobalNet, value: str) -> str:
    """Magnitudes, squares and roots, with rows and columns in one axis."""
    axis, vector = net.constant([2]), flat(net, net.add("Abs", value))
    parts = [net.add(f"Reduce{name}", vector, axis) for name in ("L1", "L2", "SumSquare", "LogSum", "Max", "Min")]
    total = parts[0]
    for part in parts[1:]:
        total = net.add("Add", total, net.add("Sigmoid", part))
    return upright(net, net.add("Div", vector, total), value)


def weighted_mean(net: GlobalNet, value: str) -> str:
    """Of all pixels, by a softmax of one map over them."""
    weights = net.add("Softmax", flat(net, net.layer(value, 4, 1), 1), axis=2)
    pooled = net.add("MatMul", flat(net, value), net.add("Transpose", weights, perm=[0, 2, 1]))
    return net.add("Add", value, net.add("Unsqueeze", pooled, net.constant([3])))


def linear_attention(net: GlobalNet, value: str) -> str:
    """Keys and values are multiplied first, over all pixels; then queries read the product, each for itself."""
    keys = net.add("Softmax", flat(net, net.layer(value, 4, 4)), axis=2)
    values = net.add("Transpose", flat(net, net.layer(value, 4, 4)), perm=[0, 2, 1])
    queries = net.add("Transpose", net.add("Softmax", flat(net, net.layer(value, 4, 4)), axis=1), perm=[0, 2, 1])
    read = net.add("MatMul", queries, net.add("MatMul", keys, values))
    return net.add("Add", value, upright(net, net.add("Transpose", read, perm=[0, 2, 1]), value))


BLOCKS = {
    "softmax": softmax,
    "log_softmax": log_softmax,
    "log_of_exponentials": log_of_exponentials,
    "log_of_all_exponentials": log_of_all_exponentials,
    "power_mean_1": power_mean(1),
    "power_mean_2": power_mean(2),
    "power_mean_3": power_mean(3),
    "flattened_norms": flattened_norms,
    "weighted_mean": weighted_mean,
    "linear_attention": linear_attention,
}


@pytest.mark.parametrize("block", BLOCKS)
def test_what_looks_at_the_whole_image_in_several_steps(block):
    net = GlobalNet(seed=4)
    value = BLOCKS[block](net, net.layer("image", 1))
    value = BLOCKS[block](net, net.layer(net.add("Relu", value), 4, stride=2))
    check(net.model(net.layer(value, 4, 2)), SIZE, tolerance=1e-5)


def test_integers_are_equal_bit_for_bit():
    """A product over all pixels, of small integers."""
    net = GlobalNet(seed=7)
    first = net.conv("image")
    second = net.add("Transpose", flat(net, net.conv(first), 1), perm=[0, 2, 1])
    total = net.add("MatMul", flat(net, first, 1), second)
    number = net.add(
        "Reshape", net.add("Mod", total, net.constant([8], np.float32), fmod=1), net.constant([1, 1, 1, 1])
    )
    check(net.model(net.conv(net.add("Add", first, number))), (24, 31), tolerance=0)


def along_rows(net: GlobalNet, value: str) -> str:
    return net.add("Softmax", value, axis=3)


def logarithm_along_columns(net: GlobalNet, value: str) -> str:
    return net.add("Add", value, net.add("ReduceLogSumExp", value, net.constant([2])))


def over_channels_and_pixels(net: GlobalNet, value: str) -> str:
    """One axis holds channels, too."""
    every = net.add("Reshape", value, net.constant([1, -1]))
    return upright(net, net.add("Softmax", every, axis=1), value)


def between_all_pixels(net: GlobalNet, value: str) -> str:
    """Attention: a product for each two pixels."""
    turned = net.add("Transpose", flat(net, value), perm=[0, 2, 1])
    read = net.add("MatMul", flat(net, value), net.add("Softmax", net.add("MatMul", turned, flat(net, value)), axis=-1))
    return upright(net, read, value)


def of_many_products(net: GlobalNet, value: str) -> str:
    keys = net.layer(value, 4, 260)
    product = net.add("MatMul", flat(net, keys, 260), net.add("Transpose", flat(net, keys, 260), perm=[0, 2, 1]))
    return net.add("Add", value, net.add("ReduceMax", product, net.constant([1, 2])))


@pytest.mark.parametrize(
    ("block", "left"),
    [
        (along_rows, "Softmax"),
        (logarithm_along_columns, "ReduceLogSumExp"),
        (over_channels_and_pixels, "Reshape"),
        (between_all_pixels, "MatMul"),
        (of_many_products, "MatMul"),
    ],
)
def test_what_stays_an_obstacle(block, left):
    net = GlobalNet(seed=4)
    model = net.model(net.layer(block(net, net.layer("image", 1)), 4, 2))
    assert left in {one.op for one in obstacles_left(network_of(model))}


def test_a_softmax_over_channels_stays_one_operator():
    net = GlobalNet(seed=4)
    value = upright(net, net.add("Softmax", flat(net, net.layer("image", 1)), axis=1), net.layer("image", 1))
    network, reductions = take_out(network_of(net.model(net.layer(value, 4, 2))))
    assert not reductions
    assert "Softmax" in {node.op_type for node in network.model.graph}
