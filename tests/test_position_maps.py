"""Maps computed from the image's size: coordinates, position encodings, numbers. Against plain ONNX Runtime."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from exactile.errors import NotTileableError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.from_onnx import prepare_network
from tests.placed_nets import Net

TOLERANCE = 2e-6


def count(net: Net, like: str, dim: int) -> str:
    """0, 1, 2 ... along a dimension of a map, float32 (n,)."""
    size = net.add("Gather", net.add("Shape", like), net.constant(dim), axis=0)
    return net.add("Cast", net.add("Range", net.constant(0), size, net.constant(1)), to=TensorProto.FLOAT)


def real_size(net: Net, like: str, dim: int) -> str:
    size = net.add("Gather", net.add("Shape", like), net.constant(dim), axis=0)
    return net.add("Cast", size, to=TensorProto.FLOAT)


def along(net: Net, line: str, dim: int) -> str:
    """(n,) as (1, 1, n, 1) or (1, 1, 1, n)."""
    return net.add("Unsqueeze", line, net.constant([0, 1, 3] if dim == 2 else [0, 1, 2]))


def coordinates(net: Net, like: str) -> list[str]:
    """From -1 to 1 along rows and columns, as large as the map."""
    shape = net.add("Slice", net.add("Shape", like), net.constant([2]), net.constant([4]))
    target = net.add("Concat", net.constant([1, 1]), shape, axis=0)
    found = []
    for dim in (2, 3):
        last = net.add("Sub", real_size(net, like, dim), net.constant(1, np.float32))
        scaled = net.add("Div", along(net, count(net, like, dim), dim), last)
        found.append(net.add("Expand", net.add("Sub", scaled, net.constant(0.5, np.float32)), target))
    return found


def with_coordinates() -> bytes:
    net = Net(seed=4)
    return net.model(net.conv(net.join("image", *coordinates(net, "image"))))


def with_rows_of_a_reduced_map() -> bytes:
    """A column of numbers is added to a map of half the size: integers, bit for bit."""
    net = Net(seed=5)
    half = net.conv("image", stride=2)
    return net.model(net.conv(net.add("Add", half, along(net, count(net, half, 2), 2))))


def by_the_size() -> bytes:
    """Divided by the height of the image."""
    net = Net(seed=6)
    return net.model(net.conv(net.add("Div", net.conv("image"), real_size(net, "image", 2))))


def with_distances() -> bytes:
    """How far each pixel is from the corner: rows and columns in one map."""
    net = Net(seed=7)
    y, x = (along(net, count(net, "image", dim), dim) for dim in (2, 3))
    squares = net.add("Add", net.add("Mul", y, y), net.add("Mul", x, x))
    return net.model(net.conv(net.join("image", net.add("Sqrt", squares))))


def with_learned_positions(**attributes) -> bytes:
    """5 x 7 learned positions, resized to the size of a reduced map."""
    net = Net(seed=8)
    half = net.conv("image", stride=2)
    learned = net.constant(np.random.default_rng(0).standard_normal((1, 1, 5, 7)), np.float32)
    net.channels[learned] = 1
    return net.model(net.conv(net.add("Add", half, net.resize(learned, like=half, **attributes))))


NETWORKS = {
    "coordinates": with_coordinates(),
    "rows of a reduced map": with_rows_of_a_reduced_map(),
    "by the size": by_the_size(),
    "distances": with_distances(),
    "learned, linear": with_learned_positions(mode="linear"),
    "learned, cubic, aligned": with_learned_positions(
        mode="cubic", coordinate_transformation_mode="align_corners", cubic_coeff_a=-0.75
    ),
    "learned, nearest": with_learned_positions(mode="nearest"),
}
EXACT = {"rows of a reduced map"}


@cache
def session(model: bytes) -> Session:
    prepared = prepare_network(onnx.load_from_string(model), name="positions")
    return Session(deploy(prepared, image_dtype="uint8", output="raw"), threads=1)


@pytest.mark.parametrize("plan", ["whole", "tile", "strip"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_place_has_its_own_value(name, plan):
    model = NETWORKS[name]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    plain = onnxruntime.InferenceSession(model, options)
    for height, width in ((64, 56), (65, 59), (71, 58)):
        image = np.random.default_rng([height, width]).integers(0, 8, (height, width, 1), np.uint8)
        expected = plain.run(None, {"image": image.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
        sink = ArraySink()
        tile = {"whole": None, "tile": (20, 22), "strip": (4, 24)}[plan]
        summary = session(model).segment(ArraySource(image), sink, plan=plan, tile=tile)
        assert (summary.plan, summary.padded_because) == (plan, "")
        if name in EXACT:
            assert np.array_equal(sink.result, expected)
        else:
            assert np.abs(sink.result - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_random_numbers_and_sums_over_positions_stay_obstacles():
    """A running sum along the image is nothing that a tile can begin in the middle of; random numbers are others."""
    sums, random = Net(), Net()
    ones = sums.add("Expand", sums.constant(1, np.float32), sums.add("Shape", "image"))
    summed = sums.add("Add", "image", sums.add("CumSum", ones, sums.constant(2)))
    noise = random.add("Add", "image", random.add("RandomUniformLike", random.add("Shape", "image"), dtype=1))
    for net, result in ((sums, summed), (random, noise)):
        prepared = prepare_network(onnx.load_from_string(net.model(net.conv(result))), name="no")
        with pytest.raises(NotTileableError):
            deploy(prepared, image_dtype="uint8")
