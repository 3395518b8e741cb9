"""TensorRT engines on device memory: the results of ONNX Runtime on the CPU, and a reason for everything that fails.

TensorRT itself is a stand-in here, see ``tensorrt_stand_in.py``.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from exactile.contract.built_engine import Backend, BuiltEngine, TensorSpec
from exactile.engines.tensorrt import ALIGNMENT_BYTES, TensorRTNetwork
from exactile.engines.tensorrt_library import LogLines, load_tensorrt
from exactile.errors import BundleError, DeviceError, DeviceMemoryError, EngineError
from tests.support.tensorrt_stand_in import HostDevice, TensorRTStandIn, build

CAPABILITY = (8, 6)
STREAM = 0x1234

NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (uint8[{rows}, 12, 3] image, float[1, 3, 1, 1] scale) => (uint8[out_rows, 12] labels, float[4, out_rows, 12] scores)
<float[4, 3, 3, 3] w = {{{weights}}}, int64[1] zero = {{0}}>
{{
    f = Cast <to = 1> (image)
    t = Transpose <perm = [2, 0, 1]> (f)
    x = Unsqueeze (t, zero)
    scaled = Mul (x, scale)
    y = Conv <pads = [1, 1, 1, 1]> (scaled, w)
    scores = Squeeze (y, zero)
    c = ArgMax <axis = 0, keepdims = 0> (scores)
    labels = Cast <to = 2> (c)
}}
"""

