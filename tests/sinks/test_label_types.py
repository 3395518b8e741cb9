"""Labels are stored in a type that holds them, in every plan; what cannot be stored is refused with pixel and value."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tifffile
from onnx import TensorProto, helper, numpy_helper

from exactile.errors import EngineError
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.command import exactile

RANDOM = np.random.default_rng(5)
WEIGHTS = RANDOM.normal(size=(3, 1, 3, 3)).astype(np.float32)
WEIGHTS -= WEIGHTS.mean((2, 3), keepdims=True)
IMAGE = RANDOM.integers(0, 256, (70, 61), dtype=np.uint8)
PLANS = (("whole", None), ("tile", (24, 24)), ("strip", (16, 40)))


def network(behind, constants, kind, *, channels_out=None, image=TensorProto.FLOAT, weights=WEIGHTS) -> bytes:
    """A convolution of 3 channels, ``s``, and nodes behind it that make ``y``."""
    shape = ["N", channels_out, "H", "W"] if channels_out else ["N", "H", "W"]
    nodes = [("Conv", ["x", "w"], ["s"], {"pads": [1] * 4}), *behind]
    graph = helper.make_graph(
        [helper.make_node(op, inputs, outputs, **attributes) for op, inputs, outputs, attributes in nodes],
        "g",
        [helper.make_tensor_value_info("x", image, ["N", 1, "H", "W"])],
        [helper.make_tensor_value_info("y", kind, shape)],
        [numpy_helper.from_array(weights, "w")]
        + [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


ARG_MAX = ("ArgMax", ["s"], ["a"], {"axis": 1, "keepdims": 0})
LOOK_UP = ("Gather", ["t", "a"], ["y"], {"axis": 0})


def model(proto: bytes, image: np.ndarray, **options):
    read = prepare_network(onnx.load_from_string(proto), name="net.onnx")
    return deploy(read, image_dtype=image.dtype.name, **options)


def results(proto: bytes, image: np.ndarray, **options) -> list[np.ndarray]:
    found = []
    for plan, tile in PLANS:
        sink = ArraySink()
        Session(model(proto, image, **options)).segment(ArraySource(image), sink, plan=plan, tile=tile)
        found.append(sink.result)
    return found


def truth(proto: bytes, image: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(proto).run(None, {"x": image[None, None].astype(np.float32)})[0][0]


@pytest.mark.parametrize(
    ("table", "dtype"),
    [
        ([3, 0, 255], "uint8"),
        ([3, 0, 256], "uint16"),
        ([-1, 0, 127], "int8"),
        ([-1, 0, 128], "int16"),
        ([5, 300, 70000], "uint32"),
        ([5, 300, 2**32 - 1], "uint32"),
        ([-1, 300, 70000], "int32"),
        ([-(2**31), 300, 2**31 - 1], "int32"),
    ],
)
def test_labels_of_a_table_have_the_smallest_type_that_holds_it_in_every_plan(table, dtype):
    proto = network([ARG_MAX, LOOK_UP], {"t": np.array(table, np.int64)}, TensorProto.INT64)
    for labels in results(proto, IMAGE):
        assert labels.dtype == dtype
        assert np.array_equal(labels, truth(proto, IMAGE))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT32])
def test_label_maps_of_any_type_are_labels_as_they_are(kind):
    proto = network([ARG_MAX, ("Cast", ["a"], ["y"], {"to": kind})], {}, kind)
    for labels in results(proto, IMAGE):
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) == {0, 1, 2}
        assert np.array_equal(labels, truth(proto, IMAGE))


ROUNDED = [
    ("Slice", ["s", "i", "j", "c"], ["one"], {}),
    ("Mul", ["one", "k"], ["wide"], {}),
]
ONE_CHANNEL = {"i": np.array([0]), "j": np.array([1]), "c": np.array([1])}


def test_whole_numbers_of_any_size_that_fit_32_bits_are_stored_and_others_refused_with_pixel_and_value():
    cast = ("Cast", ["wide"], ["y"], {"to": TensorProto.INT64})
    fitting, too_large = (
        network([*ROUNDED, cast], {**ONE_CHANNEL, "k": np.float32(factor)}, TensorProto.INT64, channels_out=1)
        for factor in (1e3, 1e9)
    )
    image = IMAGE.astype(np.float32)  # of which nothing is known: the range is not provable
    for labels in results(fitting, image):
        assert labels.dtype == np.int32
        assert np.array_equal(labels, truth(fitting, image)[0])
    values = truth(too_large, image)[0]
    y, x = np.argwhere(np.abs(values) >= 2**31)[0]
    with pytest.raises(EngineError, match=f"row {y}, column {x} is {values[y, x]}, which labels of int32 cannot hold"):
        Session(model(too_large, image)).segment(ArraySource(image), ArraySink(), plan="whole")


def test_rounded_floats_are_labels_and_refused_where_not_a_number():
    proto = network(
        [*ROUNDED, ("Round", ["wide"], ["y"], {})],
        {**ONE_CHANNEL, "k": np.float32(0.1)},
        TensorProto.FLOAT,
        channels_out=1,
    )
    image = IMAGE.astype(np.float32)
    for labels in results(proto, image):
        assert np.array_equal(labels, truth(proto, image)[0])
    image[30, 20] = np.nan
    with pytest.raises(EngineError, match="row 29, column 19 is nan"):
        Session(model(proto, image)).segment(ArraySource(image), ArraySink(), plan="tile", tile=(24, 24))


def test_more_than_65536_classes_are_told_apart():
    count = 70_000
    behind = [
        ("Slice", ["s", "i", "j", "c"], ["one"], {}),
        ("Sub", ["one", "middle"], ["far"], {}),
        ("Abs", ["far"], ["off"], {}),
        ("Neg", ["off"], ["y"], {}),
    ]
    middle = np.linspace(-700, 100, count, dtype=np.float32).reshape(1, -1, 1, 1)
    constants = {**ONE_CHANNEL, "middle": middle}
    proto = network(behind, constants, TensorProto.FLOAT, channels_out=count)
    image = IMAGE[:6, :5]
    sink = ArraySink()
    Session(model(proto, image)).segment(ArraySource(image), sink, plan="whole")
    assert sink.result.dtype == np.uint32
    assert sink.result.max() > 65536
    assert np.array_equal(sink.result, truth(proto, image).argmax(0))


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".zarr", ".npy"])
def test_negative_labels_reach_every_format_with_their_pictures(tmp_path, suffix):
    proto = network([ARG_MAX, LOOK_UP], {"t": np.array([-1, 0, 1])}, TensorProto.INT64)
    (tmp_path / "m.onnx").write_bytes(proto)
    tifffile.imwrite(tmp_path / "i.tif", IMAGE)
    target = tmp_path / f"o{suffix}"
    done = exactile("run", tmp_path / "m.onnx", tmp_path / "i.tif", "-o", target, "--no-progress")
    assert done.returncode == 0, done.stderr
    if suffix == ".npy":
        labels = np.load(target)
    elif suffix == ".zarr":
        import zarr

        labels = np.asarray(zarr.open_group(target / "labels" / "segmentation")["0"]).squeeze()
    else:
        labels = tifffile.imread(target)
    assert labels.dtype == np.int8
    assert np.array_equal(labels, truth(proto, IMAGE))


def test_engines_of_gpus_refuse_labels_that_they_cannot_give():
    from exactile.errors import ModelError
    from exactile_converters.device.form import tile_form

    proto = network([ARG_MAX, LOOK_UP], {"t": np.array([-1, 0, 70000])}, TensorProto.INT64)
    with pytest.raises(ModelError, match=r"exactile_result is int32, and engines give and take .*--engine onnxruntime"):
        tile_form(model(proto, IMAGE), (24, 24))
