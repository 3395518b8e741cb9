"""The real CUDA provider of onnxruntime-gpu on stand-ins for CUDA's libraries: what it takes, and what it calls.

Needs the folder of an unpacked wheel in the environment: pip download --no-deps onnxruntime-gpu; unzip. The stand-ins
compute nothing; what is real is how ONNX Runtime divides a graph, loads weights and enqueues a run.
"""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.backend.test.loader import load_model_tests

from exactile.engines.device_partials import DevicePartials
from exactile.sources.array import ArraySource
from exactile_converters.cuda_kernels.check import missing_kernels
from exactile_converters.deploy import Normalization, deploy, deploy_in_passes
from exactile_converters.device.form import embedded
from exactile_converters.prepare.from_onnx import prepare_network
from exactile_converters.reduced_precision.calibration_crops import crops_of
from exactile_converters.reduced_precision.precision import at_precision
from tests.cuda_runtime.kernels import TARGET, kernels_of
from tests.cuda_runtime.library import WHEEL, build, run, wheel
from tests.support.global_nets import chain
from tests.support.nets import NETS, onnx_bytes

SITE = wheel()
if SITE is None or shutil.which("g++") is None:
    pytest.skip(f"{WHEEL} is not the folder of an unpacked onnxruntime-gpu", allow_module_level=True)
pytestmark = pytest.mark.slow

STREAM = "0x7f0012345680"
NO_SHARE = {"RNN", "GRU", "LSTM", "Bernoulli", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"}
"""Operators of which it takes some forms or their parts: not those of maps of an image, and not in the check."""
TYPES = {getattr(TensorProto, name) for name in "FLOAT DOUBLE FLOAT16 BOOL INT8 INT16 INT32 INT64 UINT8 UINT16".split()}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cuda")
    build(SITE, folder)
    return folder


def placed(graphs: list[tuple[bytes, dict[str, int]]], libraries: Path) -> list[list[str] | str]:
    """The operators of each graph that are left to the CPU; a string where it was not opened."""
    path = libraries / "graphs.pickle"
    path.write_bytes(pickle.dumps(graphs))
    return json.loads(run("tests.cuda_runtime.placement", path, site=SITE, libraries=libraries))


def graphs_of(name: str) -> list[tuple[bytes, dict[str, int]]]:
    """The tile graph and the strip graphs of a test network, with sizes for their dimensions."""
    network = prepare_network(onnx.load_from_string(onnx_bytes(name, "random")), name=name)
    model = deploy(network, image_dtype="uint8")
    geometry = model.contract.geometry
    width = geometry.x.accepted_size(320)
    sizes = {"height": geometry.y.accepted_size(512), "width": width}
    found = [(embedded(model.graph, model.weights).SerializeToString(), sizes)]
    if model.strips is None:
        return found
    stride, strips = geometry.y.stride, model.strips
    heights = {"first": max(2 * stride, strips.startup_rows), "body": 4 * stride, "last": strips.least_last_rows}
    widths = {carry.width_name: carry.columns_at(width) for carry in strips.carries}
    for role, rows in heights.items():
        graph = embedded(strips.graphs[role].graph, strips.weights).SerializeToString()
        found.append((graph, {"height": rows, "width": width, **widths}))
    return found


def test_the_table_is_the_one_that_the_library_lists(libraries):
    assert kernels_of(SITE, libraries) == TARGET.read_text()


def test_nothing_of_any_graph_of_the_test_networks_is_left_to_the_cpu(libraries):
    graphs = [graph for name in NETS for graph in graphs_of(name)]
    assert placed(graphs, libraries) == [[]] * len(graphs)


def test_nothing_of_a_pass_that_finds_statistics_is_left_to_the_cpu(libraries):
    """Of the graphs for GPUs: numbers of rows, told by masks; and of the result, which takes what was found."""
    graphs = []
    for block in ("instance_norm", "excitation", "largest", "smallest", "root_of_squares"):
        network = prepare_network(onnx.load_from_string(chain(block)), name=block)
        model = deploy_in_passes(network, image_dtype="uint8", strips=False)
        sizes = {"height": 64, "width": 96}
        graphs.append((embedded(model.graph, model.weights).SerializeToString(), sizes))
        for level in model.levels:
            found = level.device_model
            graph = embedded(found.graph, found.weights).SerializeToString()
            graphs.append((graph, {**sizes, **DevicePartials.of(level).dims_at(96)}))
    assert placed(graphs, libraries) == [[]] * len(graphs)


def test_networks_of_fewer_bits_are_left_to_the_cpu_nowhere(libraries):
    """Half precision, and weights of 8 bits with biases of 32."""
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    graphs = []
    for precision in ("fp16", "int8"):
        network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2", "random")), name="net")
        crops = crops_of([ArraySource(image)], network, Normalization()).calibration if precision == "int8" else ()
        model = deploy(at_precision(network, precision, crops, "percentile"), image_dtype="uint8", strips=False)
        graphs.append((model.graph, {"height": 64, "width": 96}))
    assert placed(graphs, libraries) == [[], []]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the cases that it makes
def test_the_check_says_of_onnxs_own_cases_what_the_library_does(libraries):
    """Every operator of ONNX in every type and attribute that its cases have."""
    # Those of CenterCropPad compute with sizes that are inputs, on the CPU. Ours are known when a graph is opened.
    cases = [case for case in load_model_tests(kind="node") if "center_crop_pad" not in case.name]
    models = [case.model for case in cases if comparable(case.model)]
    found = placed([(model.SerializeToString(), {}) for model in models], libraries)
    compared, differing = 0, []
    for model, left in zip(models, found, strict=True):
        if isinstance(left, str):  # it is not opened on a CPU, either
            continue
        compared += 1
        missing = sorted({each.op for each in missing_kernels(model)})
        if bool(missing) != bool(left):
            differing.append((model.graph.node[0].op_type, missing, left))
    assert compared > 1000
    assert differing == []


def comparable(model: onnx.ModelProto) -> bool:
    values = (*model.graph.input, *model.graph.output)
    tensors = all(value.type.HasField("tensor_type") for value in values)
    tensors = tensors and {value.type.tensor_type.elem_type for value in values} <= TYPES
    plain = all(opset.domain in ("", "ai.onnx") and opset.version <= 25 for opset in model.opset_import)
    whole = not any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute)
    return tensors and plain and whole and not NO_SHARE & {node.op_type for node in model.graph.node}


