"""Maps computed from the image's size: coordinates, position encodings, numbers. Against plain ONNX Runtime."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from exactile.errors import NotTileableError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.placed_nets import Net

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


def with_positions_of_two_axes() -> bytes:
    """5 x 7 learned positions, resized along the axes that are named, counted from the end."""
    net = Net(seed=9)
    learned = net.constant(np.random.default_rng(1).standard_normal((1, 1, 5, 7)), np.float32)
    size = net.add("Shape", "image", start=-2)
    return net.model(net.conv(net.add("Add", "image", net.add("Resize", learned, "", "", size, axes=[-2, -1]))))


def with_sines() -> bytes:
    """Sines and cosines of four frequencies take turns in the channels of a position encoding, for each row."""
    net = Net(seed=10)
    last = net.constant([3])
    angles = net.add("Mul", along(net, count(net, "image", 2), 2), net.constant([1, 0.5, 0.25, 0.125], np.float32))
    waves = []
    for which, op in enumerate(("Sin", "Cos")):
        some = net.add("Slice", angles, net.constant([which]), net.constant([1 << 40]), last, net.constant([2]))
        waves.append(net.add("Unsqueeze", net.add(op, some), net.constant([4])))
    pairs = net.add("Concat", *waves, axis=-1)
    kept = net.add("Slice", net.add("Shape", pairs), net.constant([0]), last)
    flat = net.add("Reshape", pairs, net.add("Concat", kept, net.constant([-1]), axis=0))
    encoding = net.add("Transpose", flat, perm=[0, 3, 2, 1])
    maps = net.join(*(net.conv("image") for _ in range(4)))
    return net.model(net.conv(net.add("Add", maps, encoding, channels=4)))


def with_sums() -> bytes:
    """Rows counted by summing up ones, over the sum of all."""
    net = Net(seed=11)
    height = net.add("Shape", "image", start=2, end=3)
    counted = net.add("CumSum", net.add("Expand", net.constant(1, np.float32), height), net.constant(0))
    total = net.add("Slice", counted, net.constant([-1]), net.constant([1 << 40]))
    return net.model(net.conv(net.add("Add", "image", along(net, net.add("Div", counted, total), 2))))


def with_sums_of_a_mask() -> bytes:
    """Ones as large as a reduced map, summed up along rows and along columns, over the last of each."""
    net = Net(seed=16)
    half = net.conv("image", stride=2)
    one = numpy_helper.from_array(np.ones(1, np.float32))
    mask = net.add("ConstantOfShape", net.add("Shape", half), value=one)
    found = [half]
    for dim in (2, 3):
        summed = net.add("CumSum", mask, net.constant(dim))
        last = net.add("Slice", summed, net.constant([-1]), net.constant([1 << 40]), net.constant([dim]))
        found.append(net.add("Div", summed, last))
    return net.model(net.conv(net.join(*found)))


def with_a_part_of_a_range() -> bytes:
    """Steps of a tenth from the fourth on, as single precision sums them up."""
    net = Net(seed=12)
    limit = net.add("Mul", net.add("Add", real_size(net, "image", 2), net.constant(5, np.float32)), tenth(net))
    steps = net.add("Range", net.constant(0, np.float32), limit, tenth(net))
    height = net.add("Shape", "image", start=2, end=3)
    part = net.add("Slice", steps, net.constant([3]), net.add("Add", height, net.constant([3])))
    return net.model(net.conv(net.add("Mul", net.conv("image"), along(net, part, 2))))


def tenth(net: Net) -> str:
    return net.constant(0.1, np.float32)


def with_one_range_for_two_channels() -> bytes:
    """Twice as many numbers as rows, the second half for the second channel: no tile's part of them is one piece."""
    net = Net(seed=13)
    height = net.add("Gather", net.add("Shape", "image"), net.constant(2), axis=0)
    numbers = net.add("Range", net.constant(0), net.add("Mul", height, net.constant(2)), net.constant(1))
    halves = net.add("Reshape", net.add("Cast", numbers, to=TensorProto.FLOAT), net.constant([1, 2, -1, 1]), channels=2)
    return net.model(net.conv(net.add("Add", net.join("image", "image"), halves, channels=2)))


def with_a_longer_range() -> bytes:
    """All rows but the last one are counted, and another number comes after them."""
    net = Net(seed=14)
    height = net.add("Gather", net.add("Shape", "image"), net.constant(2), axis=0)
    counted = net.add("Range", net.constant(0), net.add("Sub", height, net.constant(1)), net.constant(1))
    numbers = net.add("Concat", net.add("Cast", counted, to=TensorProto.FLOAT), net.constant([7], np.float32), axis=0)
    return net.model(net.conv(net.add("Add", "image", along(net, numbers, 2))))


def by_sizes_of_other_maps() -> bytes:
    """The width, asked of a transposed map; the number of pixels, of a flattened one; and the number of entries."""
    net = Net(seed=15)
    turned = net.add("Transpose", "image", perm=[0, 1, 3, 2])
    flat = net.add("Reshape", "image", net.constant([1, 1, -1]))
    entries = net.add("Cast", net.add("Size", "image"), to=TensorProto.FLOAT)
    found = net.conv("image")
    for number in (real_size(net, turned, 2), real_size(net, flat, 2), entries):
        found = net.add("Div", found, number)
    return net.model(net.conv(found))


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
    "learned, of two axes": with_positions_of_two_axes(),
    "sines": with_sines(),
    "sums": with_sums(),
    "sums of a mask": with_sums_of_a_mask(),
    "part of a range": with_a_part_of_a_range(),
    "one range for two channels": with_one_range_for_two_channels(),
    "a longer range": with_a_longer_range(),
    "sizes of other maps": by_sizes_of_other_maps(),
}
EXACT = {"rows of a reduced map", "one range for two channels", "a longer range", "part of a range"}


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


def test_random_numbers_and_sums_over_uneven_maps_stay_obstacles():
    """A tile can not begin in the middle of the running sum of a map; random numbers are others each time."""
    sums, random = Net(), Net()
    y, x = (along(sums, count(sums, "image", dim), dim) for dim in (2, 3))
    summed = sums.add("Add", "image", sums.add("CumSum", sums.add("Add", y, x), sums.constant(2)))
    noise = random.add("Add", "image", random.add("RandomUniformLike", random.add("Shape", "image"), dtype=1))
    for net, result in ((sums, summed), (random, noise)):
        prepared = prepare_network(onnx.load_from_string(net.model(net.conv(result))), name="no")
        with pytest.raises(NotTileableError):
            deploy(prepared, image_dtype="uint8")
