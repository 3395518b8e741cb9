"""``max_unpool2d`` as PyTorch's dynamo exporter writes it: tiles are one pass over the image, bit for bit."""

from __future__ import annotations

import onnx
import pytest

from exactile.errors import NotTileableError
from exactile_converters.inspection import inspect_network
from exactile_converters.prepare.from_onnx import prepare_network
from tests.geometry.test_own_sizes import session
from tests.placed.test_placed_operators import check
from tests.support.placed_nets import Net


def pooled(net: Net, source: str) -> tuple[str, str]:
    """Values, and their places counted within each plane."""
    values, places = f"{source}_pooled", f"{source}_places"
    net.nodes.append(onnx.helper.make_node("MaxPool", [source], [values, places], kernel_shape=[2, 2], strides=[2, 2]))
    single, first = f"{source}_single", f"{source}_first"
    net.nodes.append(onnx.helper.make_node("MaxPool", [source], [single, first], kernel_shape=[1, 1], strides=[1, 1]))
    net.channels[values] = net.channels[source]
    corner = net.add("Slice", first, net.constant([0, 0]), net.constant([1, 1]), net.constant([2, 3]))
    return values, net.add("Sub", places, corner)


def unpooled(net: Net, values: str, places: str, like: str, *, more: int = 0) -> str:
    """Scattered over zeros of the size of ``like``; ``more`` is added to the places, which is wrong."""
    channels, flat = net.channels[like], net.constant([-1])
    size = net.add("Slice", net.add("Shape", like), net.constant([2]), net.constant([4]))
    area = net.add("Add", net.add("ReduceProd", size, keepdims=0), net.constant(more))
    planes = net.add("Range", net.constant(0), net.constant(channels), net.constant(1))
    offset = net.add("Mul", net.add("Reshape", planes, net.constant([-1, channels, 1, 1])), area)
    column = net.add("Unsqueeze", net.add("Reshape", net.add("Add", places, offset), flat), flat)
    shape = net.add("Concat", net.constant([1, channels]), size, axis=0)
    zeros = net.add("Reshape", net.add("ConstantOfShape", shape), flat)
    scattered = net.add("ScatterND", zeros, column, net.add("Reshape", values, flat))
    return net.add("Reshape", scattered, shape, channels=channels)


def segnet(*, more: int = 0) -> bytes:
    """Two levels, of two channels each."""
    net = Net(seed=16)
    first = net.join(net.conv("image"), net.conv("image", kernel=5))
    values, places = pooled(net, first)
    second = net.join(net.conv(values), net.conv(values))
    deep, deep_places = pooled(net, second)
    up = unpooled(net, net.join(net.conv(deep), net.conv(deep)), deep_places, second, more=more)
    up = net.join(net.conv(up), net.conv(up))
    return net.model(net.conv(unpooled(net, up, places, first, more=more)))


def test_every_remainder():
    for size in ((76, 68), (77, 69), (78, 71)):
        assert check(segnet(), *size, "tile", exact=True) == ("", "tile")


def test_the_scatter_becomes_the_operator():
    graph = prepare_network(onnx.load_from_string(segnet()), name="segnet").model.graph
    operators = [node.op_type for node in graph]
    assert operators.count("MaxUnpool") == operators.count("MaxPool") == 2
    assert "ScatterND" not in operators


def test_places_that_do_not_cancel_are_an_obstacle():
    """With one pixel more to each plane, values of the second plane move."""
    model = segnet(more=1)
    graph = prepare_network(onnx.load_from_string(model), name="wrong").model.graph
    assert "ScatterND" in [node.op_type for node in graph]
    with pytest.raises(NotTileableError):
        session(model)


def test_the_strips_say_why_there_are_none():
    found = inspect_network(prepare_network(onnx.load_from_string(segnet()), name="segnet"))
    assert found.geometry is not None
    assert "MaxUnpool" in found.no_strips_reason
