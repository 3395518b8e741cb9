"""Partial convolutions, whose mask of ones is made to the size of a map: tiles are one pass over the image.

In PyTorch's words: ``mask = ones(1, 1, height, width)``, ``seen = conv2d(mask, ones(1, 1, k, k))``,
``ratio = k * k / (seen + 1e-8) * clamp(seen, 0, 1)``, and the result is ``conv2d(image) * ratio``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from exactile.errors import NotTileableError
from exactile_converters.deploy import deploy_in_passes
from exactile_converters.inspection import inspect_network
from exactile_converters.prepare.from_onnx import prepare_network
from tests.geometry.test_own_sizes import session
from tests.placed.test_placed_operators import check
from tests.support.placed_nets import Net

Fill = Callable[[Net, str], str]


def by_constant_of_shape(net: Net, source: str) -> str:
    """As TorchScript exports ``torch.ones``."""
    size = net.add("Slice", net.add("Shape", source), net.constant([2]), net.constant([4]))
    shape = net.add("Concat", net.constant([1, 1]), size, axis=0)
    one = onnx.numpy_helper.from_array(np.ones(1, np.float32))
    return net.add("ConstantOfShape", shape, value=one)


def by_expand(net: Net, source: str) -> str:
    """As dynamo exports it; of the whole shape, which has one channel here."""
    return net.add("Expand", net.constant(1, np.float32), net.add("Shape", source))


def partial(net: Net, source: str, *, kernel: int, stride: int, fill: Fill, padded: bool = False) -> str:
    """A partial convolution; ``padded``: the mask is padded by an operator of its own."""
    before, after = (kernel - 1) // 2, kernel // 2
    mask, pads = fill(net, source), [before, before, after, after]
    if padded:
        mask, pads = net.add("Pad", mask, net.constant([0, 0, before, before, 0, 0, after, after])), [0] * 4
    ones = net.constant(np.ones((1, 1, kernel, kernel)), np.float32)
    seen = net.add("Conv", mask, ones, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)
    inverse = net.add(
        "Div", net.constant(kernel * kernel, np.float32), net.add("Add", seen, net.constant(1e-8, np.float32))
    )
    ratio = net.add("Mul", inverse, net.add("Clip", seen, net.constant(0, np.float32), net.constant(1, np.float32)))
    return net.add("Mul", net.conv(source, kernel=kernel, stride=stride), ratio)


def unet(fill: Fill, *, padded: bool = False) -> bytes:
    """Two levels, all of whose convolutions are partial but the last."""
    net = Net(seed=8)
    first = partial(net, "image", kernel=3, stride=1, fill=fill, padded=padded)
    second = partial(net, first, kernel=5, stride=2, fill=fill, padded=padded)
    second = partial(net, second, kernel=7, stride=1, fill=fill, padded=padded)
    up = net.add("ConvTranspose", second, net.constant(np.ones((1, 1, 2, 2)), np.float32), strides=[2, 2])
    return net.model(net.conv(up))


def counted_deeper_than_seen() -> bytes:
    """A mask counted by a window of 9, beside an image that is read pixel by pixel: the mask alone has a halo."""
    net = Net(seed=9)
    ones = net.constant(np.ones((1, 1, 9, 9)), np.float32)
    seen = net.add("Conv", by_expand(net, "image"), ones, kernel_shape=[9, 9], pads=[4] * 4)
    return net.model(net.add("Mul", net.conv("image", kernel=1), seen))


def pooled() -> bytes:
    """The share of each window that lies in the image, by an average pool that counts its padding."""
    net = Net(seed=9)
    options = {"kernel_shape": [5, 5], "pads": [2] * 4, "count_include_pad": 1}
    share = net.add("AveragePool", by_constant_of_shape(net, "image"), **options)
    return net.model(net.add("Div", net.add("AveragePool", net.conv("image"), **options), share))


NETWORKS = {
    "by ConstantOfShape": unet(by_constant_of_shape),
    "by Expand": unet(by_expand),
    "padded": unet(by_constant_of_shape, padded=True),
    "counted deeper than seen": counted_deeper_than_seen(),
    "pooled": pooled(),
}
WHOLE_NUMBERS = {"counted deeper than seen"}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_remainder(name):
    model = NETWORKS[name]
    for size in ((80, 66), (81, 67), (79, 70)):
        assert check(model, *size, "tile", exact=name in WHOLE_NUMBERS) == ("", "tile")


def test_a_tile_holds_what_is_read_of_the_mask_alone():
    geometry = session(NETWORKS["counted deeper than seen"]).contract.geometry.y
    assert (geometry.halo_before, geometry.halo_after) == (0, 0)
    assert (geometry.margin_before, geometry.margin_after) == (4, 4)


def test_inspection_says_why_there_are_no_strips():
    found = inspect_network(prepare_network(onnx.load_from_string(NETWORKS["by Expand"]), name="partial"))
    assert found.geometry is not None
    assert "makes rows and reads none of the image" in found.no_strips_reason


def test_a_mask_that_does_not_grow_with_the_image_is_a_constant():
    """It is as large at every size, and what is made of it is resized: no edges move."""
    net = Net(seed=10)
    small = net.add("Expand", net.constant(1, np.float32), net.constant([1, 1, 4, 4]))
    net.add("Conv", small, net.constant(np.ones((1, 1, 3, 3)), np.float32), pads=[1] * 4)
    model = net.model(net.conv("image"))
    assert session(model).contract.geometry.y.halo_before == 1


def test_a_mask_with_other_numbers_is_still_an_obstacle():
    """A line of positions under a window: it is no map of one number."""
    net = Net(seed=11)
    height = net.add("Gather", net.add("Shape", "image"), net.constant(2), axis=0)
    line = net.add("Range", net.constant(0), height, net.constant(1))
    rows = net.add("Reshape", net.add("Cast", line, to=1), net.constant([1, 1, -1, 1]))
    spread = net.add("Expand", rows, net.add("Shape", "image"))
    seen = net.add("Conv", spread, net.constant(np.ones((1, 1, 3, 3)), np.float32), pads=[1] * 4)
    with pytest.raises(NotTileableError):
        session(net.model(net.add("Add", net.conv("image"), seen)))


def test_a_mask_beside_statistics_of_the_whole_image_is_an_obstacle():
    """Passes may begin at a map that no pixel reaches."""
    net = Net(seed=12)
    seen = partial(net, "image", kernel=3, stride=1, fill=by_expand)
    model = net.model(net.add("Mul", net.conv(seen), net.add("GlobalAveragePool", seen)))
    network = prepare_network(onnx.load_from_string(model), name="mean")
    with pytest.raises(NotTileableError, match="windows slide over the map that it fills"):
        deploy_in_passes(network, image_dtype="uint8")
