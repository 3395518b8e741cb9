"""Flips that are undone: tiles are one pass over the image, bit for bit. Flips that are not undone are refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

from exactile.errors import NotTileableError
from exactile_converters.deploy import deploy_in_passes
from exactile_converters.inspection import inspect_network
from exactile_converters.prepare.from_onnx import prepare_network
from tests.geometry.test_own_sizes import plain, session
from tests.placed.test_placed_operators import check, image_of
from tests.support.placed_nets import Net

FIRST = -(2**63)
ROWS, COLUMNS = 2, 3


def flipped(net: Net, source: str, *axes: int) -> str:
    """As PyTorch exports ``torch.flip``."""
    ends = net.constant([FIRST] * len(axes))
    back = net.constant([-1] * len(axes))
    return net.add("Slice", source, back, ends, net.constant(axes), back, channels=net.channels[source])


def transposed(net: Net, source: str) -> str:
    return net.add("Transpose", source, perm=[0, 1, 3, 2], channels=net.channels[source])


def branch(net: Net, source: str) -> str:
    """Down by a window that is not symmetric, and up again; its halo is wider above than below."""
    down = net.conv(net.conv(source, kernel=4, pads=(3, 0)), kernel=3, stride=2, pads=(1, 1))
    twice = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return net.conv(net.resize(net.conv(down, kernel=5), scale=2.0, **twice))


def augmented(ways: Sequence[tuple[int, ...]]) -> bytes:
    """The sum of one branch on the image as it is and flipped along each of ``ways``, flipped back."""
    net = Net(seed=5)
    total = branch(net, "image")
    for axes in ways:
        total = net.add("Add", total, flipped(net, branch(net, flipped(net, "image", *axes)), *axes))
    return net.model(net.conv(total))


def rotated() -> bytes:
    """By a quarter turn and back: a flip and a transposition each."""
    net = Net(seed=6)
    turned = transposed(net, flipped(net, "image", COLUMNS))
    back = flipped(net, transposed(net, branch(net, turned)), COLUMNS)
    return net.model(net.conv(net.add("Add", branch(net, "image"), back)))


NETWORKS = {
    "rows": augmented([(ROWS,)]),
    "columns": augmented([(COLUMNS,)]),
    "both at once": augmented([(ROWS, COLUMNS)]),
    "all four": augmented([(ROWS,), (COLUMNS,), (ROWS, COLUMNS)]),
    "a quarter turn": rotated(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_remainder(name):
    model = NETWORKS[name]
    for size in ((64, 66), (67, 65), (66, 69), (65, 68)):
        assert check(model, *size, "tile", exact=True) == ("", "tile")


def test_the_halo_is_that_of_both_directions():
    """Beyond it nothing matters; the window that looks above looks below where the image is flipped."""
    model = NETWORKS["rows"]
    alone = session(single()).contract.geometry
    both = session(model).contract.geometry
    assert alone.y.halo_before > alone.y.halo_after
    assert both.y.halo_before == both.y.halo_after == alone.y.halo_before
    assert (both.x.halo_before, both.x.halo_after) == (alone.x.halo_before, alone.x.halo_after)
    image, box = image_of(96, 24), slice(48, 50)
    base = plain(model).run(None, {"image": as_input(image)})[0][0, 0, box]
    for outside in (slice(0, 48 - both.y.before), slice(50 + both.y.after, None)):
        other = image.copy()
        other[outside] += 1
        assert np.array_equal(plain(model).run(None, {"image": as_input(other)})[0][0, 0, box], base)


def single() -> bytes:
    net = Net(seed=5)
    return net.model(net.conv(branch(net, "image")))


def as_input(image: np.ndarray) -> np.ndarray:
    return image.transpose(2, 0, 1)[None].astype(np.float32)


def test_inspection_says_why_there_are_no_strips():
    found = inspect_network(prepare_network(onnx.load_from_string(NETWORKS["rows"]), name="rows"))
    assert found.strips is None
    assert "flips the image" in found.no_strips_reason
    assert found.profile is not None
    assert found.profile.steps[-1].cumulative == max(found.geometry.y.halo_before, found.geometry.x.halo_before)


def left_flipped() -> bytes:
    net = Net(seed=7)
    return net.model(net.conv(flipped(net, branch(net, "image"), ROWS)))


def joined_with_the_image() -> bytes:
    net = Net(seed=7)
    return net.model(net.conv(net.add("Add", flipped(net, net.conv("image"), ROWS), "image")))


def half_undone() -> bytes:
    net = Net(seed=7)
    return net.model(net.conv(flipped(net, net.conv(flipped(net, "image", ROWS, COLUMNS)), ROWS)))


def padded_by_reflection() -> bytes:
    net = Net(seed=7)
    pads = net.constant([0, 0, 2, 2, 0, 0, 2, 2])
    padded = net.add("Pad", flipped(net, "image", ROWS), pads, mode="reflect")
    return net.model(flipped(net, net.conv(padded, kernel=5, pads=(0, 0)), ROWS))


def cropped() -> bytes:
    """A convolution without padding: which end of the image it shortens is not the same in a flipped map."""
    net = Net(seed=7)
    return net.model(flipped(net, net.conv(flipped(net, "image", ROWS), kernel=5, pads=(0, 0)), ROWS))


REFUSED = {
    "cropped": (cropped, "the output has lost or gained pixels at its edges"),
    "left flipped": (left_flipped, "the output is still flipped along y"),
    "joined with the image": (joined_with_the_image, "some are flipped along y and others are not"),
    "half undone": (half_undone, "the output is still flipped along x"),
    "padded by reflection": (padded_by_reflection, "reflects pixels at the edges"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_flip_that_is_not_undone_is_an_obstacle(case):
    make, reason = REFUSED[case]
    with pytest.raises(NotTileableError, match=reason):
        session(make())


def test_a_flip_beside_statistics_of_the_whole_image_is_an_obstacle():
    """Undone, too: the zones whose statistics passes merge are those of maps that are not flipped."""
    net = Net(seed=7)
    there_and_back = flipped(net, net.conv(flipped(net, "image", ROWS)), ROWS)
    mean = net.add("GlobalAveragePool", there_and_back)
    network = prepare_network(onnx.load_from_string(net.model(net.add("Mul", net.conv("image"), mean))), name="mean")
    with pytest.raises(NotTileableError, match="statistics of the whole image are taken beside it"):
        deploy_in_passes(network, image_dtype="uint8")
