"""What ONNX Runtime's CUDA provider takes of bundles' graphs, told without it; the rest is named at conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import version_converter

from exactile.contract import ImageStatistics
from exactile.engines.onnx_runtime_cuda import NOT_ON_CUDA
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.convert import convert
from exactile_converters.cuda_kernels.check import cuda_note, missing_kernels
from exactile_converters.cuda_kernels.table import Kernel, kernel_table
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.prepare.from_onnx import load_network, prepare_network
from tests.converters.test_exports import FILES, HERE, TILEABLE, kind
from tests.converters.test_graph_io import model_of, weights
from tests.support.nets import NETS, onnx_bytes
from tests.support.optimized_models import written_by_runtime

ALL_KINDS = [
    "unet_d2",
    "unet_transpose3_d2",
    "unet_bilinear_skip_d2",
    "segnet",
    "resnet_unet",
    "super_resolution",
    "valid",
]
ZSCORE = ImageStatistics(kind="zscore", epsilon=1e-6)
ONE_NODE = """
<ir_version: 10, opset_import: ["" : {opset}]>
net ({kind}[1, 4, 8, 8] x) => ({kind}[n, c, h, w] y) <float[4, 4, 3, 3] w>
{{
    y = {node}
}}
"""


def one_node(node: str, *, kind: str = "float", opset: int = 17) -> onnx.ModelProto:
    return onnx.parser.parse_model(ONE_NODE.format(node=node, kind=kind, opset=opset))


def of_network(name: str, **options):
    model = onnx.load_from_string(onnx_bytes(name, "random"))
    return deploy(prepare_network(model, name=name), **{"image_dtype": "uint8", **options})


@pytest.mark.parametrize("name", ALL_KINDS)
def test_all_graphs_of_the_test_networks_are_taken(name):
    assert cuda_note(of_network(name)) == ""


@pytest.mark.parametrize(
    "options",
    [
        {"image_dtype": "uint16"},
        {"image_dtype": "float32", "output": "raw"},
        {"output": "probabilities", "map_dtype": "uint8"},
        {"output": "probabilities", "map_dtype": "float16", "normalization": Normalization(statistics=ZSCORE)},
    ],
    ids=str,
)
def test_both_ends_of_the_graphs_are_taken(options):
    assert cuda_note(of_network("unet_d2", **options)) == ""


@pytest.mark.parametrize("name", [name for name in FILES if kind(name) in TILEABLE])
def test_what_frameworks_export_is_taken(name):
    assert cuda_note(deploy(load_network(HERE / name), image_dtype="uint8", strips=False)) == ""


@pytest.mark.parametrize("opset", [22, 25])
def test_graphs_of_new_opsets_are_declared_of_an_older_one_and_compute_the_same(opset):
    model = version_converter.convert_version(onnx.load_from_string(onnx_bytes("unet_d2", "random")), opset)
    assert {(found.op, found.reason) for found in missing_kernels(model)} == {("MaxPool", f"of opset {opset}")}
    deployed = deploy(prepare_network(model, name="net"), image_dtype="float32", output="raw")
    assert cuda_note(deployed) == ""
    image = np.random.default_rng(0).random((48, 64, NETS["unet_d2"].channels), np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
    (expected,) = session.run(None, {session.get_inputs()[0].name: pixels})
    sink = ArraySink()
    Session(deployed, memory_bytes=8 << 30).segment(ArraySource(image), sink, plan="whole")
    np.testing.assert_array_equal(sink.result, expected[0])


def test_what_is_new_in_a_new_opset_keeps_it():
    text = """
    <ir_version: 10, opset_import: ["" : 24]>
    net (float[n, 3, h, w] image) => (float[n, 3, h, w] out)
    {
        a = Swish <alpha = 2.0> (image)
        out = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)
    }
    """
    deployed = deploy(prepare_network(onnx.parser.parse_model(text), name="net"), image_dtype="uint8", strips=False)
    opsets = {opset.domain: opset.version for opset in onnx.load_from_string(deployed.graph).opset_import}
    assert opsets[""] == 24
    assert "MaxPool (of opset 24)" in cuda_note(deployed)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (one_node("MaxPool <kernel_shape = [2, 2]> (x)"), []),
        (one_node("MaxPool <kernel_shape = [2, 2]> (x)", kind="int8"), []),
        (one_node("MaxPool <kernel_shape = [2, 2]> (x)", opset=22), [("MaxPool", "of opset 22")]),
        (one_node("Relu (x)", kind="int8"), [("Relu", "of int8")]),
        (one_node("LpPool <kernel_shape = [2, 2]> (x)"), [("LpPool", "")]),
        (one_node("ConvTranspose <pads = [0, 0, 1, 1]> (x, w)"), [("ConvTranspose", "with other padding on one side")]),
        (
            one_node('ConvTranspose <auto_pad = "SAME_UPPER"> (x, w)'),
            [("ConvTranspose", "with other padding on one side")],
        ),
        (one_node("ConvTranspose <pads = [1, 0, 1, 0]> (x, w)"), []),
        (one_node("ArgMax <select_last_index = 1> (x)"), [("ArgMax", "of the last index")]),
    ],
)
def test_a_node_without_a_kernel_is_found_with_the_reason(model, expected):
    assert [(found.op, found.reason) for found in missing_kernels(model)] == expected


def test_sizes_and_constants_need_no_kernel():
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[1, 3, 8, 8] x) => (float[a, b] y) <int64[1] five = {5}, int64[1] zero = {0}, int64[1] two = {2}>
    {
        shape = Shape (x)
        part = Slice (shape, zero, two)
        odd = BitShift <direction = "LEFT"> (five, five)
        rest = Concat <axis = 0> (zero, odd)
        y = Reshape (x, part)
    }
    """
    assert missing_kernels(onnx.parser.parse_model(text)) == ()


