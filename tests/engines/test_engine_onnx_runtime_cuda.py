"""ONNX Runtime on a GPU: the results of the CPU, nothing left to the CPU, a reason for everything that fails.

The provider is a stand-in here, see ``onnx_runtime_cuda_stand_in.py``, but where it is the missing one that is tested.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from exactile.engines import cuda_provider
from exactile.engines.onnx_runtime import OnnxRuntimeEngine
from exactile.engines.onnx_runtime_cuda import NOT_ON_CUDA, OnnxRuntimeCudaNetwork
from exactile.errors import DeviceError, DeviceMemoryError, EngineError
from tests.support.onnx_runtime_cuda_stand_in import CudaBinding, CudaSession, OnnxRuntimeCudaStandIn
from tests.support.tensorrt_stand_in import HostDevice

STREAM = 0x7F0012345678

NET = """
<ir_version: 8, opset_import: ["" : 17]>
net ({dtype}[height, width, 3] image) => (uint8[out_height, out_width] labels)
<float[4, 3, 3, 3] w = {{{weights}}}, int64[1] zero = {{0}}>
{{
    f = Cast <to = 1> (image)
    t = Transpose <perm = [2, 0, 1]> (f)
    x = Unsqueeze (t, zero)
    y = Conv <pads = [1, 1, 1, 1]> (x, w)
    c = ArgMax <axis = 1, keepdims = 0> (y)
    s = Squeeze (c, zero)
    labels = Cast <to = 2> (s)
}}
"""

CARRYING = """
<ir_version: 8, opset_import: ["" : 17]>
strip (float[height, width, 1] image, float[1, rows_width] rows_in, float[1, 1, 1, 1] exactile_scale)
    => (float[1, height, width] result, float[1, rows_width] rows_out)
