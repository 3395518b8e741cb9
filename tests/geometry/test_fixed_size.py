"""Models exported at one size: what was written down for it follows the image again, or is an obstacle."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.cleanup.regrouping import Target, targets
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network

# (nodes at 16 x 20 pixels, the same for any size), from x (1, 2, H, W) to y; k is a 3x3 kernel from 2 to 2 channels.
PAIRS = {
    "blocks of pixels as channels and back": (
        """s = Constant <value_ints = [1, 2, 8, 2, 10, 2]> ()
           split = Reshape (x, s)
           blocks = Transpose <perm = [0, 1, 3, 5, 2, 4]> (split)
           t = Constant <value_ints = [1, 8, 8, 10]> ()
           y = Reshape (blocks, t)""",
        """deep = SpaceToDepth <blocksize = 2> (x)
           s = Constant <value_ints = [1, 4, 2, -1, 0]> ()
           groups = Constant <value_ints = [0, 2, 1, 6, 3, 7, 4, 5]> ()
           order = Constant <value_ints = [0, 2, 4, 6, 1, 3, 5, 7]> ()
           y = Gather <axis = 1> (deep, order)""",
    ),
    "rows repeated by tiling": (
        """a = Constant <value_ints = [3]> ()
           more = Unsqueeze (x, a)
           n = Constant <value_ints = [1, 1, 1, 2, 1]> ()
           twice = Tile (more, n)
           s = Constant <value_ints = [1, 2, 32, 20]> ()
           y = Reshape (twice, s)""",
        """sc = Constant <value_floats = [1.0, 1.0, 2.0, 1.0]> ()
           y = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , sc)""",
    ),
    "cropped edges": (
        """c = Conv <pads = [1, 1, 1, 1]> (x, k)
           b = Constant <value_ints = [2, 3]> ()
           e = Constant <value_ints = [14, 20]> ()
           a = Constant <value_ints = [2, 3]> ()
           y = Slice (c, b, e, a)""",
        """c = Conv <pads = [1, 1, 1, 1]> (x, k)
           b = Constant <value_ints = [2, 3]> ()
           e = Constant <value_ints = [-2, 9223372036854775807]> ()
           a = Constant <value_ints = [2, 3]> ()
           y = Slice (c, b, e, a)""",
    ),
    "channels repeated": (
        """m = ReduceMax <axes = [1]> (x)
           s = Constant <value_ints = [1, 3, 16, 20]> ()
           y = Expand (m, s)""",
        """m = ReduceMax <axes = [1]> (x)
           y = Concat <axis = 1> (m, m, m)""",
    ),
    "transposed convolution to a shape": (
        """y = ConvTranspose <strides = [2, 2], output_shape = [32, 41]> (x, k)""",
        """y = ConvTranspose <strides = [2, 2], pads = [1, 0, 0, 0]> (x, k)""",
    ),
    "transposed convolution to the same shape": (
        """y = ConvTranspose <strides = [2, 2], auto_pad = "SAME_UPPER", output_shape = [32, 40]> (x, k)""",
        """y = ConvTranspose <strides = [2, 2], pads = [0, 0, 1, 1]> (x, k)""",
    ),
    "transposed convolution to a larger shape": (
        """y = ConvTranspose <strides = [3, 3], output_shape = [50, 62]> (x, k)""",
        """y = ConvTranspose <strides = [3, 3], pads = [0, 0, 0, 0], output_padding = [2, 2]> (x, k)""",
    ),
    "rows and columns flattened before a product over channels": (
        """p = Transpose <perm = [0, 2, 3, 1]> (x)
           s = Constant <value_ints = [1, 320, 2]> ()
           y = Reshape (p, s)""",
        """p = Transpose <perm = [0, 2, 3, 1]> (x)
           s = Constant <value_ints = [1, -1, 2]> ()
           y = Reshape (p, s)""",
    ),
}

KERNEL = np.random.default_rng(0).integers(-4, 5, (2, 2, 3, 3)).astype(np.float32)
FREE = "h", "w"


def graph(nodes: str, height: int | str, width: int | str, result: str = "1, C, U, V") -> onnx.ModelProto:
    numbers = ", ".join(map(str, KERNEL.ravel()))
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
            net (float[1, 2, {height}, {width}] x) => (float[{result}] y)
            <float[2, 2, 3, 3] k = {{{numbers}}}> {{ {nodes} }}"""
    )


