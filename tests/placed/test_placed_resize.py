"""A Resize on pieces of its operand is the Resize of the whole: pixels, weights, and every cut of the result."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import ceil

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from benchmarks import placed_resize as benchmark
from exactile_converters.placed.place import Place
from exactile_converters.placed.resampling import Resampling
from exactile_converters.placed.resize import placed_resize
from exactile_converters.strips.chunks import GraphBuilder

MOST_TAPS = 57
"""Enough for maps that shrink by 14."""

PLACE_NAMES = ("begin", "count", "source", "source_size", "result_size")
COORDINATES = [
    *["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"],
    *["asymmetric", "align_corners", "tf_half_pixel_for_nn", "tf_crop_and_resize"],
]
NEAREST = [
    {"mode": "nearest", "nearest_mode": rounding}
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
]
WEIGHTED = [
    {"mode": "linear"},
    {"mode": "cubic"},
    {"mode": "cubic", "cubic_coeff_a": -0.3},
    {"mode": "cubic", "exclude_outside": 1},
]
ANTIALIASED = [
    {"mode": "linear", "antialias": 1},
    {"mode": "cubic", "antialias": 1},
    {"mode": "linear", "antialias": 1, "exclude_outside": 1},
    {"mode": "cubic", "antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.3},
]
SHAPE = (1, 3, 11, 14)
ODD = (2, 2, 1, 5)
BY_SCALES = [(1.5, 0.7), (2, 3), (1 / 3, 0.5), (1.2, 1.01), (1, 2.4), (1.04, 1.03)]
TO_SIZES = [(21, 27), (1, 1), (7, 31), (11, 20), (40, 5)]
MOST_RELATIVE = 2e-6


def quiet(*, arena: bool = True) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return options


def run(nodes, inputs, constants, feeds, opset: int, rank: int, element_type: int) -> np.ndarray:
    infos = [helper.make_tensor_value_info("x", element_type, [None] * rank)]
    infos += [helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in inputs]
    result = helper.make_tensor_value_info("y", element_type, [None] * rank)
    graph = helper.make_graph(nodes, "g", infos, [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return opened(model.SerializeToString()).run(None, feeds)[0]


@lru_cache(maxsize=8)  # maps of several shapes in turn
def opened(model: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(model, quiet())


def whole(x: np.ndarray, attributes, *, scales=None, sizes=None, opset=19, op="Resize") -> np.ndarray:
    """ONNX Runtime's own; an Upsample or an old Resize has scales only."""
    name, given = ("scales", np.array(scales, np.float32)) if sizes is None else ("sizes", np.array(sizes, np.int64))
    inputs = ["x", "scales"] if opset < 11 else ["x", "roi", "scales"] if sizes is None else ["x", "roi", "", "sizes"]
    constants = [numpy_helper.from_array(given, name)]
    if opset > 10:
        region = np.repeat(np.array([0, 1], np.float32), x.ndim)
        constants.append(numpy_helper.from_array(region, "roi"))
    element_type = helper.np_dtype_to_tensor_dtype(x.dtype)
    nodes = [helper.make_node(op, inputs, ["y"], **attributes)]
    return run(nodes, [], constants, {"x": x}, opset, x.ndim, element_type)


