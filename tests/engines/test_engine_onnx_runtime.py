"""The ONNX Runtime engine: right results in the caller's array, strict about arrays, stoppable, silent."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import onnx
import onnxruntime
import pytest

from exactile.engines.onnx_runtime import OnnxRuntimeEngine
from exactile.engines.threads import compute_threads
from exactile.errors import CancelledError, EngineError, OptionError

DTYPES = {"uint8": onnx.TensorProto.UINT8, "uint16": onnx.TensorProto.UINT16, "float32": onnx.TensorProto.FLOAT}

LABELS = """
<ir_version: 8, opset_import: ["" : 17]>
net ({dtype}[height, width, 3] image) => (uint8[out_height, out_width] result)
<float[4, 3, 3, 3] w = {{{weights}}}, int64[1] zero = {{0}}>
{{
    f = Cast <to = 1> (image)
    t = Transpose <perm = [2, 0, 1]> (f)
    x = Unsqueeze (t, zero)
    y = Conv <pads = [1, 1, 1, 1]> (x, w)
    c = ArgMax <axis = 1, keepdims = 0> (y)
    s = Squeeze (c, zero)
    result = Cast <to = 2> (s)
}}
"""

SCALED = """
<ir_version: 8, opset_import: ["" : 17]>
net (uint8[height, width, 2] image) => (float[2, out_height, out_width] result)
<float half = {0.5}>
{
    f = Cast <to = 1> (image)
    t = Transpose <perm = [2, 0, 1]> (f)
    result = Mul (t, half)
}
"""

# Many seconds of work.
LONG = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[height, width, 1] image) => (float[1, out_height, out_width] result)
<int64 rounds = {500000}, bool yes = {1}>
{
    t = Transpose <perm = [2, 0, 1]> (image)
    result = Loop (rounds, yes, t) <body = once (int64 i, bool go, float[1, h, w] a) => (bool go_on, float[1, h, w] b)
        { go_on = Identity (go)
          b = Sin (a) }>
}
"""


def labels_graph(dtype: str) -> bytes:
    weights = np.random.default_rng(1).integers(-3, 4, 4 * 3 * 9)
    text = LABELS.format(dtype="float" if dtype == "float32" else dtype, weights=", ".join(map(str, weights)))
    return onnx.parser.parse_model(text).SerializeToString()


def serialised(text: str) -> bytes:
    return onnx.parser.parse_model(text).SerializeToString()


def engine(graph: bytes, tile_shape: tuple[int, int] = (24, 40), **options) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(graph, input_name="image", output_name="result", tile_shape=tile_shape, **options)


def image(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


@pytest.mark.parametrize("activation_bytes", [None, 1 << 20])
@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_are_those_of_numpy_for_every_input_type_and_allocator(dtype, activation_bytes):
    tile = image((24, 40, 3), dtype)
    out = np.full((24, 40), 99, np.uint8)
    running = engine(labels_graph(dtype), activation_bytes=activation_bytes)
    running.infer(tile, out)
    running.close()
    weights = np.random.default_rng(1).integers(-3, 4, 4 * 3 * 9).reshape(4, 3, 3, 3)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(tile, ((1, 1), (1, 1), (0, 0))), (3, 3), axis=(0, 1))
    scores = np.einsum("yxcij,kcij->kyx", windows.astype(np.int64), weights)
    assert np.array_equal(out, scores.argmax(axis=0))


def test_float_results_arrive_in_the_callers_array_and_runs_do_not_mix():
    running = engine(serialised(SCALED), (5, 7))
    first, second = image((5, 7, 2)), image((5, 7, 2))[::-1].copy()
    results = np.zeros((2, 2, 5, 7), np.float32)
    running.infer(first, results[0])
    running.infer(second, results[1])
    assert np.array_equal(results[0], np.moveaxis(first, 2, 0) * np.float32(0.5))
    assert np.array_equal(results[1], np.moveaxis(second, 2, 0) * np.float32(0.5))


