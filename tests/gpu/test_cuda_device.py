"""Devices, memory, streams, events and graphs, on both bindings of the CUDA driver.

On the emulated driver; on a real one when tests/gpu/test_cuda_gpu.py runs them so.
"""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from exactile.cuda.choice import open_driver
from exactile.cuda.protocol import CapturingStream, Window
from exactile.errors import DeviceError, DeviceMemoryError
from tests.support.gpu_driver import BINDINGS, REAL, emulation, emulation_now

SILENT = {
    "pycuda": {
        *("cuMemFree", "cuMemFreeHost", "cuStreamDestroy", "cuEventDestroy", "cuDevicePrimaryCtxRelease"),
        *("cuCtxPopCurrent", "cuCtxPushCurrent"),
    },
    "cuda.bindings": {"cuCtxPopCurrent"},
}
"""Calls whose failure may pass: pycuda only prints those of clean-ups; others are tried again."""

HURT = (2, 201, 719, 999)
"""Out of memory, invalid context, launch failure, unknown."""


@pytest.fixture(params=BINDINGS)
def binding(request):
    """A binding; at the end nothing may be left open or have been done wrong."""
    pytest.importorskip(request.param)
    if REAL:
        yield request.param
        return
    machine = emulation()
    yield request.param
    machine.fail_at(0)
    assert machine.violations() == []
    assert machine.leaks() == []


@pytest.fixture
def driver(binding):
    return open_driver(binding)


@pytest.fixture
def device(driver):
    """The first GPU, current in the test's thread."""
    device = driver.open(0)
    try:
        with device.current():
            yield device
    finally:
        device.close()


def pinned(device, values):
    """A pinned buffer with ``values`` (bytes) in it."""
    buffer = device.memory.pinned(len(values))
    buffer.array[:] = values
    return buffer


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def test_a_driver_describes_its_gpus(driver):
    """Ordinals from 0, names without padding, and plausible numbers."""
    devices = driver.devices()
    assert [device.ordinal for device in devices] == list(range(len(devices)))
    assert all(device.name == device.name.strip("\0 ") != "" for device in devices)
    assert all(device.total_bytes > 1 << 20 and device.compute_capability >= (5, 0) for device in devices)
    assert driver.cuda_version >= (11, 0)
    assert any(driver.name.startswith(name) for name in BINDINGS)


def test_a_gpu_that_is_not_there_is_an_error_that_lists_those_there(driver):
    """The message names what was asked for and each GPU."""
    with pytest.raises(DeviceError, match=r"cuda:97 was requested.*cuda:0 \(") as error:
        driver.open(97)
    assert all(device.name in str(error.value) for device in driver.devices())


@pytest.mark.parametrize("size", [1, 3, 4097, 1_000_003])
def test_bytes_come_back_as_they_went(device, size):
    """A copy in and a copy out of any number of bytes is the identity, and touches nothing behind them."""
    stream, memory = device.stream(), device.memory
    values = noise(size)
    source, target = pinned(device, values), pinned(device, np.full(size + 7, 9, np.uint8))
    buffer = memory.allocate(size + 7)
    stream.copy_in(buffer, target.array)
    stream.copy_in(buffer, source.array)
    stream.copy_out(target.array, buffer)
    stream.synchronize()
    np.testing.assert_array_equal(target.array[:size], values)
    assert (target.array[size:] == 9).all()


