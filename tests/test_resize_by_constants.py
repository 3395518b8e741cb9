"""Nearest resizes to sizes that differ from a whole factor by a constant: results in pieces are one pass, bit for bit.

A transposed convolution makes 2n - 1 rows where the skip connection has 2n, and a Resize repeats a row. By
``position(i) = i * (2n - 1) / 2n`` that is the first one, and every other is taken from one row before. In single
precision, and where sizes differ by more than one, which row is repeated follows from the size: tiles and strips are
told where they lie, and compute the index as the engine does for the whole map.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.placed_nets import Net
from tests.test_own_sizes import session
from tests.test_placed_operators import check

MODES = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
COORDINATES = ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners", "tf_half_pixel_for_nn")


def transposed(net: Net, source: str, *, lost: int) -> str:
    """A transposed convolution to 2n - ``lost`` rows; 2n + 1 of them are 3 pixels wide, cropped by 1 + ``lost``."""
    weights = np.random.default_rng(lost + 9).integers(-2, 3, (1, 1, 3, 3))
    before, after = (1 + lost) // 2, (2 + lost) // 2
    return net.add(
        "ConvTranspose",
        source,
        net.constant(weights, np.float32),
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[before, before, after, after],
    )


def to_the_skip(lost: int, nearest_mode: str = "floor", coordinates: str = "asymmetric") -> bytes:
    """Two levels, each up-sampled to 2n - ``lost`` rows and resized to those of its skip connection."""
    net, how = Net(seed=4), {"nearest_mode": nearest_mode, "coordinate_transformation_mode": coordinates}
    first = net.conv("image")
    second = net.conv(net.pool(first))
    third = net.conv(net.pool(second))
    up = net.add("Add", net.resize(transposed(net, third, lost=lost), like=second, mode="nearest", **how), second)
    up = net.resize(transposed(net, up, lost=lost), like=first, mode="nearest", **how)
    return net.model(net.conv(net.add("Add", up, first)))


@pytest.mark.parametrize("plan", ["tile", "strip"])
@pytest.mark.parametrize("lost", [-1, 1, 2])
def test_every_remainder(lost, plan):
    model = to_the_skip(lost)
    for height, width in itertools.product((92, 93, 94, 95), (88, 91)):
        assert check(model, height, width, plan, exact=True) == ("", plan)


@pytest.mark.parametrize(("nearest_mode", "coordinates"), itertools.product(MODES, COORDINATES))
def test_every_mode(nearest_mode, coordinates):
    """One row and column less than the factor says, at a size that is no multiple of the stride, and at one that is."""
    model = to_the_skip(1, nearest_mode, coordinates)
    for size in ((97, 94), (96, 92)):
        assert check(model, *size, "tile", exact=True) == ("", "tile")


def test_rows_that_single_precision_moves():
    """Of 6,845 rows enlarged by one the last comes out one below the formula's: tiles take what one pass takes."""
    rows = 6846
    scale = np.float32(rows) / np.float32(rows - 1)
    picked = np.floor(np.arange(rows, dtype=np.float32) / scale).astype(int)
    exact = np.arange(rows) * (rows - 1) // rows
    assert np.flatnonzero(picked != exact).tolist() == [rows - 1]
    assert check(to_the_skip(1), rows, 40, "tile", exact=True) == ("", "tile")


def test_the_halo_is_that_of_windows_and_a_pixel_or_two():
    """Not that of the whole map: each Resize adds its shift and what positions are rounded by."""
    geometry = session(to_the_skip(1)).contract.geometry
    assert geometry.y.halo_before <= 32
    assert geometry.y.halo_after <= 24