def test_an_open_end_of_versions_is_for_the_first_alone():
    """As ONNX Runtime matches kernels: a new definition of an operator may be another one."""
    kernel = Kernel(first=12, last=0, types={})
    assert [kernel.is_for(version) for version in (11, 12, 13, 22)] == [False, True, False, False]
    kernel = Kernel(first=12, last=21, types={})
    assert [kernel.is_for(version) for version in (11, 12, 21, 22)] == [False, True, True, False]


def test_the_table_says_what_it_is_of():
    assert kernel_table().library.startswith("onnxruntime-gpu 1.")
    assert kernel_table().of("", "MaxUnpool") == ()
    assert kernel_table().of("com.microsoft", "FusedConv")[0].types["T"] == {"float"}


def test_conversion_names_what_a_gpu_would_need_an_engine_for(tmp_path):
    model = written_by_runtime(tmp_path)["quantised"]
    onnx.save(model, tmp_path / "quantised.onnx")
    converted = convert(tmp_path / "quantised.onnx", tmp_path / "quantised.bundle", image_dtype="uint8", verify=False)
    (note,) = [note for note in converted.file.notes if "CUDA provider" in note]
    assert "no kernel for QLinearConv, QLinear" in note
    assert "more operators: on a GPU it needs an engine (--engine tensorrt), or --device cpu" in note


def test_no_word_of_it_where_all_is_taken(tmp_path):
    converted = convert(Path("models/stain_unet.onnx"), tmp_path / "a.bundle", image_dtype="uint8", verify=False)
    assert not any("CUDA" in note for note in converted.file.notes)


@pytest.mark.parametrize(
    ("op", "attributes", "refused"),
    [
        ("AveragePool", {"ceil_mode": 1, "count_include_pad": 1}, True),
        ("AveragePool", {"ceil_mode": 1}, False),
        ("AveragePool", {"count_include_pad": 1, "pads": [1] * 4}, False),
        ("MaxPool", {"dilations": [2, 2], "pads": [2] * 4}, True),
        ("MaxPool", {"dilations": [2, 2]}, False),
        ("MaxPool", {"dilations": [1, 1], "pads": [1] * 4}, False),
    ],
)
def test_pooling_that_the_provider_may_do_otherwise_is_said_in_every_graph(op, attributes, refused, tmp_path):
    """Averages that count padding and whose last window goes beyond it; dilated windows that begin in the padding."""
    nodes = [
        ("Conv", ["image", "w0"], ["a"], {"pads": [1] * 4}),
        (op, ["a"], ["b"], {"kernel_shape": [3, 3], "strides": [2, 2], **attributes}),
        ("Conv", ["b", "w1"], ["out"], {}),
    ]
    model = onnx.load_from_string(model_of(nodes, {"w0": weights(4, 3, 3, 3), "w1": weights(2, 4, 1, 1)}))
    deployed = deploy(prepare_network(model, name="net"), image_dtype="uint8")
    assert deployed.strips is not None
    graphs = [deployed.graph, *(strip.graph for strip in deployed.strips.graphs.values())]
    onnx.save(model, tmp_path / "net.onnx")
    converted = convert(tmp_path / "net.onnx", tmp_path / "net.bundle", image_dtype="uint8", verify=False)
    graphs += [path.read_bytes() for path in sorted((tmp_path / "net.bundle").glob("*.onnx"))]
    assert len(graphs) == 9
    said = [{entry.key: entry.value for entry in onnx.load_from_string(graph).metadata_props} for graph in graphs]
    assert [NOT_ON_CUDA in metadata for metadata in said] == [refused] * len(graphs)
    assert any(f"is refused: {op}" in note for note in converted.file.notes) == refused