@pytest.mark.parametrize(
    ("offset", "rows", "row", "pitch"),
    [(0, 1, 1, 1), (13, 7, 143, 201), (5, 3, 64, 64), (0, 200, 1, 3), (999, 1, 1, 1)],
)
def test_windows_are_packed_on_the_host_and_spread_on_the_device(device, offset, rows, row, pitch):
    """Copies in and out of a window touch its rows alone; the oracle is numpy's indexing."""
    stream = device.stream()
    window = Window(offset_bytes=offset, rows=rows, row_bytes=row, pitch_bytes=pitch)
    size = offset + (rows - 1) * pitch + row + 11
    index = (offset + pitch * np.arange(rows)[:, None] + np.arange(row)).ravel()
    before, values = noise(size, 1), noise(rows * row, 2)
    whole, part, back = pinned(device, before), pinned(device, values), pinned(device, np.zeros(rows * row, np.uint8))
    buffer = device.memory.allocate(size)
    stream.copy_in(buffer, whole.array)
    stream.copy_in(buffer, part.array, window)
    stream.copy_out(back.array, buffer, window)
    stream.copy_out(whole.array, buffer)
    stream.synchronize()
    expected = before.copy()
    expected[index] = values
    np.testing.assert_array_equal(whole.array, expected)
    np.testing.assert_array_equal(back.array, values)


@pytest.mark.parametrize(
    "window",
    [
        Window(offset_bytes=0, rows=2, row_bytes=10, pitch_bytes=9),
        Window(offset_bytes=-1, rows=2, row_bytes=10, pitch_bytes=10),
        Window(offset_bytes=0, rows=2, row_bytes=10, pitch_bytes=91),
        Window(offset_bytes=81, rows=2, row_bytes=10, pitch_bytes=10),
        Window(offset_bytes=0, rows=3, row_bytes=10, pitch_bytes=10),
        Window(offset_bytes=0, rows=0, row_bytes=10, pitch_bytes=10),
    ],
)
def test_a_copy_that_does_not_fit_is_refused(device, window):
    """Before the driver sees it: rows that overlap, begin before or end behind the buffer, or are not the host's."""
    stream, buffer, host = device.stream(), device.memory.allocate(100), device.memory.pinned(20)
    with pytest.raises(DeviceError, match=r"window|Window|rows"):
        stream.copy_in(buffer, host.array, window)
    with pytest.raises(DeviceError, match=r"window|Window|rows"):
        stream.copy_out(host.array, buffer, window)


def test_only_contiguous_bytes_that_fit_are_copied(device):
    """Other types, shapes and strides are refused, and more bytes than the buffer has."""
    stream, buffer, host = device.stream(), device.memory.allocate(100), device.memory.pinned(200).array
    for array in (host[:80].view(np.float32), host[:80].reshape(8, 10), host[::2]):
        with pytest.raises(DeviceError, match="contiguous bytes"):
            stream.copy_in(buffer, array)
    with pytest.raises(DeviceError, match="200 bytes does not fit into a buffer of 100"):
        stream.copy_out(host, buffer)


@pytest.mark.parametrize("seed", range(3))
def test_a_stream_waits_for_another_ones_event(device, seed):
    """Through three streams and one buffer, each round's bytes arrive, whatever is delayed."""
    streams = [device.stream() for _ in range(3)]
    done = [device.event() for _ in streams]
    buffers = [device.memory.allocate(50_001) for _ in range(2)]
    host = [pinned(device, noise(50_001, seed * 10 + each)) for each in range(4)]
    expected = [each.array.copy() for each in host]
    for each in host:
        streams[0].wait(done[2])  # not recorded at first: no wait
        streams[0].copy_in(buffers[0], each.array)
        streams[0].record(done[0])
        done[0].synchronize()
        each.array[:] = 0
        streams[1].wait(done[0])
        streams[1].copy_out(each.array, buffers[0])
        streams[1].copy_in(buffers[1], each.array)
        streams[1].record(done[1])
        streams[2].wait(done[1])
        streams[2].copy_out(each.array, buffers[1])
        streams[2].record(done[2])
    streams[2].synchronize()
    for each, values in zip(host, expected, strict=True):
        np.testing.assert_array_equal(each.array, values)


def test_an_event_that_was_never_recorded_does_not_block(device):
    """Waiting for it, in a thread or a stream, returns at once."""
    event, stream = device.event(), device.stream()
    event.synchronize()
    stream.wait(event)
    stream.synchronize()


