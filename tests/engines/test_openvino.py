"""OpenVINO as the engine on a CPU: the pixels of one pass of plain OpenVINO, within the memory that is predicted."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
from onnx import TensorProto, helper

from exactile.bundle.opening import open_bundle
from exactile.contract.tuning import TunedShape, Tuning
from exactile.engines import openvino_library
from exactile.engines.graph_weights import addressed
from exactile.engines.host_families import OPENVINO_MEMORY
from exactile.engines.openvino import OpenVinoEngine
from exactile.errors import CancelledError, EngineError, OptionError, PlanError, ResumeError
from exactile.machine.architecture import architecture
from exactile.machine_speed.machine_name import machine_name
from exactile.plan.strips import StripPlace
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.command import exactile, within
from tests.support.folders import ROOT
from tests.support.nets import NETS, onnx_bytes, onnx_file
from tests.support.oracle import whole_pass

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'exactile[cpu-openvino]'")

ENGINE = "openvino"
SMALL = Path(openvino_library.__file__).parents[1] / "doctor" / "bundles" / "labels.bundle"
BFLOAT16 = pytest.mark.skipif(
    not openvino_library.load_openvino().has_bfloat16, reason="this CPU does not compute in bfloat16"
)


def plain_pass(precision: str = "f32"):
    """The output (C, H', W') of plain OpenVINO for (H, W, C) float32."""

    def run(model: bytes, values: np.ndarray) -> np.ndarray:
        core = openvino.Core()
        given = np.ascontiguousarray(values.transpose(2, 0, 1)[None])
        network = core.read_model(io.BytesIO(model))
        network.reshape(list(given.shape))
        request = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": precision}).create_infer_request()
        return np.array(request.infer({0: given})[0][0])

    return run


@cache
def deployed(name: str, output: str = "raw", weights: str = "random", dtype: str = "uint8", scale: float = 1.0):
    network = prepare_network(onnx.load_from_string(onnx_bytes(name, weights=weights)), name=name)
    return deploy(network, image_dtype=dtype, output=output, normalization=Normalization(scale=(scale,)))


def image_of(name: str, size: tuple[int, int], dtype: str = "uint8", largest: int = 255) -> np.ndarray:
    generator = np.random.default_rng(size[0])
    return generator.integers(0, largest + 1, (*size, NETS[name].channels)).astype(dtype)


def run(model, image: np.ndarray, *, engine: str = ENGINE, lanes: int = 1, threads: int = 2, **options):
    session = Session(model, engine=engine, memory_bytes=8 << 30, threads=threads, lanes=lanes)
    sink = ArraySink()
    try:
        return session.segment(ArraySource(image), sink, **options), sink.result
    finally:
        session.close()


WAYS = {
    "whole": {"plan": "whole"},
    "tiles": {"plan": "tile"},
    "tiles in lanes": {"plan": "tile", "lanes": 2},
    "strips": {"plan": "strip"},
    "bands in lanes": {"plan": "strip", "lanes": 2},
}
# Name, odd size, tile, strip rows and band.
INTEGER = {
    "unet_transpose3_d2": ((141, 163), (64, 72), (28, 92)),
    "unet_nearest_d3": ((213, 235), (128, 136), (56, 168)),
    "asymmetric": ((61, 73), (20, 24), (16, 40)),
    "valid": ((71, 83), (32, 40), (24, 44)),
    "low_resolution": ((93, 107), (40, 44), (24, 60)),
    "super_resolution": ((51, 63), (20, 24), (16, 32)),
}


def shaped(way: str, tile: tuple[int, int], strip: tuple[int, int]) -> dict:
    options = dict(WAYS[way])
    if options["plan"] != "whole":
        options["tile"] = tile if options["plan"] == "tile" else strip
    return options


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", INTEGER)
def test_integer_weights_agree_bit_for_bit_with_one_pass_of_plain_openvino(name, way):
    """At odd sizes, where arithmetic is exact a single wrong pixel would show."""
    size, tile, strip = INTEGER[name]
    model, image = deployed(name, weights="integer"), image_of(name, size, largest=7)
    summary, found = run(model, image, **shaped(way, tile, strip))
    plain = whole_pass(onnx_bytes(name, weights="integer"), image, model.contract.geometry, runs=plain_pass())
    assert np.array_equal(found, plain)
    assert summary.lanes == WAYS[way].get("lanes", 1)
    assert (summary.tiles > 1) == (way != "whole")


@pytest.mark.parametrize("border", ["reflect", "edge", "constant"])
@pytest.mark.parametrize("way", ["tiles", "strips"])
def test_borders_agree_bit_for_bit(border, way):
    name = "unet_transpose3_d2"
    size, tile, strip = INTEGER[name]
    model, image = deployed(name, weights="integer"), image_of(name, size, largest=7)
    _, found = run(model, image, border=border, **shaped(way, tile, (strip[0], 128)))
    plain = whole_pass(onnx_bytes(name, weights="integer"), image, model.contract.geometry, border, runs=plain_pass())
    assert np.array_equal(found, plain)


@pytest.mark.parametrize("name", ["unet_d3", "unet_bilinear_d2", "dilated", "resnet_unet_bilinear"])
def test_no_label_of_random_weights_differs_and_scores_are_those_of_one_pass(name):
    stride = NETS[name].stride
    size, tile = ((512, 480), (448, 448)) if stride == 32 else ((211, 245), (128, 136))
    image = image_of(name, size)
    plain = whole_pass(onnx_bytes(name), image, deployed(name).contract.geometry, scale=255.0, runs=plain_pass())
    for way in ("tiles", "strips"):
        options = shaped(way, tile, (stride * 8 if stride > 1 else 64, size[1]))
        if way == "strips":
            del options["tile"]
        _, scores = run(deployed(name, scale=255.0), image, **options)
        _, labels = run(deployed(name, "labels", scale=255.0), image, **options)
        assert np.abs(scores - plain).max() <= 1e-5 * np.abs(plain).max()
        assert np.array_equal(labels, plain.argmax(0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_type_of_samples(dtype):
    name, image = "unet_d2", image_of("unet_d2", (83, 90), dtype, 255 if dtype == "uint8" else 60000)
    model = deployed(name, dtype=dtype, scale=1000.0)
    plain = whole_pass(onnx_bytes(name), image, model.contract.geometry, scale=1000.0, runs=plain_pass())
    for options in ({"plan": "tile", "tile": (64, 64)}, {"plan": "strip", "tile": (24, 92)}):
        _, found = run(model, image, **options)
        assert np.abs(found - plain).max() <= 1e-5 * np.abs(plain).max()


def test_threads_and_lanes_do_not_change_a_bit():
    model, image = deployed("unet_d3", scale=255.0), image_of("unet_d3", (205, 331))
    first, *others = (
        run(model, image, plan="tile", tile=(128, 128), threads=threads, lanes=lanes)[1]
        for threads, lanes in ((1, 1), (2, 1), (2, 2), (3, 3))
    )
    assert all(np.array_equal(other, first) for other in others)


def test_a_bundle_with_weights_beside_its_graphs_gives_its_recorded_labels_in_every_plan():
    bundle = open_bundle(SMALL)
    for plan in ("whole", "strip"):
        _, found = run(bundle.model, bundle.sample_image, plan=plan)
        assert np.array_equal(found, bundle.sample_result)


def test_statistics_of_the_image_that_normalise_it_are_inputs_of_the_graph():
    from exactile.contract import ImageStatistics

    name = "unet_d2"
    network = prepare_network(onnx.load_from_string(onnx_bytes(name)), name=name)
    model = deploy(
        network,
        image_dtype="uint8",
        output="raw",
        normalization=Normalization(statistics=ImageStatistics(kind="zscore")),
    )
    image = image_of(name, (83, 90))
    values = image.astype(np.float64)
    mean, deviation = values.mean((0, 1)), values.std((0, 1)) + 1e-6
    plain = whole_pass(onnx_bytes(name), image, model.contract.geometry, mean=mean, std=deviation, runs=plain_pass())
    _, found = run(model, image, plan="tile", tile=(64, 64))
    assert np.abs(found - plain).max() <= 1e-4 * np.abs(plain).max()


@BFLOAT16
def test_bfloat16_is_another_result_that_tiles_share_with_one_pass():
    """Not the float32 labels, and the summary says so; strips are left out."""
    name, image = "unet_d3", image_of("unet_d3", (208, 248))
    model = deployed(name, scale=255.0)
    whole, tiles = (
        run(model, image, engine="openvino:bf16", **options)
        for options in ({"plan": "whole"}, {"plan": "tile", "tile": (128, 136)})
    )
    _, float32 = run(model, image, plan="whole")
    assert np.array_equal(whole[1], tiles[1])
    assert not np.array_equal(whole[1], float32)
    plain = whole_pass(onnx_bytes(name), image, model.contract.geometry, scale=255.0, runs=plain_pass("bf16"))
    assert np.abs(whole[1] - plain).max() <= 0.05 * np.abs(plain).max()
    assert "bfloat16, not the float32 labels" in whole[0].processor
    assert Session(model, engine="openvino:bf16").has_strips is False


def test_bfloat16_is_refused_where_the_cpu_does_not_have_it(monkeypatch):
    monkeypatch.setattr(openvino_library.OpenVino, "has_bfloat16", False)
    with pytest.raises(OptionError, match=r"needs a CPU that computes in bfloat16.*--engine openvino, in float32"):
        Session(deployed("unet_d2"), engine="openvino:bf16")


@pytest.mark.parametrize(
    ("engine", "device", "message"),
    [
        ("openvino:fp8", "cpu", "computes in f32 or bf16, not in 'fp8'"),
        ("openvino", "cuda:0", "--engine openvino runs on the CPU; with --device cuda:0, leave it out"),
        ("openvin", "cpu", "one of auto, onnxruntime, openvino, tensorrt"),
    ],
)
def test_what_cannot_be_is_refused(engine, device, message):
    with pytest.raises(OptionError, match=message):
        Session(deployed("unet_d2"), engine=engine, device=device)


def test_the_engine_is_named_and_an_unfinished_run_of_another_is_not_gone_on_with(tmp_path):
    """What decides about the last digits is in the record; with the same engine the run goes on to the same bytes."""
    from exactile.sinks.open import open_sink

    model, image = deployed("unet_d2", "labels", scale=255.0), image_of("unet_d2", (205, 331))
    options = {"plan": "tile", "tile": (64, 64)}
    done: list[int] = []

    def stop(pixels: int) -> None:
        done.append(pixels)
        if len(done) == 5:
            raise KeyboardInterrupt

    def onto(engine: str, **more):
        sink = open_sink(tmp_path / "labels.tif", resumable=True)
        return Session(model, engine=engine).segment(ArraySource(image), sink, **options, **more)

    with pytest.raises(KeyboardInterrupt):
        onto(ENGINE, progress=stop)
    with pytest.raises(ResumeError, match="openvino"):
        onto("onnxruntime", resume=True)
    summary = onto(ENGINE, resume=True)
    assert summary.kept_pixels > 0
    assert summary.processor == f"cpu, openvino {openvino.__version__.partition('-')[0]}"
    assert np.array_equal(tifffile.imread(tmp_path / "labels.tif"), run(model, image, plan="whole")[1])


def test_a_tuning_of_one_engine_says_nothing_of_the_other():
    from exactile.sinks.nothing import NoSink

    model, source = deployed("unet_d2", "labels"), ArraySource(image_of("unet_d2", (400, 400)))
    shapes = (TunedShape(kind="tile", shape=(256, 256), lanes=1, activation_bytes=1, seconds_per_pixel=1e-3),)
    tuned = replace(model, tuning=Tuning(belongs_to="0" * 64, machine=machine_name(), threads=2, shapes=shapes))
    speeds = [
        Session(tuned, engine=engine, threads=2)._planner.speed((400, 400)).points for engine in ("onnxruntime", ENGINE)
    ]
    assert speeds == [shapes, ()]
    found = Session(model, engine=ENGINE, threads=2).tune(seconds=0.5)
    assert found.machine.endswith(f"CPUs; openvino {openvino.__version__.partition('-')[0]}")
    assert Session(replace(model, tuning=found), engine=ENGINE, threads=2).plan(source, NoSink()).plan.name


def test_another_thread_stops_a_tile_under_way():
    model = deployed("unet_d4", "labels")
    tile = image_of("unet_d4", (1024, 1024))
    engine = OpenVinoEngine(
        model.graph,
        input_name=model.contract.image.name,
        output_name=model.contract.result.name,
        tile_shape=tile.shape[:2],
        channels=3,
        weights=model.weights,
    )
    out = np.empty(tile.shape[:2], np.uint8)
    begin = time.perf_counter()
    engine.infer(tile, out)
    whole_s = time.perf_counter() - begin
    timer = threading.Timer(whole_s / 4, engine.cancel)
    timer.start()
    with pytest.raises(CancelledError):
        engine.infer(tile, out)
    with pytest.raises(CancelledError):
        engine.infer(tile, out)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.infer(tile, out)


def small_engine(graph: bytes | None = None, **options) -> OpenVinoEngine:
    model = deployed("unet_d2", "labels")
    told = {
        "input_name": model.contract.image.name,
        "output_name": model.contract.result.name,
        "weights": model.weights,
    }
    return OpenVinoEngine(graph or model.graph, **{**told, "tile_shape": (32, 40), "channels": 3, **options})


@pytest.mark.parametrize(
    ("tile", "out", "message"),
    [
        (np.zeros((32, 32, 3), np.uint8), np.zeros((32, 40), np.uint8), r"has shape \(32, 32, 3\).*\(32, 40, 3\)"),
        (np.zeros((32, 40, 3), np.uint16), np.zeros((32, 40), np.uint8), "is uint16, but the graph has uint8"),
        (np.zeros((32, 40, 3), np.uint8), np.zeros((32, 40), np.float32), "is float32, but the graph has uint8"),
        (np.zeros((32, 80, 3), np.uint8)[:, ::2], np.zeros((32, 40), np.uint8), "not C-contiguous"),
        (np.zeros((32, 40, 3), np.uint8), np.frombuffer(bytes(1280), np.uint8).reshape(32, 40), "read-only"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_both_values(tile, out, message):
    with pytest.raises(EngineError, match=message):
        small_engine().infer(tile, out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_name": "other"}, "has no input 'other'; it has 'exactile_image'"),
        ({"output_name": "other"}, "has no output 'other'; it has"),
        ({"claims": {"exactile.stride": "3"}}, "and the contract disagree about exactile.stride"),
        ({"graph": b"\x08\x0a\xff\xff\xff"}, "the graph is damaged"),
        ({"graph": b"\x08\x0a"}, "OpenVINO failed while reading the graph; run it with --engine onnxruntime"),
        ({"tile_shape": (0, 40)}, "a tile of 0 x 40 pixels is empty"),
        ({"tile_shape": (33, 40)}, "OpenVINO failed while compiling the graph"),
    ],
)
def test_a_graph_that_does_not_fit_is_an_error_of_one_line(options, message):
    with pytest.raises(EngineError, match=message) as raised:
        small_engine(**options)
    assert "\n" not in str(raised.value)


def test_a_tile_engine_runs_no_strips_and_is_told_no_position():
    tile, out = np.zeros((32, 40, 3), np.uint8), np.zeros((32, 40), np.uint8)
    with pytest.raises(EngineError, match="cannot run strips"):
        small_engine().infer(tile, out, StripPlace("first", 0))
    with pytest.raises(EngineError, match="cannot take the position of a tile"):
        small_engine().infer(tile, out, position=np.zeros(4, np.int64))


def test_an_operator_that_openvino_does_not_read_is_named_with_a_way_out():
    """Det has no equivalent there."""
    node = helper.make_node("Det", ["x"], ["y"])
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["height", "width", 2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_model(helper.make_graph([node], "det", [image], [result])).SerializeToString()
    with pytest.raises(EngineError, match="Det") as raised:
        OpenVinoEngine(graph, input_name="x", output_name="y", tile_shape=(2, 2), channels=2)
    assert "run it with --engine onnxruntime" in str(raised.value)


def test_constants_outside_of_a_graph_are_read_where_they_are_and_missing_ones_named():
    kernel = np.arange(400, dtype=np.float32).reshape(1, 400, 1, 1)
    tensor = TensorProto(name="kernel", data_type=TensorProto.FLOAT, dims=kernel.shape)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights")
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[2, 0, 1]),
        helper.make_node("Unsqueeze", ["t", "axis"], ["u"]),
        helper.make_node("Conv", ["u", "kernel"], ["y"]),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [0])
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["height", "width", 400])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, "height", "width"])
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(helper.make_graph(nodes, "g", [image], [result], [tensor, axis]), opset_imports=[opset])
    told = {"input_name": "x", "output_name": "y", "tile_shape": (1, 2), "channels": 400}
    graph = model.SerializeToString()
    with pytest.raises(EngineError, match="constant 'kernel' is outside of it, and not given"):
        OpenVinoEngine(graph, **told)
    engine = OpenVinoEngine(graph, weights={"kernel": kernel}, **told)
    tile, out = np.ones((1, 2, 400), np.float32), np.empty((1, 1, 1, 2), np.float32)
    engine.infer(tile, out)
    assert (out == kernel.sum()).all()
    assert str(kernel.ctypes.data).encode() in addressed(graph, {"kernel": kernel}).graph


def test_a_network_that_depends_on_the_position_is_refused_with_a_way_out():
    """Positions are 64-bit integers; the size is one at which the network's resize depends on them."""
    name = "unet_bilinear_skip_d2"
    model, image = deployed(name), image_of(name, (121, 133))
    assert model.contract.geometry.of_size((121, 133)).placed
    with pytest.raises(EngineError, match=r"depend on the position .*121 x 133.*--engine onnxruntime"):
        run(model, image, plan="tile", tile=(80, 84))


