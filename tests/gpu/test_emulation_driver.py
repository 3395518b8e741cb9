"""The emulated CUDA driver behaves as the real one in what the runtime relies on."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest

from tests.emulation.bindings import BINDINGS, Binding, CudaBindings
from tests.emulation.driver import MIB, EmulatedDevice, Emulation, Range, load
from tests.emulation.library import NoCompilerError
from tests.emulation.ring import Ring, array_at, expected, tiles

BLOCKING = 0
GLOBAL, RELAXED = 0, 2


@pytest.fixture
def emulation() -> Emulation:
    try:
        emulation = load()
    except NoCompilerError as error:
        pytest.skip(str(error))
    emulation.reset(devices=2)
    return emulation


@pytest.fixture(params=BINDINGS)
def binding(request, emulation) -> Iterator[Binding]:
    try:
        binding = BINDINGS[request.param]()
    except ImportError as error:
        pytest.skip(f"{request.param} is not there: {error}")
    binding.open()
    yield binding
    with suppress(binding.failure):
        binding.close()


@pytest.fixture
def capturing(emulation) -> Iterator[CudaBindings]:
    """The binding that can capture."""
    try:
        binding = CudaBindings()
    except ImportError as error:
        pytest.skip(f"cuda.bindings is not there: {error}")
    binding.open()
    yield binding
    with suppress(binding.failure):
        binding.close()


def kinds(emulation: Emulation) -> set[str]:
    return {violation.kind for violation in emulation.violations()}


def test_an_event_that_was_never_recorded_has_happened(emulation, binding):
    """Waiting for it, on the host or a stream, is no wait."""
    stream, event = binding.stream(), binding.event()
    binding.synchronize(event)
    binding.wait(stream, event)
    binding.synchronize(stream)
    assert emulation.violations() == []


def test_recording_again_does_not_change_what_earlier_waits_wait_for(emulation, binding):
    """The second stream goes on after the first operation, not after the second."""
    emulation.reset(durations={"compute": 0.05})
    binding.close()
    binding.open()
    first, second, event = binding.stream(), binding.stream(), binding.event()
    emulation.enqueue(binding.handle(first), lambda: None)
    binding.record(event, first)
    binding.wait(second, event)
    emulation.enqueue(binding.handle(first), lambda: None)
    binding.record(event, first)
    emulation.enqueue(binding.handle(second), lambda: None)
    binding.synchronize(second)
    binding.synchronize(first)
    before, again, after = emulation.trace()
    assert before.stop_s <= after.start_s < again.stop_s


@pytest.mark.parametrize(("flags", "found"), [(BLOCKING, set()), (1, {"race"})], ids=["blocking", "non-blocking"])
def test_the_null_stream_waits_for_blocking_streams_alone(emulation, binding, flags, found):
    """And they for it; streams that do not block need events."""
    stream, address = binding.stream(flags), binding.memory(100)
    seen = []
    for number, handle in enumerate([binding.handle(stream), 0, binding.handle(stream)]):
        emulation.enqueue(handle, lambda number=number: seen.append(number), writes=[(address, 100)])
    if not found:
        binding.synchronize(stream)
        assert seen == [0, 1, 2]
    assert kinds(emulation) == found


def test_events_tell_the_time_between_them(emulation, binding):
    """Of the device: two operations of 50 ms each, without what a slow host adds."""
    emulation.reset(durations={"compute": 0.05})
    binding.close()
    binding.open()
    stream, first, second = binding.stream(), binding.event(), binding.event()
    binding.record(first, stream)
    for _ in range(2):
        emulation.enqueue(binding.handle(stream), lambda: None)
    binding.record(second, stream)
    binding.synchronize(second)
    assert 100 <= binding.milliseconds(first, second) < 150


def test_with_fixed_durations_three_streams_overlap(emulation, binding):
    """A ring whose stages take 20 ms each keeps all of them busy: 12 tiles in hardly more than 14 stages."""
    step_s, count = 0.02, 12
    images = tiles(count)
    binding.close()
    walls_s = []
    while not walls_s or (min(walls_s) > 1.1 * (count + 2) * step_s and len(walls_s) < 5):  # the host may be busy
        emulation.reset(durations=dict.fromkeys(("copy_in", "compute", "copy_out"), step_s))
        binding.open()
        results = Ring(emulation, binding).run(images)
        binding.close()
        assert all(map(np.array_equal, results, expected(images)))
        trace = emulation.trace()
        assert [each.kind for each in trace] == ["copy_in", "compute", "copy_out"] * count
        walls_s.append(trace[-1].stop_s - trace[0].start_s)
        for name in ("copy in", "compute", "copy out"):
            busy = [each for each in trace if each.stream == name]
            assert all(each.stop_s - each.start_s >= 0.999 * step_s for each in busy)
            assert all(a.stop_s <= b.start_s for a, b in pairwise(busy))
    assert 0.999 * (count + 2) * step_s <= min(walls_s) <= 1.1 * (count + 2) * step_s


def test_waiting_in_one_host_thread_counts_for_another(emulation, binding):
    """Threads that hand a slot over by a queue are no race, as the driver cannot see the queue."""
    stream, other, address = binding.stream(), binding.stream(), binding.memory(100)
    emulation.enqueue(binding.handle(stream), lambda: None, writes=[(address, 100)])
    binding.synchronize(stream)
    emulation.enqueue(binding.handle(other), lambda: None, writes=[(address, 100)])
    assert emulation.violations() == []


def test_windows_that_share_rows_but_no_column_do_not_race(emulation, binding):
    """Two halves of an image are written at once; one column more, and it is a race."""
    left, right, address = binding.stream(), binding.stream(), binding.memory(100)
    for stream, column, columns in ((left, 0, 5), (right, 5, 5)):
        emulation.enqueue(
            binding.handle(stream), lambda: None, writes=[Range(address + column, columns, rows=10, pitch_bytes=10)]
        )
    assert emulation.violations() == []
    emulation.enqueue(binding.handle(right), lambda: None, reads=[Range(address + 4, 1, rows=10, pitch_bytes=10)])
    assert kinds(emulation) == {"race"}


def test_freeing_does_not_wait_for_python(emulation, binding):
    """pycuda frees with the interpreter's lock held, which a function on a stream needs to finish."""
    stream, gate = binding.stream(), threading.Event()
    emulation.enqueue(binding.handle(stream), gate.wait)
    binding.memory(100)
    binding.release(binding.kept.pop())
    gate.set()
    binding.synchronize(stream)
    assert emulation.violations() == []