def test_timed_events_tell_the_time_between_them(device):
    """In seconds, later than the earlier one; events that are not timed say so."""
    stream, buffer, host = device.stream(), device.memory.allocate(1 << 20), device.memory.pinned(1 << 20)
    times = [device.event(timed=True) for _ in range(3)]
    for event in times:
        stream.record(event)
        stream.copy_in(buffer, host.array)
    stream.synchronize()
    assert all(0 <= later.seconds_since(earlier) < 5 for earlier, later in pairwise(times))
    untimed = device.event()
    stream.record(untimed)
    untimed.synchronize()
    for earlier, later in ((untimed, times[0]), (times[0], untimed)):
        with pytest.raises(DeviceError, match="timed=True"):
            later.seconds_since(earlier)


def test_a_stream_does_not_wait_for_the_legacy_default_stream(device):
    """Which libraries in the same process may use."""
    machine = emulation_now()
    gate, passed = threading.Event(), []
    machine.enqueue(0, lambda: passed.append(gate.wait(5)))
    stream, buffer, host = device.stream(), device.memory.allocate(10), device.memory.pinned(10)
    stream.copy_in(buffer, host.array)
    stream.synchronize()
    assert passed == []
    gate.set()


def test_pycuda_cannot_capture_and_cuda_bindings_can(binding, device):
    """Which the type of a stream tells."""
    assert isinstance(device.stream(), CapturingStream) == (binding == "cuda.bindings")


@pytest.fixture
def capturing(device):
    stream = device.stream()
    if not isinstance(stream, CapturingStream):
        pytest.skip("pycuda has no graphs")
    return stream


def test_captured_work_runs_when_launched_as_often_as_wanted(device, capturing):
    """Not while it is captured; each launch sees the host's bytes of then, on another stream as well."""
    buffer, source, target = device.memory.allocate(999), pinned(device, noise(999)), device.memory.pinned(999)
    target.array[:] = 0

    def work():
        capturing.copy_in(buffer, source.array)
        capturing.copy_out(target.array, buffer)

    replay = capturing.capture(work)
    capturing.synchronize()
    assert (target.array == 0).all()
    for seed, stream in enumerate((capturing, device.stream(), capturing)):
        source.array[:] = noise(999, seed)
        replay.launch(stream)
        stream.synchronize()
        np.testing.assert_array_equal(target.array, noise(999, seed))
    replay.close()
    with pytest.raises(DeviceError, match=r"Replay on .* used after it was closed"):
        replay.launch(capturing)


def test_work_that_raises_while_it_is_captured_leaves_a_usable_stream(device, capturing):
    """The error is the work's own, and nothing was captured."""
    buffer, host = device.memory.allocate(10), device.memory.pinned(10)

    def work():
        capturing.copy_in(buffer, host.array)
        raise LookupError("no such tile")

    with pytest.raises(LookupError, match="no such tile"):
        capturing.capture(work)
    capturing.copy_in(buffer, host.array)
    capturing.synchronize()


def test_work_that_waits_cannot_be_captured(device, capturing):
    """It is a DeviceError, and the stream can be used again."""
    with pytest.raises(DeviceError):
        capturing.capture(capturing.synchronize)
    capturing.synchronize()


def test_too_much_memory_is_a_memory_error_and_costs_nothing(device):
    """It says how much was wanted and what was free; a smaller amount can still be had."""
    free_bytes = device.memory.free_bytes()
    wanted = device.info.total_bytes + 1
    with pytest.raises(DeviceMemoryError, match=rf"{wanted:,} bytes .*smaller tiles.* Free were [\d,]+ bytes"):
        device.memory.allocate(wanted)
    assert REAL or device.memory.free_bytes() == free_bytes
    device.memory.allocate(1024).close()


def test_page_locked_memory_that_runs_out_is_said_to_be_the_machines(device):
    """Nothing that nvidia-smi shows would help."""
    emulation_now().fail_at(1, "cuMemHostAlloc", 2)
    with pytest.raises(
        DeviceMemoryError, match=r"host memory failed: .*the machine's own memory: use smaller"
    ) as error:
        device.memory.pinned(1000)
    assert "nvidia-smi" not in str(error.value)