<int64[1] zero = {0}, int64[1] one = {1}, int64[2] shape = {1, -1}, int64[1] start = {-1}, int64[1] end = {99}>
{
    t = Transpose <perm = [2, 0, 1]> (image)
    scale = Squeeze (exactile_scale, zero)
    scaled = Mul (t, scale)
    result = Add (scaled, rows_in)
    last = Slice (t, start, end, one)
    rows_out = Reshape (last, shape)
}
"""


def graph(dtype: str = "uint8") -> bytes:
    weights = np.random.default_rng(1).integers(-3, 4, 4 * 3 * 9)
    text = NET.format(dtype=dtype, weights=", ".join(map(str, weights)))
    return onnx.parser.parse_model(text).SerializeToString()


def carrying() -> bytes:
    return onnx.parser.parse_model(CARRYING).SerializeToString()


def image(dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 40, 3)).astype(dtype)


@pytest.fixture
def device() -> HostDevice:
    return HostDevice()


@pytest.fixture
def stand_in(device, monkeypatch, tmp_path) -> OnnxRuntimeCudaStandIn:
    made = OnnxRuntimeCudaStandIn(device, root=tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", made.module)
    return made


def network(model: bytes | None = None, **options) -> OnnxRuntimeCudaNetwork:
    given = {"tile_shape": (24, 40), "output_shapes": {"labels": (24, 40)}, "ordinal": 0, "stream": STREAM}
    return OnnxRuntimeCudaNetwork(graph() if model is None else model, **{**given, **options})


def run(running: OnnxRuntimeCudaNetwork, tile: np.ndarray) -> np.ndarray:
    labels = np.full((24, 40), 99, np.uint8)
    running.enqueue({"image": tile.ctypes.data, "labels": labels.ctypes.data}, rows=24, stream=STREAM)
    return labels


def on_cpu(tile: np.ndarray) -> np.ndarray:
    labels = np.full((24, 40), 99, np.uint8)
    engine = OnnxRuntimeEngine(
        graph(tile.dtype.name), input_name="image", output_name="labels", tile_shape=(24, 40), threads=1
    )
    engine.infer(tile, labels)
    return labels


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_results_are_those_of_the_cpu_engine_and_runs_do_not_mix(stand_in, device, dtype, capfd):
    running = network(graph(dtype))
    first, second = run(running, image(dtype, 0)), run(running, image(dtype, 1))
    assert np.array_equal(first, on_cpu(image(dtype, 0)))
    assert np.array_equal(second, on_cpu(image(dtype, 1)))
    assert device.streams == [STREAM, STREAM]
    assert capfd.readouterr() == ("", "")


def test_carries_and_statistics_are_device_memory_like_all_else(stand_in):
    running = network(
        carrying(),
        tile_shape=(4, 5),
        dimensions={"rows_width": 5},
        output_shapes={"result": (1, 4, 5), "rows_out": (1, 5)},
    )
    rows = np.random.default_rng(0).random((4, 5, 1), np.float32)
    carry, scale = np.arange(5, dtype=np.float32).reshape(1, 5), np.full((1, 1, 1, 1), 3, np.float32)
    result, next_carry = np.zeros((1, 4, 5), np.float32), np.zeros((1, 5), np.float32)
    arrays = {"image": rows, "rows_in": carry, "exactile_scale": scale, "result": result, "rows_out": next_carry}
    running.enqueue({name: array.ctypes.data for name, array in arrays.items()}, rows=4, stream=STREAM)
    assert np.array_equal(result, np.moveaxis(rows, 2, 0) * 3 + carry)
    assert np.array_equal(next_carry, rows[-1:, :, 0])


def test_the_provider_gets_the_callers_stream_and_device_and_keeps_float32_exact(stand_in):
    network(ordinal=1, memory_limit_bytes=1 << 30)
    (session,) = stand_in.sessions
    assert session.options == {
        "device_id": "1",
        "user_compute_stream": str(STREAM),
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        "tunable_op_enable": "0",
        "tunable_op_tuning_enable": "0",
        "prefer_nhwc": "0",
        "fuse_conv_bias": "0",
        "enable_skip_layer_norm_strict_mode": "1",
        "enable_cuda_graph": "0",
        "gpu_mem_limit": str(1 << 30),
    }
    assert session.strict
    assert session.deterministic
    assert session.float_weights
    assert session.disabled_optimizers == ["ConvActivationFusion", "ConvAddActivationFusion"]
    assert session.fallbacks == (0, "disabled")


def test_addresses_are_those_of_the_device_that_was_asked_for(stand_in):
    assert np.array_equal(run(network(ordinal=1), image()), on_cpu(image()))


def test_tf32_is_an_option_and_memory_is_not_limited_unless_asked_for(stand_in):
    network(tf32=True)
    assert stand_in.sessions[0].options["use_tf32"] == "1"
    assert "gpu_mem_limit" not in stand_in.sessions[0].options


def test_it_is_never_captured(stand_in):
    assert not network().capturable


def test_a_closed_network_gives_memory_back_closes_again_and_refuses_to_run(stand_in, device):
    stand_in.arena_bytes = 1 << 20
    running = network()
    run(running, image())
    stand_in.sessions.clear()
    running.close()
    running.close()
    assert device.held == {}
    with pytest.raises(EngineError, match="closed"):
        run(running, image())


@pytest.mark.parametrize(
    ("rows", "stream", "message"),
    [(23, STREAM, "for 24 rows on stream 0x7f0012345678, not for 23"), (24, 16, "not for 24 rows on stream 0x10")],
)
def test_other_rows_or_another_stream_take_another_network(stand_in, device, rows, stream, message):
    with pytest.raises(EngineError, match=message):
        network().enqueue({"image": 1, "labels": 2}, rows=rows, stream=stream)
    assert device.streams == []


def test_the_default_stream_is_refused(stand_in):
    with pytest.raises(DeviceError, match="needs a stream of its own"):
        network(stream=0)


def test_every_tensor_needs_an_address(stand_in):
    with pytest.raises(EngineError, match="an address for each of image, labels; there are image, mask"):
        network().enqueue({"image": 1, "mask": 2}, rows=24, stream=STREAM)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": b"not a model"}, "ONNX Runtime failed while loading the graph"),
        ({"output_shapes": {"mask": (24, 40)}}, r"has outputs \['labels'\]; shapes are given for \['mask'\]"),
        ({"output_shapes": {"labels": (1, 24, 40)}}, r"output 'labels' has shape .*, not \(1, 24, 40\)"),
        ({"tile_shape": (0, 40)}, "0 x 40 pixels is empty"),
        ({"claims": {"exactile_geometry": "this"}}, "disagree about exactile_geometry"),
        ({"model": carrying(), "output_shapes": {}}, r"'rows_in' has shape .*'rows_width'.* are needed"),
    ],
)
def test_a_graph_that_does_not_fit_is_an_engine_error_of_one_line(stand_in, options, message, capfd):
    with pytest.raises(EngineError, match=message) as caught:
        network(**options)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("CUDA failure 2: out of memory ; GPU=0", DeviceMemoryError, "the GPU's memory ran out while {}; free some"),
        ("Failed to allocate memory for requested buffer of size 8", DeviceMemoryError, "memory ran out while {}"),
        ("Available memory of 1 is smaller than requested bytes of 2", DeviceMemoryError, "memory ran out while {}"),
        ("CUDNN failure 4000: CUDNN_STATUS_ALLOC_FAILED", DeviceMemoryError, "memory ran out while {}"),
        ("/src/cuda_call.cc:154 CUDA failure 719: failure", DeviceError, "failed while {}: CUDA failure 719: failure"),
        (
            "RequireCudnnHandle NOT_IMPLEMENTED : cuDNN is unavailable or disabled",
            DeviceError,
            "failed while {}: cuDNN is unavailable",
        ),
        ('FAIL : Unknown provider option: "use_tf32".', DeviceError, 'failed while {}: provider option: "use_tf32"'),
        ("something\n else", EngineError, "ONNX Runtime failed while {}: something else"),
    ],
)
@pytest.mark.parametrize(("call", "doing"), [("session", "loading the graph"), ("run", "running 24 rows")])
def test_what_onnx_runtime_says_is_the_reason(stand_in, call, doing, text, kind, message):
    stand_in.fails[call] = RuntimeError(text)
    with pytest.raises(EngineError, match=message.format(doing)) as caught:
        run(network(), image())
    assert type(caught.value) is kind


def test_activations_stay_within_the_limit_and_within_the_device(stand_in):
    stand_in.arena_bytes = 1 << 20
    with pytest.raises(DeviceMemoryError, match="Available memory of 1000 is smaller"):
        run(network(memory_limit_bytes=1000), image())
    stand_in.device = HostDevice(1000)
    with pytest.raises(DeviceMemoryError, match="CUDA failure 2: out of memory"):
        run(network(), image())


def test_operators_that_would_run_on_the_cpu_are_a_device_error(stand_in):
    stand_in.providers = ["CPUExecutionProvider"]
    with pytest.raises(DeviceError, match=r"cannot run all of the graph on the GPU: .*nothing is left to the CPU"):
        network()


def test_operators_without_a_kernel_are_named_with_what_to_do(stand_in):
    stand_in.without_kernel = [("QLinearConv", "first"), ("QLinearConv", "second"), ("MaxUnpool", "up")]
    with pytest.raises(DeviceError, match="no kernel for") as caught:
        network()
    assert "QLinearConv (2 nodes, 'first'), MaxUnpool ('up')" in str(caught.value)
    assert "--engine tensorrt" in str(caught.value)


def test_a_graph_that_the_provider_would_compute_otherwise_is_refused(stand_in):
    model = onnx.load_from_string(graph())
    onnx.helper.set_model_props(model, {NOT_ON_CUDA: "AveragePool ('p') rounds its size up"})
    with pytest.raises(DeviceError, match=r"may give other pixels .*: AveragePool \('p'\) rounds .* --device cpu"):
        network(model.SerializeToString())


@pytest.mark.parametrize(
    ("version", "refused"), [("1.28.0", True), ("1.9.0", True), ("1.29.0", False), ("2.0.1", False)]
)
def test_versions_that_pool_wrong_are_refused(stand_in, version, refused):
    stand_in.module.__version__ = version
    if not refused:
        network()
        return
    with pytest.raises(
        DeviceError, match=f"onnxruntime-gpu {version} computes average pooling wrong .*1.29 is the oldest"
    ):
        network()


def test_a_session_that_fell_back_all_the_same_is_a_device_error(stand_in):
    stand_in.providers, stand_in.knows_strictness = ["CPUExecutionProvider"], False
    with pytest.raises(DeviceError, match="CUDAExecutionProvider was requested, but ONNX Runtime took CPUExecution"):
        network()


@pytest.mark.parametrize(("name", "value"), [("device_id", "0"), ("user_compute_stream", "0"), ("device_id", None)])
def test_a_session_on_another_device_or_stream_is_a_device_error(stand_in, name, value):
    stand_in.taken[name] = value
    with pytest.raises(DeviceError, match=f"took {name} {value} where .* was requested"):
        network(ordinal=1)


def test_without_onnxruntime_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError, match=r"pip install 'exactile\[gpu\]'"):
        network()


def test_the_cpu_build_that_is_installed_here_is_refused_and_nothing_is_printed():
    code = """