class Placed:
    """The same by the nodes under test, for any pieces."""

    def __init__(
        self,
        attributes,
        scales: dict[int, float | None],
        rank=4,
        *,
        dtype=np.float32,
        opset=19,
        op="Resize",
        arena=True,
        most_taps=MOST_TAPS,
    ):
        self.element_type, self.rank = helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), rank
        build = GraphBuilder()
        places = [
            Place(dim=dim, scale=scale, most_taps=most_taps, **{name: f"{name}_{dim}" for name in PLACE_NAMES})
            for dim, scale in scales.items()
        ]
        how = Resampling.of(op, opset, attributes)
        name = placed_resize(build, "x", rank, places, how, element_type=self.element_type)
        nodes = [*build.nodes, helper.make_node("Identity", [name], ["y"])]
        inputs = [helper.make_tensor_value_info("x", self.element_type, [None] * rank)]
        inputs += [
            helper.make_tensor_value_info(getattr(place, name), TensorProto.INT64, [1])
            for place in places
            for name in PLACE_NAMES
        ]
        result = helper.make_tensor_value_info("y", self.element_type, [None] * rank)
        graph = helper.make_graph(nodes, "g", inputs, [result], list(build.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", max(opset, 11))], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        self.session = ort.InferenceSession(model.SerializeToString(), quiet(arena=arena))

    def __call__(self, part: np.ndarray, **places) -> np.ndarray:
        """``places`` are ``d2=(begin, end, source, source_size, result_size)`` for each dimension."""
        feeds = {"x": part}
        for dim, place in places.items():
            begin, end, *rest = place
            told = zip(PLACE_NAMES, (begin, end - begin, *rest), strict=True)
            feeds |= {f"{name}_{dim[1:]}": np.array([at]) for name, at in told}
        (found,) = self.session.run(None, feeds)
        return found

    def at_once(self, x: np.ndarray, result_shape, dims) -> np.ndarray:
        return self(x, **{f"d{dim}": (0, result_shape[dim], 0, x.shape[dim], result_shape[dim]) for dim in dims})


def taps(shrinks: float) -> int:
    """No more than a cubic filter needs for a map that ``shrinks`` by so much: each costs nodes."""
    return 2 * ceil(2 * max(1, shrinks)) + 1


def random_map(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    if expected.size:
        assert np.abs(found - expected).max() <= MOST_RELATIVE * np.abs(expected).max()


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize(
    "kind", [*NEAREST, *WEIGHTED, *ANTIALIASED], ids=lambda kind: "-".join(map(str, kind.values()))
)
def test_one_piece_is_what_onnx_runtime_makes_of_the_whole_map(kind, coordinates):
    """Up, down, by fractions, to sizes, to and from a single pixel; nearest bit for bit."""
    attributes = {**kind, "coordinate_transformation_mode": coordinates}
    compare = np.testing.assert_array_equal if kind["mode"] == "nearest" else assert_close
    to_sizes = Placed(attributes, {2: None, 3: None})
    for shape, (height, width) in product((SHAPE, ODD), TO_SIZES):
        x = random_map(shape)
        expected = whole(x, attributes, sizes=[*shape[:2], height, width])
        compare(to_sizes.at_once(x, expected.shape, (2, 3)), expected)
    for scales in BY_SCALES:
        by_scales = Placed(attributes, dict(zip((2, 3), scales, strict=True)), most_taps=taps(1 / min(scales)))
        for shape in (SHAPE, ODD):
            x = random_map(shape)
            expected = whole(x, attributes, scales=[1, 1, *scales])
            if expected.size:
                compare(by_scales.at_once(x, expected.shape, (2, 3)), expected)


@pytest.mark.parametrize(
    "kind", [{"mode": "nearest"}, *WEIGHTED, *ANTIALIASED], ids=lambda k: "-".join(map(str, k.values()))
)
def test_what_float32_puts_behind_the_last_pixel_is_extrapolated(kind):
    """(n2 - 1) (n1 - 1) / (n2 - 1) is not n1 - 1 in float32 for these: ONNX Runtime extrapolates the last pixel."""
    attributes = {**kind, "coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.3}
    x = random_map((1, 1, 3, 25479))
    expected = whole(x, attributes, sizes=[1, 1, 5, 28860])
    assert (expected[..., -1] == np.float32(7.3)).all()
    compare = np.testing.assert_array_equal if kind["mode"] == "nearest" else assert_close
    compare(Placed(attributes, {2: None, 3: None}).at_once(x, expected.shape, (2, 3)), expected)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("kind", [*WEIGHTED[:3], *ANTIALIASED[2:]], ids=lambda kind: "-".join(map(str, kind.values())))
def test_weights_are_those_of_onnx_runtime_bit_for_bit(kind, coordinates):
    """Each row has a single one: the result is the weights themselves."""
    attributes = {**kind, "coordinate_transformation_mode": coordinates}
    placed = Placed(attributes, {2: None, 3: None})
    for length, result in ((37, 91), (37, 73), (64, 21), (5, 1), (1, 4), (37, 37)):
        ones = np.eye(length, dtype=np.float32)[None, None]
        expected = whole(ones, attributes, sizes=[1, 1, length, result])
        found = placed.at_once(ones, expected.shape, (2, 3))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("kind", "factor"),
    [({"mode": "linear"}, 2), ({"mode": "linear"}, 4), ({"mode": "cubic"}, 2), (ANTIALIASED[0], 0.5)],
)
def test_small_integers_and_weights_that_float32_holds_are_exact(kind, factor):
    """Nothing is rounded, so that no order of the sums can matter."""
    x = np.random.default_rng(0).integers(-9, 9, (*SHAPE[:2], 10, 14)).astype(np.float32)
    expected = whole(x, kind, scales=[1, 1, factor, factor])
    found = Placed(kind, {2: factor, 3: factor}).at_once(x, expected.shape, (2, 3))
    np.testing.assert_array_equal(found, expected)


def needed(attributes, begin: int, end: int, length: int, result: int) -> tuple[int, int]:
    """Entries that a piece may be made of: twice as many as the widest filter, around its ideal position."""
    ratio = length / result
    around = (
        2 * (2 if attributes["mode"] == "cubic" else 1) * max(1.0, ratio if attributes.get("antialias") else 1.0) + 3
    )
    around += 2 * ratio  # what a coordinate mode moves by
    return max(0, int(begin * ratio - around)), min(length, int(end * ratio + around) + 1)


def window(draw, attributes, length: int, result: int) -> tuple[tuple[int, int, int, int, int], slice, slice]:
    """A random piece, and a random part of the operand that holds what it needs."""
    begin = draw(st.integers(0, result - 1))
    end = draw(st.integers(begin + 1, result))
    first, stop = needed(attributes, begin, end, length, result)
    first, stop = draw(st.integers(0, first)), draw(st.integers(stop, length))
    return (begin, end, first, length, result), slice(first, stop), slice(begin, end)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_piece_is_cut_out_of_the_whole_bit_for_bit(data):
    """Parts of the operand that hold what a piece needs, and a little or a lot more."""
    kind = data.draw(st.sampled_from([*NEAREST, *WEIGHTED, *ANTIALIASED]))
    attributes = {**kind, "coordinate_transformation_mode": data.draw(st.sampled_from(COORDINATES))}
    lengths = [data.draw(st.integers(1, 60)) for _ in range(2)]
    x = random_map((1, 2, *lengths), seed=data.draw(st.integers(0, 9)))
    if data.draw(st.booleans()):
        scales = [float(np.float32(data.draw(st.floats(max(0.1, 1.1 / length), 3.5)))) for length in lengths]
        expected = whole(x, attributes, scales=[1, 1, *scales])
    else:
        scales = [None, None]
        expected = whole(x, attributes, sizes=[1, 2, *(data.draw(st.integers(1, 90)) for _ in lengths)])
    results = expected.shape[2:]
    shrinks = max(1, *(length / result for length, result in zip(lengths, results, strict=True)))
    placed = Placed(attributes, dict(zip((2, 3), scales, strict=True)), most_taps=taps(shrinks))
    at_once = placed.at_once(x, expected.shape, (2, 3))
    (np.testing.assert_array_equal if kind["mode"] == "nearest" else assert_close)(at_once, expected)
    rows, taken_rows, wanted_rows = window(data.draw, attributes, lengths[0], results[0])
    columns, taken_columns, wanted_columns = window(data.draw, attributes, lengths[1], results[1])
    part = np.ascontiguousarray(x[:, :, taken_rows, taken_columns])
    found = placed(part, d2=rows, d3=columns)
    np.testing.assert_array_equal(found, at_once[:, :, wanted_rows, wanted_columns])


@pytest.mark.parametrize(
    ("attributes", "scale", "length", "result"),
    [
        ({**NEAREST[0]}, None, 41_011, 60_000),
        ({**NEAREST[2], "coordinate_transformation_mode": "asymmetric"}, 1.5, 40_000, 60_000),
        ({**NEAREST[1], "coordinate_transformation_mode": "align_corners"}, None, 19_999, 60_000),
        ({**NEAREST[3], "coordinate_transformation_mode": "half_pixel_symmetric"}, 0.7, 85_715, 60_000),
        ({**NEAREST[2], "coordinate_transformation_mode": "asymmetric"}, 1 / 7, 420_001, 60_000),
        ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, None, 30_001, 60_000),
        ({"mode": "linear"}, 1.1, 54_546, 60_000),
        ({"mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel"}, None, 17_000, 60_000),
    ],
)
def test_far_from_the_origin_positions_are_rounded_as_in_the_whole_row(attributes, scale, length, result):
    """Float32 holds few fractions of tens of thousands: a piece that counted from its own start would differ."""
    x = random_map((1, 1, 2, length))  # ONNX Runtime adds two halves of the last row: it is not looked at
    expected = whole(x, attributes, **({"sizes": [1, 1, 2, result]} if scale is None else {"scales": [1, 1, 1, scale]}))
    assert expected.shape[3] == result
    placed = Placed(attributes, {3: scale})
    for begin in range(0, result, 7001):
        end = min(begin + 7001, result)
        first, stop = needed(attributes, begin, end, length, result)
        found = placed(np.ascontiguousarray(x[..., first:stop]), d3=(begin, end, first, length, result))
        np.testing.assert_array_equal(found[..., :1, :], expected[..., :1, begin:end])


@pytest.mark.parametrize("opset", [11, 13, 18, 23])
def test_every_opset_has_the_operators(opset):
    for kind in (NEAREST[0], *WEIGHTED[:2], *(ANTIALIASED if opset >= 18 else [])):
        x = random_map(SHAPE)
        expected = whole(x, kind, scales=[1, 1, 1.5, 0.7], opset=opset)
        found = Placed(kind, {2: 1.5, 3: 0.7}, opset=opset).at_once(x, expected.shape, (2, 3))
        assert_close(found, expected)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("op", "opset", "scales"), [("Upsample", 9, (1.5, 2.4)), ("Resize", 10, (1.5, 0.7)), ("Resize", 10, (1 / 3, 2))]
)
def test_what_old_opsets_meant_is_kept(op, opset, scales, mode):
    """Nearest took the entry above along axes that shrink, and the one below along others."""
    x = random_map(SHAPE)
    expected = whole(x, {"mode": mode}, scales=[1, 1, *scales], opset=opset, op=op)
    placed = Placed({"mode": mode}, dict(zip((2, 3), scales, strict=True)), opset=opset, op=op)
    found = placed.at_once(x, expected.shape, (2, 3))
    (np.testing.assert_array_equal if mode == "nearest" else assert_close)(found, expected)


@pytest.mark.parametrize(
    ("shape", "dims"),
    [((9, 13), (0, 1)), ((5, 7, 6), (0, 1, 2)), ((1, 9, 13, 3), (1, 2)), ((1, 2, 5, 7, 6), (2, 3, 4))],
)
def test_axes_may_lie_anywhere(shape, dims):
    """Maps without channels, channels last, volumes."""
    scales = dict(zip(dims, (1.5, 0.6, 2), strict=False))
    x = random_map(shape)
    for kind in ({"mode": "linear"}, NEAREST[0]):
        expected = whole(x, kind, scales=[scales.get(dim, 1) for dim in range(len(shape))])
        assert_close(Placed(kind, scales, len(shape)).at_once(x, expected.shape, dims), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int8])