def test_a_network_that_takes_statistics_of_the_whole_image_is_refused_with_a_way_out(tmp_path):
    from exactile_converters.torch_export import export_onnx
    from tests.support.normed_modules import EncoderDecoder, normed, transposed

    path = tmp_path / "normed.onnx"
    export_onnx(EncoderDecoder(normed, transposed, (8, 8, 8)).eval(), path, 3, (64, 64), stride=4)
    np.save(tmp_path / "image.npy", np.zeros((96, 96, 3), np.uint8))
    words = (path, tmp_path / "image.npy", "-o", tmp_path / "labels.npy", "--scale", "255", "--no-verify")
    words = (*words, "--plan", "tile")
    refused = within("run", *words, "--engine", ENGINE)
    assert refused.returncode != 0
    assert "statistics of the whole image" in refused.stderr
    assert "--engine onnxruntime" in " ".join(refused.stderr.split())
    assert within("run", *words, "--engine", "onnxruntime").returncode == 0


def test_statistics_that_are_given_are_taken_and_finding_them_is_refused():
    """Found by ONNX Runtime, they are inputs of the graph; the result is that of ONNX Runtime to re-association."""
    from exactile_converters.deploy import deploy_in_passes
    from tests.support.global_nets import chain

    network = prepare_network(onnx.load_from_string(chain("instance_norm", times=2)), name="normed")
    model = deploy_in_passes(network, image_dtype="uint8", output="raw")
    image = np.random.default_rng(0).integers(0, 256, (40, 52, model.contract.image.channels), dtype=np.uint8)
    statistics = Session(model).measure_statistics([ArraySource(image)])
    (_, found), (_, expected) = (
        run(model, image, engine=engine, plan="tile", statistics=statistics) for engine in (ENGINE, "onnxruntime")
    )
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    with pytest.raises(EngineError, match=r"need float64.*--engine onnxruntime"):
        Session(model, engine=ENGINE).measure_statistics([ArraySource(image)])