def test_a_driver_call_in_a_function_on_a_stream_is_refused(emulation, binding):
    """The real driver does not permit it either."""
    stream = binding.stream()
    emulation.enqueue(binding.handle(stream), lambda: binding.memory(100))
    with pytest.raises(binding.failure, match="launch failed"):
        binding.synchronize(stream)
    assert "not permitted" in str(emulation.errors[0])
    assert kinds(emulation) == {"call in callback"}


def test_a_reset_drops_what_streams_still_had_to_do(emulation, binding):
    """And a clean-up that comes after it does no harm."""
    stream, begun, gate, ran = binding.stream(), threading.Event(), threading.Event(), []
    for number in range(2):
        emulation.enqueue(binding.handle(stream), lambda number=number: (begun.set(), gate.wait(5), ran.append(number)))
    assert begun.wait(5)
    threading.Timer(0.05, gate.set).start()
    emulation.reset()
    assert ran == [0]
    binding.close()
    assert emulation.violations() == []
    assert emulation.leaks() == []


def test_devices_are_as_a_test_wants_them(emulation, binding):
    """Names, compute capabilities and memories; each device has its own memory."""
    turing = EmulatedDevice(name="Turing", compute_capability=(7, 5), memory_bytes=4 * MIB)
    emulation.reset(devices=[turing, EmulatedDevice(memory_bytes=8 * MIB)])
    binding.close()
    if isinstance(binding, CudaBindings):
        assert binding.call("cuDeviceGetName", 20, 0).partition(b"\0")[0] == b"Turing"
    else:
        assert binding.native.Device(0).name() == "Turing"
        assert binding.native.Device(0).compute_capability() == (7, 5)
    binding.open(0)
    binding.memory(4 * MIB)
    assert binding.free_bytes() == 0
    binding.open(1)
    assert binding.free_bytes() == 8 * MIB
    assert emulation.context_depth() == (2 if isinstance(binding, CudaBindings) else 1)  # pycuda has its own stack
    binding.leave()