def test_engines_of_different_sizes_share_one_arena_and_survive_each_others_close():
    small = engine(serialised(SCALED), (5, 7), activation_bytes=1 << 20)
    large = engine(serialised(SCALED), (50, 70), activation_bytes=8 << 20)
    small.close()
    out = np.zeros((2, 50, 70), np.float32)
    large.infer(image((50, 70, 2)), out)
    again = engine(serialised(SCALED), (5, 7), activation_bytes=1 << 20)
    large.close()
    small_out = np.zeros((2, 5, 7), np.float32)
    again.infer(image((5, 7, 2)), small_out)
    assert np.array_equal(out, np.moveaxis(image((50, 70, 2)), 2, 0) * np.float32(0.5))
    assert np.array_equal(small_out, np.moveaxis(image((5, 7, 2)), 2, 0) * np.float32(0.5))


@pytest.mark.parametrize(
    ("tile", "out", "message"),
    [
        (np.zeros((5, 8, 2), np.uint8), np.zeros((2, 5, 7), np.float32), r"tile has shape \(5, 8, 2\).*\(5, 7, 2\)"),
        (np.zeros((5, 7), np.uint8), np.zeros((2, 5, 7), np.float32), r"tile has shape \(5, 7\)"),
        (np.zeros((5, 7, 2), np.uint16), np.zeros((2, 5, 7), np.float32), "tile is uint16.*uint8"),
        (np.zeros((5, 14, 2), np.uint8)[:, ::2], np.zeros((2, 5, 7), np.float32), "tile .*C-contiguous"),
        (np.zeros((5, 7, 2), np.uint8), np.zeros((2, 5, 7), np.float64), "out is float64.*float32"),
        (np.zeros((5, 7, 2), np.uint8), np.zeros((2, 5, 14), np.float32)[..., ::2], "out .*C-contiguous"),
        (np.zeros((5, 7, 2), np.uint8), np.zeros((2, 7, 5), np.float32), r"\(2, 7, 5\)"),
        (np.zeros((5, 7, 2), np.uint8), np.broadcast_to(np.float32(0), (2, 5, 7)), "contiguous"),
    ],
)
def test_an_array_that_does_not_fit_is_an_engine_error_with_both_values(tile, out, message):
    with pytest.raises(EngineError, match=message):
        engine(serialised(SCALED), (5, 7)).infer(tile, out)


def test_a_read_only_result_array_is_refused():
    out = np.zeros((2, 5, 7), np.float32)
    out.flags.writeable = False
    with pytest.raises(EngineError, match="read-only"):
        engine(serialised(SCALED), (5, 7)).infer(image((5, 7, 2)), out)


@pytest.mark.parametrize(
    ("graph", "names", "message"),
    [
        (b"not a model", ("image", "result"), "ONNX Runtime failed while loading"),
        (serialised(SCALED), ("picture", "result"), "no input 'picture'; it has 'image'"),
        (serialised(SCALED), ("image", "mask"), "no output 'mask'; it has 'result'"),
        (serialised(SCALED.replace("height, width, 2", "h, w, 2")), ("image", "result"), "height, width, channels"),
    ],
)
def test_a_graph_that_does_not_fit_is_an_engine_error_of_one_line_and_nothing_is_printed(graph, names, message, capfd):
    with pytest.raises(EngineError, match=message) as caught:
        OnnxRuntimeEngine(graph, input_name=names[0], output_name=names[1], tile_shape=(5, 7), activation_bytes=1000)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_warnings_of_onnx_runtime_are_not_printed(capfd):
    text = SCALED.replace("half = {0.5}", "half = {0.5}, float[2] unused = {1, 2}")
    engine(serialised(text), (5, 7)).close()
    assert capfd.readouterr() == ("", "")