def test_closing_a_buffer_gives_its_memory_back(device):
    """As the driver counts it; on a real GPU others may take some meanwhile."""
    before = device.memory.free_bytes()
    size = 1 << (26 if REAL else 22)  # a real driver keeps small pieces for itself
    buffer = device.memory.allocate(size)
    assert device.memory.free_bytes() <= before - size
    buffer.close()
    assert REAL or device.memory.free_bytes() == before


def test_no_bytes_is_an_error_of_the_device(device):
    """Not a crash, and not an empty buffer."""
    for make in (device.memory.allocate, device.memory.pinned):
        for size in (0, -1):
            with pytest.raises(DeviceError, match=f"at least one byte; {size} bytes"):
                make(size)


def things(device):
    """One of each that can be made on a device."""
    made = [device.stream(), device.event(), device.memory.allocate(64), device.memory.pinned(64)]
    if isinstance(made[0], CapturingStream):
        made.append(made[0].capture(lambda: made[0].copy_in(made[2], made[3].array)))
    return made


def test_everything_can_be_closed_twice_and_in_any_order(driver):
    """Things before or after their device, from a thread in which it is not current."""
    for backwards in (False, True):
        device = driver.open(0)
        with device.current():
            made = things(device)
        everything = [*made, device]
        for thing in [*reversed(everything), *everything] if backwards else [*everything, *everything]:
            thing.close()


def test_what_was_closed_cannot_be_used(device):
    """An error names what it was; never a crash."""
    stream, event, buffer, host = things(device)[:4]
    other = device.stream()
    for thing in (stream, event, buffer, host):
        thing.close()
    open_buffer, open_host = device.memory.allocate(64), device.memory.pinned(64)
    for use, name in (
        (lambda: stream.handle, "Stream"),
        (stream.synchronize, "Stream"),
        (lambda: stream.copy_in(open_buffer, open_host.array), "Stream"),
        (lambda: other.copy_in(buffer, open_host.array), "DeviceBuffer"),
        (lambda: other.copy_out(open_host.array, buffer), "DeviceBuffer"),
        (lambda: buffer.address, "DeviceBuffer"),
        (lambda: host.array, "PinnedBuffer"),
        (event.synchronize, "Event"),
        (lambda: other.record(event), "Event"),
        (lambda: other.wait(event), "Event"),
    ):
        with pytest.raises(DeviceError, match=f"^{name} on GPU 0 .* is used after it was closed"):
            use()


def test_a_closed_device_cannot_be_used(driver):
    """Nor anything that was made on it."""
    device = driver.open(0)
    with device.current():
        stream = device.stream()
    device.close()
    for use in (device.stream, device.event, lambda: device.memory.allocate(1), device.memory.free_bytes):
        with pytest.raises(DeviceError, match="was closed"):
            use()
    with pytest.raises(DeviceError, match="was closed"), device.current():
        pass
    with pytest.raises(DeviceError, match="closed"):
        stream.synchronize()


def test_calls_need_the_context_to_be_current_in_their_thread(driver):
    """Also in another thread than the one that made a thing; the message says how."""
    device = driver.open(0)
    with device.current():
        stream = device.stream()
        with ThreadPoolExecutor(1) as pool, pytest.raises(DeviceError, match=r"with device\.current\(\)"):
            pool.submit(stream.synchronize).result()
    for use in (device.stream, device.event, lambda: device.memory.allocate(1), lambda: device.memory.pinned(1)):
        with pytest.raises(DeviceError, match=r"is not current in this thread"):
            use()
    device.close()


def test_a_context_can_be_entered_again_inside_itself(device):
    """And is still current after the inner one is left, also by an exception."""
    with device.current(), device.current():
        device.stream().synchronize()
    with pytest.raises(LookupError), device.current():
        raise LookupError
    device.stream().synchronize()