BATCH = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[3, 4, 5, 2] image) => (float[3, 2, 4, 5] result)
{ result = Transpose <perm = [0, 3, 1, 2]> (image) }
"""


WEIGHTS = ", ".join(map(str, np.random.default_rng(1).integers(-3, 4, 4 * 3 * 9)))


def net(rows: int | str = 8) -> onnx.ModelProto:
    return onnx.parser.parse_model(NET.format(rows=rows, weights=WEIGHTS))


def shapes(rows: int) -> dict[str, tuple[int, ...]]:
    return {"labels": (rows, 12), "scores": (4, rows, 12)}


def inputs(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    image = np.random.default_rng(seed).integers(0, 256, (rows, 12, 3)).astype(np.uint8)
    return {"image": image, "scale": np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)}


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy at an address that a device allocator could give."""
    raw = np.zeros(array.nbytes + ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.fixture
def device() -> HostDevice:
    return HostDevice()


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def stand_in(request, device, monkeypatch) -> TensorRTStandIn:
    made = TensorRTStandIn(device, backend=request.param, scratch_bytes=4096)
    monkeypatch.setitem(sys.modules, made.module.__name__, made.module)
    return made


@pytest.fixture
def built(stand_in, tmp_path) -> BuiltEngine:
    return build(net(), tmp_path, backend=backend_of(stand_in), rows=(8, 8), columns=12, outputs=shapes(8))


@pytest.fixture
def varying(stand_in, tmp_path) -> BuiltEngine:
    return build(net("height"), tmp_path, backend=backend_of(stand_in), role="last", rows=(4, 16), columns=12)


def backend_of(stand_in: TensorRTStandIn) -> Backend:
    return "tensorrt" if stand_in.module.__name__ == "tensorrt" else "tensorrt-rtx"


def run(network: TensorRTNetwork, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """One inference over seeded inputs, in host memory."""
    given = {name: aligned(array) for name, array in inputs(rows, seed).items()}
    dtypes = {"labels": np.uint8, "scores": np.float32}
    made = {name: aligned(np.zeros(shape, dtypes[name])) for name, shape in shapes(rows).items()}
    addresses = {name: array.ctypes.data for name, array in (given | made).items()}
    network.enqueue(addresses, rows=rows, stream=STREAM)
    return made


def expected(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The same in ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(net(rows).SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(("labels", "scores"), session.run(["labels", "scores"], inputs(rows, seed)), strict=True))


def addresses_of(built: BuiltEngine) -> dict[str, int]:
    return dict.fromkeys((*built.inputs, *built.outputs), 4096)


def assert_equal(results: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert all(np.array_equal(results[name], wanted[name]) for name in wanted)


def test_results_are_those_of_onnx_runtime_and_runs_do_not_mix(built, device):
    network = TensorRTNetwork(built, compute_capability=CAPABILITY)
    first, second = run(network, 8, seed=0), run(network, 8, seed=1)
    assert_equal(first, expected(8, seed=0))
    assert_equal(second, expected(8, seed=1))
    assert device.streams == [STREAM, STREAM]


def test_last_strips_take_any_rows_of_their_range_in_any_order(varying):
    network = TensorRTNetwork(varying, compute_capability=CAPABILITY)
    for rows in (4, 16, 16, 7):
        assert_equal(run(network, rows, seed=rows), expected(rows, seed=rows))


def test_tiles_of_a_batch_go_in_together(stand_in, tmp_path):
    model = onnx.parser.parse_model(BATCH)
    built = build(model, tmp_path, backend=backend_of(stand_in), batch=3, rows=(4, 4), columns=5)
    image = aligned(np.random.default_rng(0).random((3, 4, 5, 2), np.float32))
    result = aligned(np.zeros((3, 2, 4, 5), np.float32))
    network = TensorRTNetwork(built, compute_capability=CAPABILITY)
    network.enqueue({"image": image.ctypes.data, "result": result.ctypes.data}, rows=4, stream=STREAM)
    assert np.array_equal(result, np.moveaxis(image, 3, 1))


def test_scratch_memory_is_reported_and_all_memory_is_given_back_on_closing_twice(built, device):
    network = TensorRTNetwork(built, compute_capability=CAPABILITY)
    assert network.workspace_bytes == 4096
    assert len(device.held) == 2
    network.close()
    network.close()
    assert device.held == {}
    for use in (lambda: run(network, 8), lambda: network.workspace_bytes, lambda: network.capturable):
        with pytest.raises(EngineError, match="closed"):
            use()


def test_early_tensorrt_10_tells_scratch_memory_by_its_first_name(built, stand_in, monkeypatch):
    engine = stand_in.module.ICudaEngine
    monkeypatch.setattr(engine, "device_memory_size", engine.device_memory_size_v2, raising=False)
    for owner in engine.__mro__[:-1]:
        if "device_memory_size_v2" in vars(owner):
            monkeypatch.delattr(owner, "device_memory_size_v2")
    assert TensorRTNetwork(built, compute_capability=CAPABILITY).workspace_bytes == 4096


def test_only_fixed_shapes_are_captured_and_rtx_is_asked(built, varying, stand_in):
    fixed = TensorRTNetwork(built, compute_capability=CAPABILITY)
    assert not TensorRTNetwork(varying, compute_capability=CAPABILITY).capturable
    stand_in.capturable = False
    assert fixed.capturable
    run(fixed, 8)
    assert fixed.capturable == (backend_of(stand_in) == "tensorrt")


def test_rtx_does_not_change_kernels_in_the_midst_of_a_run(built, varying, stand_in):
    TensorRTNetwork(built, compute_capability=CAPABILITY)
    TensorRTNetwork(varying, compute_capability=CAPABILITY)
    fixed, free = stand_in.settings
    assert fixed is None
    if backend_of(stand_in) == "tensorrt-rtx":
        assert free.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
    else:
        assert free is None


def test_rtx_is_refused_on_a_gpu_that_it_does_not_run_on(stand_in, built, device):
    """Also an engine that claims to be built for it."""
    engine = dataclasses.replace(built, compute_capabilities=((8, 0), CAPABILITY))
    if backend_of(stand_in) == "tensorrt-rtx":
        with pytest.raises(
            DeviceError, match=r"does not run on a GPU of compute capability 8\.0.*--engine onnxruntime"
        ):
            TensorRTNetwork(engine, compute_capability=(8, 0))
    else:
        TensorRTNetwork(engine, compute_capability=(8, 0)).close()
    assert device.held == {}


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"compute_capabilities": ((7, 5), (9, 0))},
            DeviceError,
            r"built for GPUs of compute capability 7\.5, 9\.0.*8\.6",
        ),
        ({"compute_capabilities": ()}, DeviceError, "built for GPUs of compute capability none"),
        ({"backend_version": "10.3.0"}, DeviceError, r"built by tensorrt.* 10\.3\.0, but .* is installed.*build"),
        ({"plan_bytes": 7}, BundleError, r"has \d+ bytes, not 7; build it again"),
        ({"plan_sha256": "0" * 64}, BundleError, "has SHA-256 [0-9a-f]{64}, not 0{64}"),
        ({"plan": Path("/nowhere/a.plan")}, BundleError, "cannot be read.*No such file"),
    ],
)
def test_an_engine_that_is_not_for_this_device_library_or_record_is_refused(built, device, change, kind, message):
    with pytest.raises(kind, match=message):
        TensorRTNetwork(dataclasses.replace(built, **change), compute_capability=CAPABILITY)
    assert device.held == {}