def test_strips_that_hold_the_arithmetic_of_onnx_runtime_are_left_out():
    model = deployed("unet_d2", "labels")
    fewer_bits = replace(model, strips=replace(model.strips, processor=architecture()))
    assert Session(fewer_bits, engine="onnxruntime").has_strips
    with pytest.raises(PlanError, match="its strips hold the arithmetic of ONNX Runtime"):
        run(fewer_bits, image_of("unet_d2", (205, 331)), plan="strip")


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(openvino_library, "_loaded", [])
    with pytest.raises(EngineError, match=r"pip install 'exactile\[cpu-openvino\]'"):
        Session(deployed("unet_d2"), engine=ENGINE)


BLOCKED = (
    "import sys; sys.modules[{!r}] = None; from exactile.cli.main import run; "
    "sys.argv = ['exactile', *sys.argv[1:]]; run()"
)


@pytest.mark.parametrize(("without", "engine"), [("onnxruntime", ENGINE), ("openvino", "onnxruntime")])
def test_a_bundle_runs_with_one_engine_installed(tmp_path, without, engine):
    """One image, and many, whose records hold versions."""
    bundle = open_bundle(SMALL)
    for number in range(2):
        np.save(tmp_path / f"image{number}.npy", bundle.sample_image)
    words = [sys.executable, "-c", BLOCKED.format(without), "run", str(SMALL)]
    tail = ["--engine", engine, "--format", ".npy", "--json"]
    images = [str(tmp_path / f"image{number}.npy") for number in range(2)]
    for given, target in ((images[:1], tmp_path / "one.npy"), (images, tmp_path / "many")):
        done = subprocess.run([*words, *given, "-o", str(target), *tail], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        for summary in told if isinstance(told, list) else [told]:
            assert engine in summary["processor"]
            assert np.array_equal(np.load(summary["output"]), bundle.sample_result)


def test_openvino_is_imported_where_it_is_asked_for_alone():
    code = (
        "import sys, exactile; from exactile.session import Session; from exactile.bundle.opening import open_bundle\n"
        "from pathlib import Path; Session(open_bundle(Path(sys.argv[1])).model, device='cpu')\n"
        "print('openvino' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(SMALL)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "options",
    [
        ("--plan", "tile", "--tile", "256", "--lanes", "2"),
        ("--plan", "strip", "--tile", "128x1400"),
    ],
    ids=" ".join,
)
def test_a_run_takes_no_more_memory_than_predicted(tmp_path, options):
    """In a process of its own, of a network whose activations are most of it."""
    np.save(tmp_path / "image.npy", np.random.default_rng(0).integers(0, 256, (1100, 1400, 3), dtype=np.uint8))
    model = ROOT / "models" / "stain_unet.onnx"
    words = (model, tmp_path / "image.npy", "-o", tmp_path / "labels.npy", "--scale", "255", "--no-verify")
    done = exactile("run", *words, "--engine", ENGINE, "--memory", "1500MiB", "--json", *options)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["peak_memory_bytes"] <= summary["predicted_memory_bytes"] <= 1500 << 20


@pytest.mark.parametrize("name", ["unet_d4", "resnet_unet"])
def test_an_engine_takes_no_more_than_the_rule_says(tmp_path, name):
    from benchmarks.memory_model import measure

    model, tile = deployed(name, "labels"), (416, 448)
    path, memory = tmp_path / "graph.onnx", model.contract.memory
    path.write_bytes(model.graph)
    predicted = OPENVINO_MEMORY.weights(memory.weights_bytes) + OPENVINO_MEMORY.activations(
        memory.activation_bytes(*tile)
    )
    assert measure(model, path, tile, runs=2, threads=2, engine=ENGINE) <= predicted


def test_engines_of_many_shapes_leave_little_behind():
    """Each opened and closed in turn, in a process of their own: 20 shapes leave no more than 10 MiB."""
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from exactile.bundle.opening import open_bundle; from exactile.engines.openvino import OpenVinoEngine\n"
        "from exactile.machine.memory import settled_resident_bytes\n"
        "model = open_bundle(Path(sys.argv[1])).model; image, result = model.contract.image, model.contract.result\n"
        "def one(side):\n"
        "    told = {'input_name': image.name, 'output_name': result.name, 'weights': model.weights}\n"
        "    engine = OpenVinoEngine(model.graph, tile_shape=(side, side), channels=3, **told)\n"
        "    engine.infer(np.zeros((side, side, 3), 'u1'), np.empty((side, side), 'u1'))\n"
        "one(64); first = settled_resident_bytes()\n"
        "for number in range(20): one(96 + 16 * number)\n"
        "print(settled_resident_bytes() - first)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(SMALL)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 10 << 20


def test_the_command_line_names_the_engine_in_help_and_doctor():
    assert "openvino" in within("run", "--help-all").stdout
    report = json.loads(exactile("doctor", "--device", "cpu", "--json").stdout)
    findings = {(one["group"], one["check"]): one for one in report["findings"]}
    assert findings["packages", "openvino"]["status"] == "ok"
    assert findings["results", "cpu openvino"]["status"] == "ok"


def test_onnx_file_and_record_of_the_run(tmp_path):
    """A plain ONNX file by the command line: labels as one pass of plain OpenVINO gives them."""
    name, image = "unet_d2", image_of("unet_d2", (83, 90))
    np.save(tmp_path / "image.npy", image)
    model = onnx_file(tmp_path, name)
    done = within(
        "run", model, tmp_path / "image.npy", "-o", tmp_path / "out.npy", "--engine", ENGINE, "--scale", "255", "--json"
    )
    assert done.returncode == 0, done.stderr
    plain = whole_pass(onnx_bytes(name), image, deployed(name).contract.geometry, scale=255.0, runs=plain_pass())
    assert np.array_equal(np.load(tmp_path / "out.npy"), plain.argmax(0))
    assert json.loads(done.stdout)["processor"].startswith("cpu, openvino 2")


def test_an_engine_has_the_threads_that_it_is_given_bound_to_no_core_and_computes_in_float32():
    """Bound, the threads of engines side by side would share one; by default, new CPUs compute in bfloat16."""
    compiled, _arrays = small_engine(threads=1)._graph._kept
    names = ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "ENABLE_CPU_PINNING")
    assert [compiled.get_property(name) for name in names] == [1, 1, False]
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