def two_devices(driver):
    if len(driver.devices()) < 2:
        pytest.skip("there is one GPU only")
    return driver.open(0), driver.open(1)


def test_with_two_gpus_the_inner_context_counts(driver):
    """Memory comes from the GPU that is asked, copies go to it, and the outer one is back afterwards."""
    first, second = two_devices(driver)
    with first.current():
        before = first.memory.free_bytes()
        outer = first.stream()
        with second.current():
            with pytest.raises(DeviceError, match=r"GPU 0 .* is not current"):
                outer.synchronize()
            with first.current():
                outer.synchronize()
            inner = second.memory.allocate(1 << 20)
            second.stream().synchronize()
        assert first.memory.free_bytes() == before
        host, back = pinned(first, noise(1 << 20)), first.memory.pinned(1 << 20)
        with second.current():  # pinned memory belongs to all GPUs
            stream = second.stream()
            stream.copy_in(inner, host.array)
            stream.copy_out(back.array, inner)
            stream.synchronize()
        np.testing.assert_array_equal(back.array, host.array)
        outer.synchronize()
    first.close()
    with second.current():
        second.stream().synchronize()
    second.close()


def test_the_context_of_another_library_is_current_again_afterwards(driver):
    """As torch and cupy leave one: that of their GPU, in each thread that used them."""
    native = pytest.importorskip("cuda.bindings.driver")
    device = driver.open(0)
    (_, theirs), (_, other) = (
        native.cuDevicePrimaryCtxRetain(0),
        native.cuDevicePrimaryCtxRetain(len(driver.devices()) - 1),
    )

    def work():
        assert int(native.cuCtxSetCurrent(theirs)[0]) == 0
        with device.current():
            device.stream().synchronize()
            assert int(native.cuCtxSetCurrent(other)[0]) == 0  # in the midst of it, as the CUDA runtime's cudaSetDevice
        assert int(native.cuCtxGetCurrent()[1]) == int(theirs)
        native.cuCtxPopCurrent()

    work()
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(work) for _ in range(4)]:
            done.result()
    device.close()
    for each in (0, len(driver.devices()) - 1):
        native.cuDevicePrimaryCtxRelease(each)


def test_one_gpu_opened_twice_is_closed_twice(driver):
    """Each device holds the primary context for itself."""
    one, other = driver.open(0), driver.open(0)
    with other.current():
        buffer = other.memory.allocate(100)
        with one.current():
            one.memory.allocate(100)
        one.close()
        other.stream().copy_in(buffer, pinned(other, noise(100)).array)
    other.close()