def test_what_is_not_emulated_says_so(emulation, binding):
    """The driver's own "not supported", 801, and no crash."""
    if isinstance(binding, CudaBindings):
        with pytest.raises(binding.failure, match="not supported"):
            binding.call("cuModuleLoadData", b"")
        with pytest.raises(binding.failure, match="not supported"):
            binding.call("cuLaunchKernel", 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)
    else:
        with pytest.raises(binding.failure, match="not supported"):
            binding.native.module_from_buffer(b"")


@pytest.mark.parametrize("kind", ["stream", "event", "device", "pinned"])
def test_nothing_is_released_twice(emulation, capturing, kind):
    """pycuda's objects cannot; a handle can."""
    make = {
        "stream": capturing.stream,
        "event": capturing.event,
        "device": capturing.memory,
        "pinned": capturing.pinned,
    }
    make[kind](1)
    held = capturing.kept.pop()
    capturing.release(held)
    with pytest.raises(capturing.failure, match="invalid"):
        capturing.release(held)
    assert kinds(emulation) == {"double free"}


def test_memory_is_set(emulation, capturing):
    """Bytes, words and rows of a window."""
    address, stream = capturing.memory(64), capturing.stream()
    capturing.call("cuMemsetD8Async", address, 1, 64, stream.native)
    capturing.call("cuMemsetD32Async", address, 0x04030201, 2, stream.native)
    capturing.call("cuMemsetD2D8Async", address + 16, 16, 9, 4, 3, stream.native)
    capturing.synchronize(stream)
    wanted = np.ones((4, 16), np.uint8)
    wanted[0, :8] = [1, 2, 3, 4] * 2
    wanted[1:, :4] = 9
    assert np.array_equal(array_at(address, (4, 16)), wanted)
    assert emulation.violations() == []


def test_a_host_function_runs_in_its_stream(emulation, capturing):
    """cuLaunchHostFunc, in order with a copy."""
    stream, source, address = capturing.stream(), capturing.pinned(4), capturing.memory(4)
    source[...] = [1, 2, 3, 4]
    seen = []
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: seen.extend(array_at(address, (4,)).tolist()))
    pointer = capturing.native.CUhostFn(ctypes.cast(function, ctypes.c_void_p).value)
    capturing.copy_in(address, source, stream)
    capturing.call("cuLaunchHostFunc", stream.native, pointer, 0)
    capturing.synchronize(stream)
    assert seen == [1, 2, 3, 4]
    assert [each.kind for each in emulation.trace()] == ["copy_in", "host"]


def capture(binding: CudaBindings, stream, mode: int = GLOBAL) -> None:
    modes = binding.native.CUstreamCaptureMode
    binding.call("cuStreamBeginCapture", stream.native, modes(mode))