def test_a_run_is_on_the_callers_stream_alone_and_copies_and_waits_for_nothing(libraries, tmp_path):
    journal = tmp_path / "journal"
    refused = run("tests.cuda_runtime.runs", journal, site=SITE, libraries=libraries, journal=journal)
    called: dict[str, list[str]] = {}
    for line in journal.read_text().splitlines():
        if line.startswith("# "):
            called[line[2:]] = now = []
        else:
            now.append(line)
    opening, first, later, last = (called[name] for name in ("open", "run 0", "run 1", "run 2"))
    # Weights are copied before the session is there, and the copy is waited for.
    assert "copy now kind=1" in opening
    assert opening.index("synchronize (nil)") > opening.index("copy now kind=1")
    # The first run takes memory; later ones do not, and do the same.
    assert any(line.startswith("allocate") for line in first)
    assert [line for line in first if not line.startswith("allocate")] == later == last
    # All of it is on the stream; the copies are those of the graph on the device, not of inputs and results.
    assert {line.split()[1] for line in later} == {STREAM}
    assert {line.split()[0] for line in later} <= {"kernel", "fill", "copy"}
    assert all(line.endswith("kind=3") for line in later if line.startswith("copy"))
    # What was taken is given back.
    taken = {line.split()[1] for line in (*opening, *first) if line.startswith("allocate")}
    assert taken <= {line.split()[1] for line in called["close"] if line.startswith("free")}
    assert "no kernel for MaxPool (2 nodes" in refused