def test_threads_share_a_device(driver):
    """Each makes it current for itself, with things of its own or made by another; all bytes are right."""
    device = driver.open(0)
    with device.current():
        streams = [device.stream() for _ in range(4)]
    results = {}

    def run(number, stream):
        with device.current():
            for turn in range(5):
                values = noise(30_001, 100 * number + turn)
                source, target, buffer = (
                    pinned(device, values),
                    device.memory.pinned(30_001),
                    device.memory.allocate(30_001),
                )
                stream.copy_in(buffer, source.array)
                stream.copy_out(target.array, buffer)
                stream.synchronize()
                results[number, turn] = np.array_equal(target.array, values)
                for each in (source, target, buffer):
                    each.close()
            stream.close()

    threads = [threading.Thread(target=run, args=each) for each in enumerate(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    device.close()
    assert len(results) == 20
    assert all(results.values())


def test_a_device_closes_what_is_open_after_its_work_is_done(driver):
    """From a thread that made nothing, with copies under way."""
    device = driver.open(0)
    with device.current():
        stream, buffer, host = device.stream(), device.memory.allocate(1 << 20), device.memory.pinned(1 << 20)
        device.event()
        for _ in range(10):
            stream.copy_in(buffer, host.array)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(device.close).result()


def test_a_device_waits_for_work_of_others_when_it_closes(driver):
    """As a library puts it on a stream that is not ours: memory is freed only after it."""
    machine = emulation_now()
    device = driver.open(0)
    with device.current():
        buffer = device.memory.allocate(100)
        machine.enqueue(0, lambda: time.sleep(0.05), writes=[(buffer.address, 100)])
    device.close()


def test_pinned_memory_is_portable(device):
    """Page-locked for every context, as the driver itself has it."""
    native = pytest.importorskip("cuda.bindings.driver")
    status, flags = native.cuMemHostGetFlags(device.memory.pinned(10).array.ctypes.data)
    assert (int(status), flags & native.CU_MEMHOSTALLOC_PORTABLE) == (0, native.CU_MEMHOSTALLOC_PORTABLE)


def test_the_garbage_collector_finds_nothing_to_free(driver):
    """After a device was closed, letting go of everything calls the driver no more."""
    machine = emulation_now()
    device = driver.open(0)
    with device.current():
        made = things(device)
    device.close()
    calls = machine.calls()
    del device, made
    gc.collect()
    assert machine.calls() == calls


def use_a_gpu(binding):
    """Everything that the tests above do, once, with a device that is closed at the end."""
    device = open_driver(binding).open(0)
    try:
        with device.current():
            stream, other, event, buffer, host = device.stream(), *things(device)[:4]
            window = Window(offset_bytes=1, rows=3, row_bytes=5, pitch_bytes=9)
            stream.copy_in(buffer, host.array)
            stream.copy_in(buffer, host.array[:15], window)
            stream.record(event)
            other.wait(event)
            event.synchronize()
            other.copy_out(host.array, buffer)
            other.copy_out(host.array[:15], buffer, window)
            other.synchronize()
            if isinstance(stream, CapturingStream):
                replay = stream.capture(lambda: stream.copy_in(buffer, host.array))
                replay.launch(stream)
            stream.close()
            device.memory.allocate(10).close()
            device.memory.free_bytes()
            other.copy_in(buffer, host.array)  # which closing has to wait for
    finally:
        device.close()


@pytest.mark.parametrize("status", HURT)
def test_whichever_call_fails_it_is_a_device_error_and_leaves_nothing_open(binding, status, capfd):
    """Each call of a run, in turn, fails once."""
    machine = emulation()
    machine.reset(devices=1)
    use_a_gpu(binding)
    names = machine.calls()
    passed = set()
    for name, count in names.items():
        for nth in range(1, count + 1):
            machine.reset(devices=1)
            machine.fail_at(nth, name, status)
            try:
                use_a_gpu(binding)
                passed.add(name)
            except DeviceError:
                pass
            assert (machine.leaks(), machine.violations()) == ([], []), (name, nth)
    retried = {"cuMemAlloc"} if status == 2 and binding == "pycuda" else set()  # after collecting garbage
    assert passed <= SILENT[binding] | retried
    capfd.readouterr()


@pytest.mark.parametrize("kind", ["copy_in", "copy_out"])
def test_a_context_that_broke_can_still_be_closed(binding, kind, capfd):
    """After a failure on the GPU every call fails: the first error is reported, and nothing stays open."""
    machine = emulation()
    machine.fail_operation(2, kind)
    with pytest.raises(DeviceError, match="start the process anew"):
        use_a_gpu(binding)
    assert machine.leaks() == []
    capfd.readouterr()


def test_the_bodys_error_is_reported_if_leaving_fails_too(binding):
    """The first failure is the one that matters; the second one is a note on it."""
    machine = emulation()
    first, second = two_devices(open_driver(binding))

    def fail():
        with second.current():
            machine.fail_at(1, "cuCtxPushCurrent", 999)
            raise LookupError("the tile")

    with first.current():
        with pytest.raises(LookupError) as error:
            fail()
        assert "making cuda:0 current failed" in error.value.__notes__[0]
        first.stream().synchronize()  # made current again where it is needed
    first.close()
    second.close()