def test_a_captured_stream_runs_nothing_until_its_graph_is_launched(emulation, capturing):
    """Then all of it, in order, as often as it is launched, on the stream that it is launched on."""
    stream, other, address = capturing.stream(), capturing.stream(), capturing.memory(4)
    source, target = capturing.pinned(4), capturing.pinned(4)
    capture(capturing, stream)
    capturing.copy_in(address, source, stream)
    memory = array_at(address, (4,))
    emulation.enqueue(
        capturing.handle(stream), lambda: np.add(memory, 1, out=memory), reads=[(address, 4)], writes=[(address, 4)]
    )
    capturing.copy_out(target, address, stream)
    graph = capturing.call("cuStreamEndCapture", stream.native)
    assert emulation.trace() == []
    executable = capturing.call("cuGraphInstantiate", graph, 0)
    for start in (5, 50):
        source[...] = start
        capturing.call("cuGraphLaunch", executable, other.native)
        capturing.synchronize(other)
        assert target.tolist() == [start + 1] * 4
    assert len(emulation.trace()) == 6
    assert emulation.violations() == []
    assert {leak.kind for leak in emulation.leaks()} > {"graph", "executable graph"}
    capturing.call("cuGraphExecDestroy", executable)
    capturing.call("cuGraphDestroy", graph)
    capturing.close()
    assert emulation.leaks() == []


def test_a_launched_graph_can_race(emulation, capturing):
    """It is work on a stream like any other."""
    stream, other, address, source = (*(capturing.stream() for _ in "ab"), capturing.memory(4), capturing.pinned(4))
    capture(capturing, stream)
    capturing.copy_in(address, source, stream)
    executable = capturing.call("cuGraphInstantiate", capturing.call("cuStreamEndCapture", stream.native), 0)
    capturing.call("cuGraphLaunch", executable, stream.native)
    capturing.copy_in(address, source, other)
    assert kinds(emulation) == {"race"}


@pytest.mark.parametrize(
    ("illegal", "status"),
    [
        (lambda binding, stream, event: binding.synchronize(stream), "stream capture unsupported"),
        (lambda binding, stream, event: binding.call("cuCtxSynchronize"), "stream capture unsupported"),
        (lambda binding, stream, event: binding.memory(100), "stream capture unsupported"),
        (lambda binding, stream, event: binding.pinned(100), "stream capture unsupported"),
        (lambda binding, stream, event: binding.wait(stream, event), "stream capture isolation"),
    ],
    ids=["synchronize", "synchronize all", "allocate", "allocate pinned", "event from outside"],
)
def test_what_a_capture_forbids_breaks_it(emulation, capturing, illegal, status):
    """The call fails, and so does the end of the capture."""
    stream, other, event = capturing.stream(), capturing.stream(), capturing.event()
    capturing.record(event, other)
    capture(capturing, stream)
    with pytest.raises(capturing.failure, match=status):
        illegal(capturing, stream, event)
    with pytest.raises(capturing.failure, match="stream capture invalidated"):
        capturing.call("cuStreamEndCapture", stream.native)
    capturing.synchronize(stream)


def test_a_relaxed_capture_lets_others_allocate(emulation, capturing):
    """What may not be done while others capture is forbidden by the global mode alone."""
    stream = capturing.stream()
    capture(capturing, stream, RELAXED)
    capturing.memory(100)
    capturing.call("cuGraphDestroy", capturing.call("cuStreamEndCapture", stream.native))


def test_an_event_recorded_in_a_capture_cannot_be_waited_for(emulation, capturing):
    """It is no point in time; on the captured stream itself a wait for it is fine."""
    stream, event = capturing.stream(), capturing.event()
    capture(capturing, stream)
    capturing.record(event, stream)
    capturing.wait(stream, event)
    with pytest.raises(capturing.failure, match="captured event"):
        capturing.synchronize(event)
    capturing.call("cuGraphDestroy", capturing.call("cuStreamEndCapture", stream.native))


def test_the_null_stream_cannot_be_used_beside_a_captured_blocking_stream(emulation, capturing):
    """They would have to wait for each other."""
    stream, source, address = capturing.stream(BLOCKING), capturing.pinned(4), capturing.memory(4)
    capture(capturing, stream, RELAXED)
    with pytest.raises(capturing.failure, match="stream capture implicit"):
        capturing.call("cuMemcpyHtoD", address, source.ctypes.data, 4)
    with pytest.raises(capturing.failure, match="stream capture invalidated"):
        capturing.call("cuStreamEndCapture", stream.native)