FLOATS = TensorSpec(shape=(8, 12, 3), dtype="float32")


@pytest.mark.parametrize(
    ("part", "name", "spec", "message"),
    [
        ("inputs", "image", FLOATS, r"'image' is an input uint8 \(8, 12, 3\), not an input float32 \(8, 12, 3\)"),
        (
            "inputs",
            "image",
            TensorSpec(shape=(9, 12, 3), dtype="uint8"),
            r"\(8, 12, 3\), not an input uint8 \(9, 12, 3\)",
        ),
        ("inputs", "more", FLOATS, r"'more' is not there, not an input"),
        ("outputs", "scale", FLOATS, "'scale' is an input float32 .*, not an output"),
        ("outputs", "scores", None, r"'scores' is an output float32 \(4, 8, 12\), not there"),
    ],
)
def test_an_engine_with_other_tensors_than_its_record_is_refused(built, device, part, name, spec, message):
    specs = {**getattr(built, part), name: spec} if spec else {"labels": built.outputs["labels"]}
    with pytest.raises(EngineError, match=message):
        TensorRTNetwork(dataclasses.replace(built, **{part: specs}), compute_capability=CAPABILITY)
    assert device.held == {}


def test_an_engine_for_fewer_rows_than_its_record_says_is_refused(varying):
    with pytest.raises(EngineError, match="takes 4 to 16 rows of 'image', its record says 2 to 16"):
        TensorRTNetwork(dataclasses.replace(varying, rows=(2, 16)), compute_capability=CAPABILITY)


@pytest.mark.parametrize(
    ("call", "doing"),
    [
        ("deserialize", r"loading the tile engine tile\.plan"),
        ("context", "making an execution context for .*"),
        ("address", "running the tile engine .* on 8 rows"),
        ("execute", "running the tile engine .* on 8 rows"),
    ],
)
@pytest.mark.parametrize(
    ("lines", "kind", "message"),
    [
        (
            ("Error Code 9: this\n  and", "that"),
            EngineError,
            "TensorRT failed while {doing}: Error Code 9: this and; that",
        ),
        (("Cuda Runtime (cudaError 2: out of memory)",), DeviceMemoryError, "memory ran out while {doing}; free some"),
        (("Error Code 2: OutOfMemory (Requested size was 7)",), DeviceMemoryError, "memory ran out while {doing}"),
        (("Cuda Runtime (cudaError 35: insufficient driver)",), DeviceError, "failed while {doing}: Cuda Runtime"),
    ],
)
def test_what_tensorrt_logs_is_the_reason(built, stand_in, device, capfd, call, doing, lines, kind, message):
    stand_in.fails[call] = lines
    with pytest.raises(EngineError, match=message.format(doing=doing)) as caught:
        run(TensorRTNetwork(built, compute_capability=CAPABILITY), 8)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    del caught
    gc.collect()
    assert device.held == {}


def test_a_context_that_is_refused_without_a_word_ran_out_of_memory(built, stand_in):
    stand_in.fails["context"] = ()
    with pytest.raises(DeviceMemoryError, match="no reason"):
        TensorRTNetwork(built, compute_capability=CAPABILITY)


def test_any_other_call_that_is_refused_without_a_word_is_an_engine_error(built, stand_in):
    stand_in.fails["execute"] = ()
    with pytest.raises(EngineError, match="it gave no reason"):
        run(TensorRTNetwork(built, compute_capability=CAPABILITY), 8)


@pytest.mark.parametrize(("limit", "doing"), [(10, "loading"), (0, "making an execution context")])
def test_a_full_device_is_a_memory_error(built, stand_in, limit, doing):
    stand_in.device = HostDevice(limit or built.plan_bytes)
    with pytest.raises(DeviceMemoryError, match=f"the GPU's memory ran out while {doing}"):
        TensorRTNetwork(built, compute_capability=CAPABILITY)
    assert stand_in.device.held == {}


def test_a_plan_that_is_none_is_an_engine_error(built, tmp_path):
    built.plan.write_bytes(b"junk")
    junk = dataclasses.replace(built, plan_bytes=4, plan_sha256=hashlib.sha256(b"junk").hexdigest())
    with pytest.raises(EngineError, match=r"failed while loading the tile engine.*Serialization"):
        TensorRTNetwork(junk, compute_capability=CAPABILITY)