def run(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    (result,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": pixels})
    return result


def released(model: onnx.ModelProto) -> onnx.ModelProto:
    """As it is prepared, with dimensions of the input freed."""
    made = ir.to_proto(prepare_network(model, name="net").model)
    for dim, name in zip(made.graph.input[0].type.tensor_type.shape.dim[2:], FREE, strict=True):
        dim.dim_param = name
    del made.graph.value_info[:]
    return made


@pytest.mark.parametrize("name", PAIRS)
def test_numbers_that_follow_the_image_are_released(name):
    """At the exported size nothing changes; at others it is the network as it would be written for any size."""
    fixed, free = PAIRS[name]
    result = "1, N, C" if "flattened" in name else "1, C, U, V"
    small, large = (np.random.default_rng(1).integers(0, 9, (1, 2, *size)).astype("f") for size in ((16, 20), (34, 26)))
    exported = graph(fixed, 16, 20, result)
    expected = graph(free, *FREE, result)
    assert np.array_equal(run(released(exported), small), run(exported, small))
    assert np.array_equal(run(released(exported), large), run(expected, large))


@pytest.mark.parametrize(
    ("nodes", "operator"),
    [
        ("s = Constant <value_ints = [1, 2, 8, 40]> () y = Reshape (x, s)", "Reshape"),
        (
            """s = Constant <value_ints = [1, 2, 320]> ()
               flat = Reshape (x, s)
               t = Constant <value_ints = [1, 2, 16, 20]> ()
               y = Reshape (flat, t)""",
            "Reshape",
        ),
        (
            """b = Constant <value_ints = [0]> ()
               e = Constant <value_ints = [5]> ()
               a = Constant <value_ints = [2]> ()
               y = Slice (x, b, e, a)""",
            "Slice",
        ),
        ("p = AveragePool <kernel_shape = [16, 20]> (x) y = Mul (x, p)", "GlobalAveragePool"),
        ("p = MaxPool <kernel_shape = [16, 20]> (x) y = Mul (x, p)", "GlobalMaxPool"),
    ],
    ids=["rows joined with columns", "split as nothing tells how", "a few rows", "mean of all", "largest of all"],
)
def test_what_cannot_be_released_is_an_obstacle(nodes, operator):
    found = prepare_network(graph(nodes, 16, 20), name="net").trace()
    assert found.geometry is None
    assert {obstacle.op for obstacle in found.obstacles} == {operator}


def test_small_windows_stay_local():
    """Pooling by 2 x 2 covers a map of 2 x 2, which is that small only because the export was."""
    found = prepare_network(
        graph("y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)", 2, 2), name="net"
    ).trace()
    assert found.geometry is not None
    assert found.geometry.y.stride == 2


def test_released_networks_tile():
    """Several numbers in one network, and an odd tile: equal to the pass of the network written for any size."""
    fixed = """c = Conv <pads = [1, 1, 1, 1]> (x, k)
               s = Constant <value_ints = [1, 2, 8, 2, 10, 2]> ()
               split = Reshape (c, s)
               most = ReduceMax <axes = [3, 5], keepdims = 0> (split)
               y = ConvTranspose <strides = [2, 2], output_shape = [16, 20]> (most, k)"""
    free = """c = Conv <pads = [1, 1, 1, 1]> (x, k)
              most = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
              y = ConvTranspose <strides = [2, 2], pads = [1, 1, 0, 0]> (most, k)"""
    image = np.random.default_rng(2).integers(0, 9, (90, 70, 2), dtype=np.uint8)
    deployed = deploy(prepare_network(graph(fixed, 16, 20), name="net"), image_dtype="uint8", output="raw")
    for plan in ("tile", "strip"):
        sink = ArraySink()
        options = {"tile": (18, 22)} if plan == "tile" else {}
        summary = Session(deployed, memory_bytes=8 << 30).segment(ArraySource(image), sink, plan=plan, **options)
        assert summary.tiles > 1
        whole = run(graph(free, *FREE), image.transpose(2, 0, 1)[None].astype("f"))
        assert np.array_equal(sink.result, whole[0])


@pytest.mark.parametrize(
    ("before", "following", "after", "expected"),
    [
        ((1, 64, 64, 3), [1, 2], (1, 4096, 3), [((), 1), ((1, 2), 1), ((), 3)]),
        ((1, 32, 2, 64, 8), [1, 3], (1, 64, 64, 8), [((), 1), ((1,), 2), ((3,), 1), ((), 8)]),
        ((1, 3, 64, 64), [2, 3], (1, 3, 8, 8, 8, 8), [((), 1), ((), 3), ((2,), 1, 8), ((), 8), ((3,), 1, 8), ((), 8)]),
        ((1, 4096, 8), [1], (1, 4096, 2, 4), [((), 1), ((1,), 1), ((), 2), ((), 4)]),
        ((1, 8, 16, 16), [2, 3], (8, 16, 16, 1), [((), 8), ((2,), 1), ((3,), 1), ((), 1)]),
        ((1, 2, 16, 16), [2, 3], (1, 32, 16), None),
        ((1, 16, 1, 16), [1, 2], (1, 16, 16), None),
        ((1, 256, 8), [1], (1, 16, 16, 8), [((), 1), ((1,), 1, 16), ((), 16), ((), 8)]),
    ],
)
def test_targets_follow_the_dimensions_they_are_made_of(before, following, after, expected):
    found = targets(before, following, after)
    assert found == (None if expected is None else [Target(*target) for target in expected])
    if found is not None:
        assert [target.size(before) for target in found] == list(after)
