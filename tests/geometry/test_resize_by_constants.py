"""Nearest resizes to sizes that differ from a whole factor by a constant: results in pieces are one pass, bit for bit.

A transposed convolution makes 2n - 1 rows where the skip connection has 2n, and a Resize repeats a row. By
``position(i) = i * (2n - 1) / 2n`` that is the first one, and every other is taken from one row before. In single
precision, and where sizes differ by more than one, which row is repeated follows from the size: tiles and strips are
told where they lie, and compute the index as the engine does for the whole map.
"""

from __future__ import annotations

import numpy as np
import pytest

from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from tests.geometry.test_own_sizes import session
from tests.placed.test_placed_operators import check, image_of, one_pass
from tests.support.placed_nets import Net

MODES = (
    ("floor", "half_pixel"),
    ("ceil", "asymmetric"),
    ("round_prefer_floor", "pytorch_half_pixel"),
    ("round_prefer_ceil", "align_corners"),
    ("round_prefer_floor", "tf_half_pixel_for_nn"),
    ("round_prefer_ceil", "half_pixel_symmetric"),
)


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


def to_the_skip(lost: int, nearest_mode: str = "floor", coordinates: str = "asymmetric", levels: int = 1) -> bytes:
    """Each of the ``levels`` up-sampled to 2n - ``lost`` rows and resized to those of its skip connection."""
    net, how = Net(seed=4), {"nearest_mode": nearest_mode, "coordinate_transformation_mode": coordinates}
    skips = [net.conv("image")]
    for _ in range(levels):
        skips.append(net.conv(net.pool(skips[-1])))
    up = skips.pop()
    for skip in reversed(skips):
        up = net.add("Add", net.resize(transposed(net, up, lost=lost), like=skip, mode="nearest", **how), skip)
    return net.model(net.conv(up))


@pytest.mark.parametrize("plan", ["tile", "strip"])
@pytest.mark.parametrize(("lost", "levels"), [(-1, 1), (1, 2), (2, 1)])
def test_every_remainder(lost, levels, plan):
    model = to_the_skip(lost, levels=levels)
    for size in ((92, 88), (93, 91), (94, 89), (95, 90)):
        assert check(model, *size, plan, exact=True) == ("", plan)


@pytest.mark.parametrize(("nearest_mode", "coordinates"), MODES)
def test_every_mode(nearest_mode, coordinates):
    """One row and column less than the factor says, at sizes that are a multiple of the stride, and that are none."""
    model = to_the_skip(1, nearest_mode, coordinates)
    for size in ((61, 54), (60, 53)):
        assert check(model, *size, "tile", exact=True) == ("", "tile")


def test_rows_that_single_precision_moves():
    """Of 6,845 rows enlarged by one the last comes out one below the formula's: tiles take what one pass takes."""
    rows = 6846
    scale = np.float32(rows) / np.float32(rows - 1)
    picked = np.floor(np.arange(rows, dtype=np.float32) / scale).astype(int)
    exact = np.arange(rows) * (rows - 1) // rows
    assert np.flatnonzero(picked != exact).tolist() == [rows - 1]
    model, image, sink = to_the_skip(1), image_of(rows, 24), ArraySink()
    assert session(model).segment(ArraySource(image), sink, plan="tile", tile=(1024, 24)).tiles > 4
    assert np.array_equal(sink.result, one_pass(model, image))


def test_the_halo_is_that_of_windows_and_a_pixel_or_two():
    """Not that of the whole map: each Resize adds its shift and what positions are rounded by."""
    geometry = session(to_the_skip(1)).contract.geometry
    assert geometry.y.halo_before <= 32
    assert geometry.y.halo_after <= 24