import warnings
warnings.simplefilter("error")
from exactile.engines.onnx_runtime_cuda import OnnxRuntimeCudaNetwork
from exactile.errors import DeviceError
try:
    OnnxRuntimeCudaNetwork(b"", tile_shape=(8, 8), output_shapes={}, ordinal=0, stream=4096)
except DeviceError as error:
    assert "runs on the CPU alone; for a GPU: pip uninstall --yes onnxruntime" in str(error), error
    assert "exactile[gpu]" in str(error), error
"""
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime was built with CUDA")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("site", "site"), "both installed.*pip uninstall --yes onnxruntime onnxruntime-gpu, then pip"),
        (
            ("first", "second"),
            "onnxruntime-gpu is in second, which Python looks into later than into first: put it first",
        ),
    ],
)
def test_two_builds_in_one_environment_are_named_as_the_cause(monkeypatch, folders, message):
    where = dict(zip(("onnxruntime", "onnxruntime-gpu"), folders, strict=True))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(
        cuda_provider.metadata, "distribution", lambda name: SimpleNamespace(locate_file=lambda _: where[name])
    )
    with pytest.raises(DeviceError, match=message):
        network()


def test_a_driver_that_is_too_old_is_said_with_what_it_takes(stand_in):
    stand_in.fails["session"] = RuntimeError(
        'EP: Failed to parse provider option "device_id": CUDA failure 35: CUDA driver version is insufficient for '
        "CUDA runtime version ; GPU=-1 ; hostname=node7 ; file=/src/info.cc ; line=70 ; expr=cudaGetDeviceCount(&n);"
    )
    with pytest.raises(DeviceError, match=r"version: update the NVIDIA driver; CUDA 13 needs version 580") as caught:
        network()
    assert "node7" not in str(caught.value)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (CudaSession.run_with_iobinding, onnxruntime.InferenceSession.run_with_iobinding),
        (CudaSession.disable_fallback, onnxruntime.InferenceSession.disable_fallback),
        (CudaSession.get_provider_options, onnxruntime.InferenceSession.get_provider_options),
        (CudaSession.get_providers, onnxruntime.InferenceSession.get_providers),
        (CudaSession.io_binding, onnxruntime.InferenceSession.io_binding),
        (CudaBinding.bind_input, onnxruntime.IOBinding.bind_input),
        (CudaBinding.bind_output, onnxruntime.IOBinding.bind_output),
    ],
)
def test_the_stand_in_takes_what_onnx_runtime_takes(ours, theirs):
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