def test_a_failure_while_running_is_an_engine_error_and_nothing_is_printed(capfd):
    text = (
        SCALED.replace("<float half = {0.5}>", "<int64[1] five = {5}>")
        .replace("Mul (t, half)", "Gather <axis = 0> (t, five)")
        .replace("float[2,", "float[1,")
    )
    with pytest.raises(EngineError, match=r"failed while running.*out of data bounds") as caught:
        engine(serialised(text), (5, 7)).infer(image((5, 7, 2)), np.zeros((1, 5, 7), np.float32))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_address_space_that_the_system_refuses_is_an_engine_error_with_advice():
    code = """
import onnxruntime, resource
from exactile.engines.arena import SHARED_ARENA
from exactile.errors import EngineError
SHARED_ARENA.reserve("small", 1 << 20)
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
try:
    SHARED_ARENA.reserve("large", 8 << 30)
except EngineError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "cannot reserve 16384 MiB" in done.stdout
    assert "lower --memory" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("text", ["std::bad_alloc", "Failed to allocate memory for requested buffer of size 8"])
def test_running_out_of_memory_comes_with_advice(text):
    class Full:
        def io_binding(self):
            return onnxruntime.InferenceSession(serialised(SCALED), providers=["CPUExecutionProvider"]).io_binding()

        def run_with_iobinding(self, *_):
            raise RuntimeError(text)

    running = engine(serialised(SCALED), (5, 7))
    running._session = Full()
    with pytest.raises(EngineError, match=r"out of memory.*smaller tiles"):
        running.infer(image((5, 7, 2)), np.zeros((2, 5, 7), np.float32))


def test_cancel_from_another_thread_stops_a_run_under_way_and_every_later_one():
    running = engine(serialised(LONG), (64, 64))
    tile, out = np.ones((64, 64, 1), np.float32), np.ones((1, 64, 64), np.float32)
    thread = threading.Thread(target=lambda: (time.sleep(0.2), running.cancel()))
    thread.start()
    with pytest.raises(CancelledError):
        running.infer(tile, out)
    thread.join()
    with pytest.raises(CancelledError):
        running.infer(tile, out)


def test_a_closed_engine_closes_again_and_refuses_to_run():
    running = engine(serialised(SCALED), (5, 7), activation_bytes=1 << 20)
    running.close()
    running.close()
    with pytest.raises(EngineError, match="closed"):
        running.infer(image((5, 7, 2)), np.zeros((2, 5, 7), np.float32))


def test_an_empty_tile_is_refused():
    with pytest.raises(EngineError, match="0 x 7 pixels is empty"):
        engine(serialised(SCALED), (0, 7))


def test_only_the_cpu_provider_is_used_and_threads_do_not_spin():
    session = engine(serialised(SCALED), (5, 7), threads=1)._session
    options = session.get_session_options()
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == 1


def test_fewer_than_one_thread_is_refused_and_the_default_is_the_cpus_this_process_may_use():
    with pytest.raises(OptionError, match="0 threads"):
        compute_threads(0)
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
    code += "from exactile.engines.threads import compute_threads; print(compute_threads(None))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "1\n"


def test_without_onnxruntime_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"pip install 'exactile\[cpu\]'"):
        engine(serialised(SCALED), (5, 7))


def test_reserving_the_arena_touches_no_more_than_its_table():
    code = """
from exactile.engines.arena import SHARED_ARENA
from exactile.machine.memory import peak_resident_bytes, resident_bytes
import numpy, onnxruntime
SHARED_ARENA.reserve("warm up", 1 << 20)
before = resident_bytes()
SHARED_ARENA.reserve("user", 512 << 20)
held = resident_bytes() - before
SHARED_ARENA.release("user"); SHARED_ARENA.release("warm up")
print(held >> 20, resident_bytes() - before >> 20)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    held, left = map(int, done.stdout.split())
    assert 24 <= held <= 48  # 1 GiB / 32 = 32 MiB
    assert left <= 8