def test_nearest_takes_other_element_types(dtype):
    x = np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)
    expected = whole(x, NEAREST[0], scales=[1, 1, 1.5, 0.7])
    found = Placed(NEAREST[0], {2: 1.5, 3: 0.7}, dtype=dtype).at_once(x, expected.shape, (2, 3))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [*WEIGHTED[:2], ANTIALIASED[0]], ids=["linear", "cubic", "antialias"])
def test_float16_is_computed_in_float32_and_rounded_once(kind):
    x = random_map(SHAPE).astype(np.float16)
    expected = whole(x.astype(np.float32), kind, scales=[1, 1, 1.5, 0.7])
    found = Placed(kind, {2: 1.5, 3: 0.7}, dtype=np.float16).at_once(x, expected.shape, (2, 3))
    assert found.dtype == np.float16
    assert np.abs(found.astype(np.float32) - expected).max() <= 2.0**-11 * np.abs(expected).max()


@pytest.mark.parametrize(
    "kind", [*NEAREST[:1], *WEIGHTED, *ANTIALIASED], ids=lambda kind: "-".join(map(str, kind.values()))
)
def test_not_a_number_and_infinity_spread_as_in_onnx_runtime(kind):
    x = random_map((1, 1, 24, 24))
    x[0, 0, 3, 5:7], x[0, 0, 17, 20:22] = np.nan, np.inf
    expected = whole(x, kind, scales=[1, 1, 1.6, 0.7])
    found = Placed(kind, {2: 1.6, 3: 0.7}).at_once(x, expected.shape, (2, 3))
    assert np.isnan(expected).any()
    assert np.isinf(expected).any()
    for of in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(of(found), of(expected))


