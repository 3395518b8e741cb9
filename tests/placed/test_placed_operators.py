"""Operators that depend on the position in the image: whole, tile and strip against one pass of plain ONNX Runtime.

Weights are small integers: where a nearest pixel is picked, results must agree bit for bit.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from exactile.errors import ExactileError, PlanError
from exactile.plan.tiles import TilePlan
from exactile.sinks.array import ArraySink
from exactile.sinks.tiff.sink import TiffSink
from exactile.sources.array import ArraySource
from tests.geometry.test_own_sizes import plain, session
from tests.runs.test_resume import StoppedError, StoppingSink
from tests.support import placed_nets
from tests.support.oracle import RUNTIME_ERRORS
from tests.support.placed_nets import Net

TOLERANCE = 2e-6
"""Relative to the largest value: weights are the same, sums are in another order."""

LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
ALIGNED = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}

REGION = {"coordinate_transformation_mode": "tf_crop_and_resize", "region": (0.0,) * 4 + (1.0,) * 4}

NETWORKS: dict[str, tuple[bytes, int]] = {
    "to the skip, linear": (placed_nets.two_levels(**LINEAR), 4),
    "to the skip, nearest": (placed_nets.two_levels(**NEAREST), 4),
    "to the skip, align_corners": (placed_nets.two_levels(**ALIGNED), 4),
    "to the skip, cubic": (placed_nets.two_levels(mode="cubic", cubic_coeff_a=-0.75), 4),
    "pyramid, linear": (placed_nets.pyramid(**LINEAR), 8),
    "pyramid, align_corners": (placed_nets.pyramid(**ALIGNED), 8),
    "by 2, align_corners": (placed_nets.by_scale(2.0, **ALIGNED), 1),
    "by 1.5": (placed_nets.by_scale(1.5, **LINEAR), 2),
    "by 1.5, nearest": (placed_nets.by_scale(1.5, **NEAREST), 2),
    "by 0.75": (placed_nets.by_scale(0.75, **LINEAR), 4),
    "by 2 and 1.5": (placed_nets.by_scale((2.0, 1.5), **LINEAR), 2),
    "to the skip, tf_crop_and_resize": (placed_nets.two_levels(mode="linear", **REGION), 4),
    "pyramid, nearest by tf_crop_and_resize": (placed_nets.pyramid(mode="nearest", **REGION), 8),
    "by 1.5, cubic by tf_crop_and_resize": (placed_nets.by_scale(1.5, mode="cubic", **REGION), 2),
    "by a half, antialiased": (placed_nets.by_scale(0.5, mode="linear", antialias=1), 2),
    "by 1.5, cubic, antialiased": (placed_nets.by_scale(1.5, mode="cubic", antialias=1), 2),
    "by 0.75, symmetric": (
        placed_nets.by_scale(0.75, mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
        4,
    ),
    "to the image less 3": (placed_nets.to_size(3, **LINEAR), 2),
    "to the image less 1, pytorch_half_pixel": (
        placed_nets.to_size(1, mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
        2,
    ),
}
EXACT = {name for name in NETWORKS if "nearest" in name}


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng([height, width]).integers(0, 8, (height, width, 1), np.uint8)


def one_pass(model: bytes, image: np.ndarray) -> np.ndarray:
    return plain(model).run(None, {"image": image.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]


def small_tile(model: bytes, height: int, width: int) -> tuple[int, int]:
    """A tile that has neighbours on each side, where the image allows that."""
    geometry = session(model).contract.geometry.of_size((height, width))
    sides = []
    for axis in (geometry.y, geometry.x):
        stride = axis.stride
        sides.append((-(-axis.margin_before // stride) - (-axis.margin_after // stride) + 2) * stride)
    return sides[0], sides[1]


def check(model: bytes, height: int, width: int, plan: str, *, exact: bool) -> tuple[str, str]:
    """Assert that the result is one pass, unless the image was extended; why it was, and the plan that ran."""
    image = image_of(height, width)
    expected = one_pass(model, image)
    tile = None if plan == "whole" else small_tile(model, height, width)
    if plan == "strip" and tile is not None:
        tile = (2 * session(model).contract.geometry.y.stride, tile[1])
    sink = ArraySink()
    summary = session(model).segment(ArraySource(image), sink, plan=plan, tile=tile)
    if summary.padded_because:
        return summary.padded_because, summary.plan
    assert sink.result.shape == expected.shape
    if exact:
        assert np.array_equal(sink.result, expected)
    else:
        largest = np.abs(expected).max()
        assert np.abs(sink.result - expected).max() <= TOLERANCE * largest
    return "", summary.plan


@pytest.mark.parametrize("plan", ["whole", "tile", "strip"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_remainder(name, plan):
    """Heights and widths of every remainder modulo the stride, of tiles and strips that have neighbours."""
    model, stride = NETWORKS[name]
    base = session(model).contract.geometry.y
    assert max(base.stride, session(model).contract.geometry.x.stride) == stride
    rows = (-(-(base.margin_before + base.margin_after) // stride) + 9) * stride
    for more in range(stride):
        padded, ran = check(model, rows + more, rows + 2 * stride + (more * 3 + 1) % stride, plan, exact=name in EXACT)
        assert (padded, ran) == ("", plan)


@pytest.mark.parametrize("name", ["to the skip, linear", "pyramid, align_corners", "to the skip, nearest"])
def test_pushed_rows(name):
    """Of a known height, which the rows depend on; without it the stream says so."""
    model, _ = NETWORKS[name]
    for height, width in ((157, 121), (160, 128)):
        image, results = image_of(height, width), []
        with session(model).stream(width=width, dtype="uint8", height=height) as stream:
            for row in range(0, height, 7):
                results += stream.push(image[row : row + 7])
            results += stream.close()
        found, expected = np.concatenate([piece for _, piece in results], axis=-2), one_pass(model, image)
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    with pytest.raises(PlanError, match="give it with height="):
        session(model).stream(width=121, dtype="uint8")


@pytest.mark.parametrize("plan", ["tile", "strip"])
def test_a_stopped_run_is_resumed_to_the_same_bytes(plan, tmp_path):
    """Strips begin anew somewhere in the image, with a first strip that is not at its top."""
    model, _ = NETWORKS["pyramid, align_corners"]
    image, source = tmp_path / "a.tif", ArraySource(image_of(403, 161))
    options = {"plan": plan, "tile": (88, 88) if plan == "tile" else (16, 96)}
    counting = StoppingSink(tmp_path / "whole.tif", tile=32)
    counting.writes = 10_000
    session(model).segment(source, counting, **options)
    most = 10_000 - counting.writes
    for writes in (most // 2, most - 1):
        sink = StoppingSink(image, tile=32, resumable=True)
        sink.writes = writes
        with pytest.raises(StoppedError):
            session(model).segment(source, sink, **options)
        summary = session(model).segment(source, TiffSink(image, tile=32, resumable=True), resume=True, **options)
        assert summary.kept_pixels > 0
        assert image.read_bytes() == (tmp_path / "whole.tif").read_bytes()
        image.unlink()


def test_images_longer_than_positions_are_exact_are_refused():
    model, _ = NETWORKS["by 2, align_corners"]
    geometry = session(model).contract.geometry
    TilePlan.of(geometry, (500, 1 << 19), "model", (500, 4096))
    with pytest.raises(PlanError, match="exact up to 1,048,576 pixels"):
        TilePlan.of(geometry, (500, (1 << 19) + 1), "model", (500, 4096))


MODES = st.one_of(
    st.fixed_dictionaries(
        {
            "mode": st.just("nearest"),
            "coordinate_transformation_mode": st.sampled_from(
                ["asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]
            ),
            "nearest_mode": st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
        }
    ),
    st.fixed_dictionaries(
        {
            "mode": st.sampled_from(["linear", "cubic"]),
            "coordinate_transformation_mode": st.sampled_from(
                ["asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]
            ),
        }
    ),
)
DOWN = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 1))
"""Kernel, stride, and whether to pool."""


@st.composite
def networks(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Some layers down, and resizes back to some of their maps; whether all pick nearest pixels."""
    net = Net(seed=draw(st.integers(0, 99)))
    maps = ["image"]
    for kernel, stride, pools in draw(st.lists(DOWN, min_size=1, max_size=2)):
        maps.append(net.pool(maps[-1], kernel, stride, 1) if pools else net.conv(maps[-1], kernel, stride))
    value, exact = maps[-1], True
    for target in draw(st.lists(st.sampled_from(range(len(maps))), min_size=1, max_size=2)):
        attributes = draw(MODES)
        exact &= attributes["mode"] == "nearest"
        if draw(st.booleans()):
            value = net.join(net.resize(value, like=maps[target], **attributes), maps[target])
        else:
            value = net.resize(value, scale=draw(st.sampled_from([0.5, 0.75, 1.25, 1.5, 2.0, 4.0])), **attributes)
        value = net.conv(value, draw(st.integers(1, 3)))
    return net.model(value), exact


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    made=networks(),
    height=st.integers(60, 130),
    width=st.integers(60, 130),
    plan=st.sampled_from(["tile", "strip"]),
)
def test_random_networks(made, height, width, plan):
    """What is run without extending the image is one pass over it; what cannot be cut is refused with an error."""
    model, exact = made
    try:
        one_pass(model, image_of(height, width))
    except RUNTIME_ERRORS:
        reject()
    try:
        check(model, height, width, plan, exact=exact)
    except ExactileError as error:
        assert str(error)  # noqa: PT017
