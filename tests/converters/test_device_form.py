"""Device forms: what TensorRT is given computes what the bundle's graphs compute, in plain ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exactile.bundle.engine_tensors import engine_tensors
from exactile.contract import ImageStatistics
from exactile.errors import ModelError, OptionError
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.device import stored
from exactile_converters.device.agreement import FormAgreement, carried_rows, check_strip, check_tile
from exactile_converters.device.form import strip_form, tile_form
from exactile_converters.prepare.from_onnx import load_network, prepare_network
from tests.support.nets import NETS, onnx_file
from tests.support.oracle import whole_pass

ROLES = ("first", "body", "last")
RANGES = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


def deployed(tmp_path, name, weights="integer", **options):
    return deploy(load_network(onnx_file(tmp_path, name, weights)), **{"image_dtype": "uint8", **options})


def from_onnx(text_or_model, **options):
    model = onnx.parser.parse_model(text_or_model) if isinstance(text_or_model, str) else text_or_model
    return deploy(prepare_network(model, name="net"), **{"image_dtype": "uint8", **options})


def run(form, feeds):
    session = ort.InferenceSession(form.model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    given = {entry.name for entry in session.get_inputs()}
    assert given == set(form.inputs)
    found = dict(zip(names, session.run(names, {name: feeds[name] for name in given}), strict=True))
    for name, spec in form.outputs.items():
        assert found[name].dtype == spec.dtype
        assert all(size in (-1, real) for size, real in zip(spec.shape, found[name].shape, strict=True))
    return found


def as_bytes(array):
    """16-bit numbers as pairs of bytes, low byte first."""
    return np.stack([array & 255, array >> 8], -1).astype(np.uint8) if array.dtype == np.uint16 else array


def sample(geometry, channels, dtype, *, seed=0, about=(70, 90), top=None):
    shape = [axis.accepted_size(n) for axis, n in ((geometry.y, about[0]), (geometry.x, about[1]))]
    generator = np.random.default_rng(seed)
    if dtype == "float32":
        return generator.random((*shape, channels), np.float32)
    return generator.integers(0, top or np.iinfo(dtype).max + 1, (*shape, channels), dtype)


@pytest.mark.parametrize("output", ["labels", "probabilities", "raw"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("name", ["unet_d2", "unet_bilinear_skip_d2", "super_resolution"])
def test_a_tile_is_what_the_network_gives(tmp_path, name, dtype, output):
    top = RANGES[dtype]
    model = deployed(
        tmp_path, name, "random", image_dtype=dtype, output=output, normalization=Normalization(scale=(top,))
    )
    geometry, contract = model.contract.geometry, model.contract
    image = sample(geometry, NETS[name].channels, dtype)
    form = tile_form(model, image.shape[:2])
    found = run(form, {contract.image.name: as_bytes(image)})[contract.result.name]
    expected = whole_pass(onnx_file(tmp_path, name).read_bytes(), image, geometry, scale=top)
    if output == "labels":
        assert np.count_nonzero(found != expected.argmax(0)) <= 1e-4 * found.size
        return
    if output == "probabilities":
        powers = np.exp(expected - expected.max(0))
        expected = powers / powers.sum(0)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["unet_d2", "valid", "asymmetric", "low_resolution"])
def test_a_batch_is_each_of_its_tiles(tmp_path, name):
    model = deployed(tmp_path, name, output="raw")
    geometry, contract = model.contract.geometry, model.contract
    images = [sample(geometry, NETS[name].channels, "uint8", seed=seed, top=8) for seed in range(3)]
    form = tile_form(model, images[0].shape[:2], batch=3)
    found = run(form, {contract.image.name: np.stack(images)})[contract.result.name]
    for one, image in zip(found, images, strict=True):
        expected = whole_pass(onnx_file(tmp_path, name, "integer").read_bytes(), image, geometry)
        assert np.array_equal(one, expected)


def test_labels_of_a_batch_from_16_bit_samples(tmp_path):
    model = deployed(tmp_path, "unet_d2", image_dtype="uint16")
    images = [sample(model.contract.geometry, 3, "uint16", seed=seed, top=4000) for seed in range(2)]
    form = tile_form(model, images[0].shape[:2], batch=2)
    assert form.inputs["exactile_image"].shape == (2, *images[0].shape, 2)
    found = run(form, {"exactile_image": as_bytes(np.stack(images))})["exactile_result"]
    for one, image in zip(found, images, strict=True):
        scores = whole_pass(onnx_file(tmp_path, "unet_d2", "integer").read_bytes(), image, model.contract.geometry)
        assert np.array_equal(one, scores.argmax(0))


def test_every_16_bit_sample_arrives_as_it_is():
    model = from_onnx(IDENTITY, image_dtype="uint16", output="raw")
    image = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256, 1)
    found = run(tile_form(model, (256, 256)), {"exactile_image": as_bytes(image)})["exactile_result"]
    assert np.array_equal(found[0], image[..., 0].astype(np.float32))


IDENTITY = (
    '<ir_version: 8, opset_import: ["" : 17]> net (float[1, 1, h, w] image) => (float[1, 1, h, w] result) '
    "{ result = Relu (image) }"
)


def many_classes(classes: int) -> onnx.ModelProto:
    """Class ``i`` is best where the sample is ``i``."""
    centres = np.arange(classes, dtype=np.float32).reshape(classes, 1, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["result"])],
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "h", "w"])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [1, classes, "h", "w"])],
        [numpy_helper.from_array(centres, "weight"), numpy_helper.from_array(-(centres.ravel() ** 2) / 2, "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("batch", [1, 2])
def test_labels_of_many_classes_leave_as_pairs_of_bytes(batch):
    model = from_onnx(many_classes(600), image_dtype="uint16")
    assert model.contract.result.dtype == "uint16"
    image = np.random.default_rng(0).integers(0, 600, (batch, 20, 30, 1), np.uint16)
    image = image if batch > 1 else image[0]
    form = tile_form(model, (20, 30), batch=batch)
    found = run(form, {"exactile_image": as_bytes(image)})["exactile_result"]
    assert form.outputs["exactile_result"].dtype == "uint8"
    assert np.array_equal(found, as_bytes(image[..., 0]))
    assert check_tile(model, form, "fp32").differing == 0


@pytest.mark.parametrize("map_dtype", ["float16", "uint8"])
def test_maps_of_fewer_bits(tmp_path, map_dtype):
    model = deployed(tmp_path, "unet_d2", "random", output="probabilities", map_dtype=map_dtype)
    form = tile_form(model, (64, 64))
    assert form.outputs["exactile_result"].dtype == map_dtype
    check_tile(model, form, "fp32")


@pytest.mark.parametrize("kind", ["zscore", "percentile"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_statistics_stay_inputs(tmp_path, kind, precision):
    normalization = Normalization(statistics=ImageStatistics(kind=kind))
    model = deployed(tmp_path, "unet_d2", "random", image_dtype="uint16", output="raw", normalization=normalization)
    image = sample(model.contract.geometry, 3, "uint16")
    offset, scale = np.float32([20000, 30000, 40000]), np.float32([10000, 20000, 15000])
    form = tile_form(model, image.shape[:2], precision=precision)
    feeds = {"exactile_image": as_bytes(image), "exactile_offset": offset.reshape(1, 3, 1, 1)}
    found = run(form, {**feeds, "exactile_scale": scale.reshape(1, 3, 1, 1)})["exactile_result"]
    network = onnx_file(tmp_path, "unet_d2").read_bytes()
    expected = whole_pass(network, image, model.contract.geometry, mean=offset, std=scale)
    assert np.abs(found - expected).max() <= {"fp32": 1e-5, "fp16": 5e-3}[precision] * np.abs(expected).max()


def strip_heights(model, strides: int, bodies: int, more: int) -> list[int]:
    stride = model.contract.geometry.y.stride
    first = -(-model.strips.startup_rows // stride) * stride
    return [first, *[strides * stride] * bodies, model.strips.least_last_rows + more * stride]


def in_strips(model, image, heights, precision="fp32"):
    """All strips of a chain, each from the rows that the one before handed on, as they are."""
    carried, outputs, start, width = {}, [], 0, image.shape[1]
    for index, height in enumerate(heights):
        role = "first" if index == 0 else "last" if index == len(heights) - 1 else "body"
        rows = (heights[-1] - model.contract.geometry.y.stride, heights[-1]) if role == "last" else (height, height)
        form = strip_form(model, role, rows, width, precision=precision)
        feeds = {"exactile_image": as_bytes(image[start : start + height]), **carried}
        assert {name: value.dtype for name, value in carried.items() if name in form.inputs} == {
            name: np.dtype(spec.dtype) for name, spec in form.inputs.items() if name != "exactile_image" and carried
        }
        found = run(form, feeds)
        outputs.append(found.pop("exactile_result"))
        carried = {name.replace("_out", "_in"): value for name, value in found.items()}
        start += height
    return np.concatenate(outputs, 0 if model.contract.result.kind == "labels" else 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("name", ["unet_d2", "unet_transpose3_d1", "valid", "super_resolution", "low_resolution"])
def test_strips_in_a_chain_are_the_whole(tmp_path, name, dtype):
    model = deployed(tmp_path, name, image_dtype=dtype, output="raw")
    heights = strip_heights(model, strides=4, bodies=2, more=2)
    geometry = model.contract.geometry
    image = np.random.default_rng(3).integers(0, 8, (sum(heights), geometry.x.accepted_size(40), 3), dtype)
    image = image[..., : NETS[name].channels]
    expected = whole_pass(onnx_file(tmp_path, name, "integer").read_bytes(), image, geometry)
    assert np.array_equal(in_strips(model, image, heights), expected)


@pytest.mark.parametrize("name", ["unet_d2", "unet_bilinear_d2", "resnet_unet", "segnet"])
def test_strips_of_half_precision_hand_half_precision_on(tmp_path, name):
    model = deployed(tmp_path, name, "random", normalization=Normalization(scale=(255.0,)))
    heights = strip_heights(model, strides=4, bodies=1, more=2)
    image = sample(model.contract.geometry, 3, "uint8", about=(1, 60))[:1]
    image = np.random.default_rng(3).integers(0, 256, (sum(heights), image.shape[1], 3), np.uint8)
    body = strip_form(model, "body", (heights[1], heights[1]), image.shape[1], precision="fp16")
    carried = {spec.dtype for name, spec in body.inputs.items() if name.startswith("carry")}
    assert carried <= {"uint8", "float16"}
    assert "float16" in carried
    scores = whole_pass(onnx_file(tmp_path, name).read_bytes(), image, model.contract.geometry, scale=255.0)
    found = in_strips(model, image, heights, "fp16")
    assert np.count_nonzero(found != scores.argmax(0)) <= 0.02 * found.size


def kinds(model: onnx.ModelProto, op: str) -> set[int]:
    """Types of the weights of all ``op`` nodes."""
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {constants[name] for node in model.graph.node if node.op_type == op for name in node.input[1:2]}


def test_half_precision_is_in_the_convolutions_and_not_in_the_normalisation(tmp_path):
    normalization = Normalization(scale=(65535.0,), mean=(0.5,))
    model = deployed(tmp_path, "unet_d2", "random", image_dtype="uint16", normalization=normalization, output="raw")
    form = tile_form(model, (64, 64), precision="fp16")
    assert kinds(form.model, "Conv") == {TensorProto.FLOAT16}
    assert kinds(form.model, "ConvTranspose") == {TensorProto.FLOAT16}
    assert kinds(form.model, "Div") == kinds(form.model, "Sub") == {TensorProto.FLOAT}
    onnx.checker.check_model(form.model, full_check=True)


def test_softmax_is_taken_in_single_precision_and_arg_max_of_what_the_network_gives(tmp_path):
    labels = tile_form(deployed(tmp_path, "unet_d2"), (64, 64), precision="fp16").model
    likely = tile_form(deployed(tmp_path, "unet_d2", output="probabilities"), (64, 64), precision="fp16").model
    assert "Cast" not in [node.op_type for node in before(labels, "ArgMax")]
    assert "Cast" in [node.op_type for node in before(likely, "Softmax")]


def before(model: onnx.ModelProto, op: str) -> list[onnx.NodeProto]:
    node = next(node for node in model.graph.node if node.op_type == op)
    return [other for other in model.graph.node if set(other.output) & set(node.input)]


def test_a_weight_beyond_half_precision_is_refused(tmp_path):
    model = deployed(tmp_path, "unet_d2", "random")
    proto = onnx.load_from_string(model.graph)
    weight = next(t for t in proto.graph.initializer if len(t.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1e6, weight.name))
    with pytest.raises(ModelError, match=r"holds values up to .*, half precision ends at 65504"):
        tile_form(replace(model, graph=proto.SerializeToString()), (64, 64), precision="fp16")


def with_nodes_before_the_first_relu(model, *nodes):
    """The same network but for ``nodes``, which read "here" and make "planted"."""
    proto = onnx.load_from_string(model.graph)
    index, relu = next((i, node) for i, node in enumerate(proto.graph.node) if node.op_type == "Relu")
    for place, node in enumerate(nodes):
        names = [relu.input[0] if name == "here" else name for name in node.input]
        del node.input[:]
        node.input.extend(names)
        proto.graph.node.insert(index + place, node)
    relu.input[0] = "planted"
    return replace(model, graph=proto.SerializeToString())


def test_a_network_whose_images_know_of_each_other_has_no_batch(tmp_path):
    mean = helper.make_node("ReduceMean", ["here"], ["mean"], axes=[0])
    planted = helper.make_node("Sub", ["here", "mean"], ["planted"])
    model = with_nodes_before_the_first_relu(deployed(tmp_path, "unet_d2", "random"), mean, planted)
    check_tile(model, tile_form(model, (64, 64)), "fp32")
    with pytest.raises(ModelError, match=r"labels differ.*batch of 1 written into it: build with --batch 1"):
        check_tile(model, tile_form(model, (64, 64), batch=3), "fp32")


def test_a_network_that_takes_one_image_alone_has_no_batch(tmp_path):
    planted = helper.make_node("ReduceMean", ["here"], ["planted"], axes=[0])
    model = with_nodes_before_the_first_relu(deployed(tmp_path, "unet_d2", "random"), planted)
    check_tile(model, tile_form(model, (64, 64)), "fp32")
    with pytest.raises(ModelError, match="the network may have a batch of 1 written into it: build with --batch 1"):
        check_tile(model, tile_form(model, (64, 64), batch=3), "fp32")


def test_a_graph_that_begins_otherwise_has_no_batch(tmp_path):
    model = deployed(tmp_path, "unet_d2")
    proto = onnx.load_from_string(model.graph)
    next(node for node in proto.graph.node if node.op_type == "Transpose").op_type = "Identity"
    with pytest.raises(ModelError, match="begins differently from one that exactile made"):
        tile_form(replace(model, graph=proto.SerializeToString()), (64, 64), batch=2)


def test_arithmetic_in_bytes_is_refused_by_the_nodes_name(tmp_path):
    model = deployed(tmp_path, "unet_d2")
    proto = onnx.load_from_string(model.graph)
    transpose = next(node for node in proto.graph.node if node.op_type == "Transpose")
    transpose.input[0] = "brighter"
    proto.graph.node.insert(0, helper.make_node("Add", ["exactile_image"] * 2, ["brighter"], name="brighten"))
    with pytest.raises(ModelError, match=r"computes nothing in uint8, and the node brighten \(Add\)"):
        tile_form(replace(model, graph=proto.SerializeToString()), (64, 64))


@pytest.mark.parametrize("shape", [(63, 64), (64, 66)])
def test_a_shape_that_the_network_does_not_accept_is_refused(tmp_path, shape):
    with pytest.raises(OptionError, match="does not accept"):
        tile_form(deployed(tmp_path, "unet_d2"), shape)


def test_a_model_without_strips_has_no_strip_forms(tmp_path):
    model = deployed(tmp_path, "unet_d2", strips=False)
    with pytest.raises(OptionError, match="has no strips: the model was deployed without strips"):
        strip_form(model, "body", (32, 32), 64)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["unet_bilinear_skip_d2", "valid"])
def test_strips_agree_with_the_bundles_own(tmp_path, name, role, precision):
    model = deployed(tmp_path, name, "random", image_dtype="uint16", normalization=Normalization(scale=(65535.0,)))
    least, stride = model.strips.least_last_rows, model.contract.geometry.y.stride
    rows = (least, least + 7 * stride) if role == "last" else (32, 32)
    width = model.contract.geometry.x.accepted_size(64)
    form = strip_form(model, role, rows, width, precision=precision)
    found = check_strip(model, form, precision, carried_rows(model, 32, width))
    assert found.labels > 0
    assert "labels differ" in str(found)


def test_a_form_with_other_weights_does_not_agree(tmp_path):
    model = deployed(tmp_path, "unet_d2", "random")
    form = tile_form(deployed(tmp_path, "unet_d2", "integer"), (64, 64))
    with pytest.raises(ModelError, match=r"does not give what the bundle's graph gives: \d+ of 4096 labels differ"):
        check_tile(model, form, "fp32")


def test_numbers_that_are_not_finite_do_not_agree():
    found = FormAgreement()
    found.add(np.ones(4, np.float32), np.array([1, 1, np.inf, 1], np.float32))
    assert not found.holds("fp16")


def test_weights_beyond_one_message_are_files(tmp_path, monkeypatch):
    """As if a message held 1000 bytes."""
    model = deployed(tmp_path, "unet_d2", "random")
    form = tile_form(model, (64, 64))
    with stored.stored(form.model) as small:
        assert isinstance(small, bytes)
    monkeypatch.setattr(stored, "LARGEST_MESSAGE_BYTES", 1000)
    with stored.stored(form.model) as path:
        assert path.stat().st_size < len(small) / 2
        folder = path.parent
    assert not folder.exists()
    check_tile(model, form, "fp32")


def test_the_graphs_hash_is_that_of_structure_and_weights(tmp_path):
    model = deployed(tmp_path, "unet_d2", "random")
    form = tile_form(model, (64, 64))
    assert form.sha256 == tile_form(model, (64, 64)).sha256
    others = [
        tile_form(model, (64, 96)),
        tile_form(model, (64, 64), precision="fp16"),
        tile_form(model, (64, 64), batch=2),
    ]
    others.append(tile_form(deployed(tmp_path, "unet_d2", "integer"), (64, 64)))
    assert len({form.sha256, *(other.sha256 for other in others)}) == 5


def test_tensors_are_those_of_the_contract(tmp_path):
    model = deployed(tmp_path, "super_resolution", image_dtype="uint16", output="raw")
    inputs, outputs = engine_tensors(model, "tile", batch=2, rows=(10, 10), columns=12)
    assert inputs["exactile_image"].shape == (2, 10, 12, 1, 2)
    assert outputs["exactile_result"].shape == (2, 4, 20, 24)
    _, outputs = engine_tensors(model, "last", batch=1, rows=(10, 14), columns=12)
    assert outputs["exactile_result"].shape == (4, -1, 24)
    assert model.contract.geometry.y.scale == Fraction(2)
