"""Small networks that no rule proves local, as ONNX; weights are small integers."""

from __future__ import annotations

import numpy as np

from tests.support.placed_nets import Net

BLOCK = 2


def folded() -> bytes:
    """Blocks of 2 x 2 pixels computed by a strided convolution and put side by side by Col2Im: local, of any size."""
    net = Net(seed=12)
    return net.model(net.conv(blocks(net)))


def sized() -> bytes:
    """The same, and the image's height added to each pixel: local, but a tile has another height."""
    net = Net(seed=12)
    height = net.add("Cast", net.add("Gather", net.add("Shape", "image"), net.constant(2), axis=0), to=1)
    return net.model(net.add("Add", blocks(net), height))


def blocks(net: Net) -> str:
    """The blocks, cut to the height and width of the image."""
    two = [BLOCK, BLOCK]
    kernel = np.random.default_rng(12).integers(-2, 3, (BLOCK * BLOCK, 1, 5, 5))
    sums = net.add("Conv", "image", net.constant(kernel, np.float32), strides=two, pads=[2] * 4)
    columns = net.add("Reshape", sums, net.constant([1, BLOCK * BLOCK, -1]))
    size = net.add("Slice", net.add("Shape", sums), net.constant([2]), net.constant([4]))
    whole = net.add("Mul", size, net.constant(two))
    made = net.add("Col2Im", columns, whole, net.constant(two), strides=two)
    own = net.add("Slice", net.add("Shape", "image"), net.constant([2]), net.constant([4]))
    return net.add("Slice", made, net.constant([0, 0]), own, net.constant([2, 3]))


def rolled() -> bytes:
    """Rows rolled by 4, a convolution, and rolled back: local but at the edges, where the last rows meet the first."""
    net = Net(seed=13)

    def roll(source: str, rows: int) -> str:
        tail = net.add("Slice", source, net.constant([rows]), net.constant([2**62]), net.constant([2]))
        head = net.add("Slice", source, net.constant([0]), net.constant([rows]), net.constant([2]))
        return net.add("Concat", tail, head, axis=2)

    return net.model(net.conv(roll(net.conv(roll("image", -4), kernel=5), 4)))


def summed() -> bytes:
    """Each row holds the sum of all rows before."""
    net = Net(seed=14)
    return net.model(net.add("CumSum", net.conv("image"), net.constant(2)))


def plain() -> bytes:
    """One that rules prove."""
    net = Net(seed=15)
    return net.model(net.conv("image"))