def test_what_the_library_raises_is_an_engine_error(built, stand_in, monkeypatch):
    def refuse(*_):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(stand_in.module, "Runtime", refuse)
    with pytest.raises(EngineError, match=r"failed while loading .*returned nullptr"):
        TensorRTNetwork(built, compute_capability=CAPABILITY)


def test_rows_outside_the_range_are_refused(built, varying):
    for engine, rows, message in ((built, 9, "takes 8 rows, not 9"), (varying, 3, "takes 4 to 16 rows, not 3")):
        with pytest.raises(EngineError, match=message):
            run(TensorRTNetwork(engine, compute_capability=CAPABILITY), rows)


def test_rows_that_tensorrt_refuses_are_an_error(varying, stand_in):
    stand_in.fails["shape"] = ("no such shape",)
    with pytest.raises(EngineError, match=r"setting the last engine .* to 16 rows: no such shape"):
        run(TensorRTNetwork(varying, compute_capability=CAPABILITY), 16)


def test_shapes_that_stay_open_are_an_error_and_the_rows_before_are_set_again(varying, stand_in, monkeypatch):
    network = TensorRTNetwork(varying, compute_capability=CAPABILITY)
    run(network, 16)
    with monkeypatch.context() as patch:
        patch.setattr(stand_in.module.IExecutionContext, "infer_shapes", lambda _: ["labels", "scores"])
        with pytest.raises(EngineError, match="at 4 rows leaves the shapes of labels, scores open"):
            run(network, 4)
    assert_equal(run(network, 16), expected(16))


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ({"labels": None}, r"missing \['labels'\], too many \[\]"),
        ({"mask": 256}, r"missing \[\], too many \['mask'\]"),
        ({"scores": 4104}, "'scores' .* is at address 0x1008; TensorRT takes multiples of 256"),
        ({"scores": 0}, "'scores' .* is at address 0x0"),
    ],
)
def test_every_tensor_needs_an_aligned_address(built, stand_in, device, addresses, message):
    stand_in.fails["execute"] = ("these are no addresses",)
    given = {name: at for name, at in {**addresses_of(built), **addresses}.items() if at is not None}
    with pytest.raises(EngineError, match=message):
        TensorRTNetwork(built, compute_capability=CAPABILITY).enqueue(given, rows=8, stream=STREAM)
    assert device.streams == []


@pytest.mark.parametrize(
    ("backend", "module", "advice"),
    [
        ("tensorrt", "tensorrt", r"pip install 'exactile\[tensorrt\]'.*JetPack"),
        ("tensorrt-rtx", "tensorrt_rtx", r"pip install 'exactile\[rtx\]'"),
    ],
)
def test_without_the_library_the_message_says_how_to_install_it(tmp_path, monkeypatch, backend, module, advice):
    built = build(net(), tmp_path, backend=backend, rows=(8, 8), columns=12, outputs=shapes(8))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DeviceError, match=f"the engine needs {backend}, whose Python module {module} .*{advice}"):
        TensorRTNetwork(built, compute_capability=CAPABILITY)


def test_lines_of_other_threads_are_the_reason_only_where_this_one_has_none():
    lines = LogLines()
    lines.add("before", is_error=True)
    mark = lines.mark()
    other = threading.Thread(target=lines.add, args=("theirs",), kwargs={"is_error": True})
    other.start()
    other.join()
    lines.add("a warning", is_error=False)
    assert lines.since(mark) == "theirs"
    lines.add("mine", is_error=True)
    assert lines.since(mark) == "mine"


def test_warnings_are_the_reason_only_where_there_is_no_error_and_chatter_never_is(stand_in):
    library = load_tensorrt(backend_of(stand_in))
    severity = stand_in.module.ILogger.Severity
    mark = library.lines.mark()
    library.logger.log(severity.INFO, "chatter")
    library.logger.log(severity.WARNING, "a warning")
    assert library.lines.since(mark) == "a warning"
    library.logger.log(severity.INTERNAL_ERROR, "an error")
    assert library.lines.since(mark) == "an error"


def test_a_process_has_one_logger_for_a_library(stand_in):
    assert load_tensorrt(backend_of(stand_in)) is load_tensorrt(backend_of(stand_in))
