"""Networks on an emulated GPU: work happens on the stream and not before, in order, and races are seen.

The driver is the emulation in ``tests/emulation``, TensorRT and the CUDA provider are the stand-ins: what is shown is
how the adapters use streams and memory, nothing about a real GPU.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest

from exactile.cuda.bindings_driver import BindingsDriver
from exactile.cuda.protocol import Device, DeviceBuffer, PinnedBuffer, Stream
from exactile.engines.device_network import DeviceNetwork
from exactile.engines.onnx_runtime_cuda import OnnxRuntimeCudaNetwork
from exactile.engines.tensorrt import TensorRTNetwork
from exactile.errors import DeviceError, DeviceMemoryError
from tests.emulation.driver import EmulatedDevice, Emulation, load
from tests.emulation.library import NoCompilerError
from tests.engines.test_engine_tensorrt import expected, inputs, net, shapes
from tests.support.onnx_runtime_cuda_stand_in import OnnxRuntimeCudaStandIn
from tests.support.tensorrt_stand_in import EmulatedGpu, TensorRTStandIn, build

pytest.importorskip("cuda.bindings.driver", reason="cuda.bindings is not installed")

ROWS, COLUMNS = 8, 12
SCRATCH_BYTES = 1 << 16
DTYPES = {"labels": np.uint8, "scores": np.float32}


@pytest.fixture(scope="module")
def emulation() -> Emulation:
    try:
        return load()
    except NoCompilerError as error:
        pytest.skip(str(error))


@contextmanager
def opened(emulation: Emulation, **machine) -> Iterator[Device]:
    """The emulated device 0, current; nothing may be left of it, and nothing wrong may have been done."""
    emulation.reset(**machine)
    device = BindingsDriver().open(0)
    with device.current():
        yield device
    device.close()
    assert emulation.leaks() == []


@pytest.fixture(params=["tensorrt", "tensorrt-rtx", "onnxruntime"])
def open_network(request, emulation, monkeypatch, tmp_path):
    """A function that makes a network of 8 x 12 pixels on a stream."""
    gpu = EmulatedGpu(emulation)
    if request.param == "onnxruntime":
        stand_in = OnnxRuntimeCudaStandIn(gpu, arena_bytes=SCRATCH_BYTES, root=tmp_path)
        monkeypatch.setitem(sys.modules, "onnxruntime", stand_in.module)
        model = net(ROWS).SerializeToString()

        def open_cuda(stream: Stream) -> DeviceNetwork:
            stand_in.sessions.clear()
            made = OnnxRuntimeCudaNetwork(
                model, tile_shape=(ROWS, COLUMNS), output_shapes=shapes(ROWS), ordinal=0, stream=stream.handle
            )
            stand_in.sessions.clear()
            return made

        return open_cuda
    trt = TensorRTStandIn(gpu, backend=request.param, scratch_bytes=SCRATCH_BYTES)
    monkeypatch.setitem(sys.modules, trt.module.__name__, trt.module)
    built = build(net(ROWS), tmp_path, backend=request.param, rows=(ROWS, ROWS), columns=COLUMNS, outputs=shapes(ROWS))
    return lambda _: TensorRTNetwork(built, compute_capability=(8, 6))


@dataclass
class Slot:
    """Everything that one inference needs, in pinned and in device memory."""

    given: dict[str, PinnedBuffer]
    made: dict[str, PinnedBuffer]
    on_device: dict[str, DeviceBuffer]

    @classmethod
    def on(cls, device: Device, seed: int) -> Slot:
        memory = device.memory
        given = {name: memory.pinned(array.nbytes) for name, array in inputs(ROWS).items()}
        sizes = {name: int(np.prod(shape)) * np.dtype(DTYPES[name]).itemsize for name, shape in shapes(ROWS).items()}
        made = {name: memory.pinned(size) for name, size in sizes.items()}
        slot = cls(given, made, {name: memory.allocate(buffer.array.size) for name, buffer in (given | made).items()})
        slot.fill(seed)
        return slot

    @property
    def addresses(self) -> Mapping[str, int]:
        return {name: buffer.address for name, buffer in self.on_device.items()}

    def fill(self, seed: int) -> None:
        for name, array in inputs(ROWS, seed).items():
            self.given[name].array[:] = array.reshape(-1).view(np.uint8)
        for buffer in self.made.values():
            buffer.array[:] = 99

    def run(self, network: DeviceNetwork, stream: Stream) -> None:
        self.copy_in(stream)
        network.enqueue(self.addresses, rows=ROWS, stream=stream.handle)
        self.copy_out(stream)

    def copy_in(self, stream: Stream) -> None:
        for name, buffer in self.given.items():
            stream.copy_in(self.on_device[name], buffer.array)

    def copy_out(self, stream: Stream) -> None:
        for name, buffer in self.made.items():
            stream.copy_out(buffer.array, self.on_device[name])

    def results(self) -> dict[str, np.ndarray]:
        return {
            name: buffer.array.view(DTYPES[name]).reshape(shapes(ROWS)[name]).copy()
            for name, buffer in self.made.items()
        }

    def is_right(self, seed: int) -> bool:
        return all(np.array_equal(array, expected(ROWS, seed)[name]) for name, array in self.results().items())


def test_work_waits_its_turn_on_the_stream_and_two_slots_share_one_network(emulation, open_network):
    with opened(emulation, max_delay_s=0.01, seed=1) as device:
        stream, gate = device.stream(), threading.Event()
        network = open_network(stream)
        slots = [Slot.on(device, seed) for seed in range(2)]
        emulation.enqueue(stream.handle, gate.wait)
        for slot in slots:
            slot.run(network, stream)
        assert all((buffer.array == 99).all() for slot in slots for buffer in slot.made.values())
        gate.set()
        stream.synchronize()
        assert [slot.is_right(seed) for seed, slot in enumerate(slots)] == [True, True]
        network.close()
    assert emulation.violations() == []
    assert emulation.errors == []


@pytest.mark.parametrize("open_network", ["tensorrt", "tensorrt-rtx"], indirect=True)
def test_two_streams_that_do_not_wait_for_each_other_are_a_race_for_scratch_memory(emulation, open_network):
    with opened(emulation) as device:
        first, second = device.stream(), device.stream()
        network = open_network(first)
        slots = [Slot.on(device, seed) for seed in range(2)]
        slots[0].run(network, first)
        slots[1].run(network, second)
        first.synchronize()
        second.synchronize()
        network.close()
    assert {violation.kind for violation in emulation.violations()} == {"race"}


@pytest.mark.parametrize("open_network", ["tensorrt", "tensorrt-rtx"], indirect=True)
def test_streams_that_wait_for_each_other_share_a_context(emulation, open_network):
    with opened(emulation, max_delay_s=0.01, seed=2) as device:
        first, second, event = device.stream(), device.stream(), device.event()
        network = open_network(first)
        slots = [Slot.on(device, seed) for seed in range(2)]
        slots[0].run(network, first)
        first.record(event)
        second.wait(event)
        slots[1].run(network, second)
        second.synchronize()
        network.close()
        assert [slot.is_right(seed) for seed, slot in enumerate(slots)] == [True, True]
    assert emulation.violations() == []


def test_an_input_that_is_overwritten_too_early_is_a_race(emulation, open_network):
    with opened(emulation) as device:
        compute, copies = device.stream(), device.stream()
        network, slot = open_network(compute), Slot.on(device, 0)
        slot.run(network, compute)
        slot.copy_in(copies)
        compute.synchronize()
        copies.synchronize()
        network.close()
    assert {violation.kind for violation in emulation.violations()} == {"race"}


def test_a_captured_inference_is_launched_again_on_other_pixels(emulation, open_network):
    with opened(emulation, max_delay_s=0.005, seed=3) as device:
        stream = device.stream()
        network, slot = open_network(stream), Slot.on(device, 0)
        slot.run(network, stream)
        stream.synchronize()
        if network.capturable:
            replay = stream.capture(lambda: network.enqueue(slot.addresses, rows=ROWS, stream=stream.handle))
            for seed in (1, 2):
                slot.fill(seed)
                slot.copy_in(stream)
                replay.launch(stream)
                slot.copy_out(stream)
                stream.synchronize()
                assert slot.is_right(seed)
            replay.close()
        else:
            assert isinstance(network, OnnxRuntimeCudaNetwork)
        network.close()
    assert emulation.violations() == []


def test_a_device_that_is_too_small_is_a_memory_error_and_nothing_is_left(emulation, open_network):
    with opened(emulation, devices=[EmulatedDevice(memory_bytes=SCRATCH_BYTES)]) as device:
        stream = device.stream()
        with pytest.raises(DeviceMemoryError, match=r"memory ran out.*out of memory"):
            network_that_ran(open_network, device, stream)
        stream.close()
    assert emulation.violations() == []


def network_that_ran(open_network, device: Device, stream: Stream) -> None:
    network = open_network(stream)
    try:
        Slot.on(device, 0).run(network, stream)
    finally:
        network.close()


def test_a_launch_that_the_driver_refuses_is_a_device_error(emulation, open_network):
    with opened(emulation) as device:
        stream = device.stream()
        network, slot = open_network(stream), Slot.on(device, 0)
        slot.run(network, stream)
        stream.synchronize()
        emulation.fail_at(1, "cuLaunchKernel", status=719)
        with pytest.raises(DeviceError, match=r"running .*8 rows: .*719") as caught:
            network.enqueue(slot.addresses, rows=ROWS, stream=stream.handle)
        assert type(caught.value) is DeviceError
        del caught
        network.close()


def test_rows_that_vary_give_results_of_their_own_height(emulation, monkeypatch, tmp_path):
    trt = TensorRTStandIn(EmulatedGpu(emulation), scratch_bytes=SCRATCH_BYTES)
    monkeypatch.setitem(sys.modules, "tensorrt", trt.module)
    built = build(net("height"), tmp_path, role="last", rows=(4, 16), columns=COLUMNS)
    with opened(emulation, max_delay_s=0.01, seed=4) as device:
        stream, slot = device.stream(), Slot.on(device, 0)
        network = TensorRTNetwork(built, compute_capability=(8, 6))
        slot.run(network, stream)
        stream.synchronize()
        assert slot.is_right(0)
        network.enqueue(slot.addresses, rows=4, stream=stream.handle)
        slot.copy_out(stream)
        stream.synchronize()
        labels = expected(ROWS, 0)["labels"].copy()
        image = {**inputs(ROWS, 0), "image": inputs(ROWS, 0)["image"][:4]}
        labels[:4] = onnxruntime.InferenceSession(net(4).SerializeToString()).run(["labels"], image)[0]
        assert np.array_equal(slot.results()["labels"], labels)
        network.close()
    assert emulation.violations() == []