@pytest.mark.parametrize("kind", [*WEIGHTED, *ANTIALIASED], ids=lambda kind: "-".join(map(str, kind.values())))
def test_a_map_that_keeps_its_size_is_copied_whatever_the_scale(kind):
    """Infinity beside a pixel of weight zero would make it no number."""
    x = random_map((1, 1, 24, 24))
    x[0, 0, 3, 5] = np.inf
    expected = whole(x, kind, scales=[1, 1, 1.01, 1.02])
    np.testing.assert_array_equal(expected, x)
    np.testing.assert_array_equal(Placed(kind, {2: 1.01, 3: 1.02}).at_once(x, x.shape, (2, 3)), x)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"coordinate_transformation_mode": "crop"}, "crop"),
        ({"keep_aspect_ratio_policy": "not_larger"}, "not_larger"),
        ({"mode": "area"}, "area"),
        ({"nearest_mode": "simple-ish"}, "simple-ish"),
        ({"mode": "nearest", "antialias": 1}, "antialias"),
        ({"mode": "linear", "exclude_outside": 1}, "exclude"),
    ],
)
def test_what_cannot_be_placed_is_refused_by_name(attributes, said):
    with pytest.raises(ValueError, match=said):
        Resampling.of("Resize", 19, attributes)


def test_weights_of_integers_and_axes_named_twice_are_refused():
    with pytest.raises(ValueError, match="INT32"):
        Placed({"mode": "linear"}, {2: None}, dtype=np.int32)
    place = Place(dim=2, scale=None, **{name: name for name in PLACE_NAMES})
    with pytest.raises(ValueError, match="name each once"):
        placed_resize(GraphBuilder(), "x", 4, [place, place], Resampling())
    with pytest.raises(ValueError, match="name each once"):
        placed_resize(GraphBuilder(), "x", 2, [place], Resampling())


def test_attributes_are_taken_as_onnx_gives_them():
    node = helper.make_node("Resize", ["x"], ["y"], mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1)
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert Resampling.of("Resize", 13, given) == Resampling(kind="cubic", cubic_coefficient=-0.5, exclude_outside=True)


def test_the_benchmark_compares_equal_results():
    x = random_map((1, 2, 8, 8))
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "align_corners"}
    found, expected = (make(attributes, x, 16, 1)() for make in (benchmark.placed, benchmark.native))
    np.testing.assert_array_equal(found, expected)
