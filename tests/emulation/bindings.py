"""pycuda and cuda.bindings behind one face, for the tests of the emulation: nothing is checked, nothing is cleverer.

What is made is kept until ``close``; a test that plants a leak takes it out of ``kept``.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

NON_BLOCKING = 1
Kind = Literal["stream", "event", "device", "pinned"]


@dataclass(slots=True)
class Held:
    """Something native; no frame of a traceback has more than this, so that pycuda's objects go when they are told."""

    kind: Kind
    native: Any


class Pycuda:
    """Real pycuda. Its objects release what they stand for when they go."""

    def __init__(self) -> None:
        import pycuda.driver

        self.native = pycuda.driver
        self.native.init()
        self.failure: type[Exception] = self.native.Error
        self.kept: list[Held] = []
        self.contexts: list[Any] = []

    def open(self, ordinal: int = 0) -> None:
        """Make the device's primary context current."""
        context = self.native.Device(ordinal).retain_primary_context()
        try:
            context.push()
        except self.failure:
            context.detach()
            raise
        self.contexts.append(context)

    def close(self) -> None:
        """Wait for the current context's work, whatever became of it, and release everything, the contexts last."""
        if self.contexts:
            with suppress(self.failure):
                self.native.Context.synchronize()
        while self.kept:
            self.release(self.kept.pop())
        while self.contexts:
            self.leave()

    def leave(self) -> None:
        """Release the context that was opened last, and nothing that was made in it."""
        self.contexts.pop().detach()  # of the current one: pycuda takes it from its stack as well

    def release(self, held: Held) -> None:
        """Streams and events know no other way than to be forgotten."""
        if held.kind in {"device", "pinned"}:
            held.native.free()
        held.native = None

    def stream(self, flags: int = NON_BLOCKING) -> Held:
        return self._keep("stream", self.native.Stream(flags))

    def handle(self, stream: Held) -> int:
        return int(stream.native.handle)

    def event(self, flags: int = 0) -> Held:
        return self._keep("event", self.native.Event(flags))

    def memory(self, size_bytes: int) -> int:
        return int(self._keep("device", self.native.mem_alloc(size_bytes)).native)

    def pinned(self, size_bytes: int) -> np.ndarray:
        array = self.native.pagelocked_empty(size_bytes, np.uint8)
        self._keep("pinned", array.base)
        return array

    def copy_in(self, target: int, source: np.ndarray, stream: Held) -> None:
        self.native.memcpy_htod_async(target, source, stream.native)

    def copy_out(self, target: np.ndarray, source: int, stream: Held) -> None:
        self.native.memcpy_dtoh_async(target, source, stream.native)

    def crop_out(self, target: np.ndarray, source: int, stream: Held, *, pitch: int, y: int, x: int) -> None:
        """Rows of ``target`` (rows, columns) from (y, x) on of a device image with rows of ``pitch`` bytes."""
        copy = self.native.Memcpy2D()
        copy.set_src_device(source)
        copy.set_dst_host(target)
        copy.src_pitch, copy.dst_pitch = pitch, target.shape[1]
        copy.src_x_in_bytes, copy.src_y = x, y
        copy.height, copy.width_in_bytes = target.shape
        copy(stream.native)

    def record(self, event: Held, stream: Held) -> None:
        event.native.record(stream.native)

    def wait(self, stream: Held, event: Held) -> None:
        stream.native.wait_for_event(event.native)

    def synchronize(self, what: Held) -> None:
        what.native.synchronize()

    def milliseconds(self, first: Held, second: Held) -> float:
        return second.native.time_since(first.native)

    def free_bytes(self) -> int:
        return self.native.mem_get_info()[0]

    def _keep(self, kind: Kind, native: Any) -> Held:
        self.kept.append(Held(kind, native))
        return self.kept[-1]


class CudaBindings:
    """Real cuda.bindings. Handles are numbers; whoever made them releases them."""

    def __init__(self) -> None:
        from cuda.bindings import driver

        self.native = driver
        self.failure: type[Exception] = CudaError
        self.kept: list[Held] = []
        self.contexts: list[Any] = []
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> Any:
        """What a call returns besides its status. Raises CudaError."""
        status, *values = getattr(self.native, name)(*arguments)
        if int(status) != 0:
            _, words = self.native.cuGetErrorString(status)
            raise CudaError(f"{name} failed: {words.decode()}")
        return values[0] if values else None

    def open(self, ordinal: int = 0) -> None:
        context = self.call("cuDevicePrimaryCtxRetain", ordinal)
        try:
            self.call("cuCtxPushCurrent", context)
        except CudaError:
            self.call("cuDevicePrimaryCtxRelease", ordinal)
            raise
        self.contexts.append(ordinal)

    def close(self) -> None:
        """The same; raises the first failure to release at the end."""
        if self.contexts:
            with suppress(self.failure):
                self.call("cuCtxSynchronize")
        failures = []
        releases = [(_RELEASES[held.kind], held.native) for held in reversed(self.kept)]
        for ordinal in reversed(self.contexts):
            releases += [("cuCtxPopCurrent", None), ("cuDevicePrimaryCtxRelease", ordinal)]
        self.kept.clear()
        self.contexts.clear()
        for name, native in releases:
            try:
                self.call(name, *(() if native is None else (native,)))
            except CudaError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def leave(self) -> None:
        self.call("cuCtxPopCurrent")
        self.call("cuDevicePrimaryCtxRelease", self.contexts.pop())

    def release(self, held: Held) -> None:
        self.call(_RELEASES[held.kind], held.native)

    def stream(self, flags: int = NON_BLOCKING) -> Held:
        return self._keep("stream", self.call("cuStreamCreate", flags))

    def handle(self, stream: Held) -> int:
        return int(stream.native)

    def event(self, flags: int = 0) -> Held:
        return self._keep("event", self.call("cuEventCreate", flags))

    def memory(self, size_bytes: int) -> int:
        return int(self._keep("device", self.call("cuMemAlloc", size_bytes)).native)

    def pinned(self, size_bytes: int) -> np.ndarray:
        address = self._keep("pinned", self.call("cuMemHostAlloc", size_bytes, 0)).native
        return np.frombuffer((ctypes.c_uint8 * size_bytes).from_address(address), np.uint8)

    def copy_in(self, target: int, source: np.ndarray, stream: Held) -> None:
        self.call("cuMemcpyHtoDAsync", target, source.ctypes.data, source.nbytes, stream.native)

    def copy_out(self, target: np.ndarray, source: int, stream: Held) -> None:
        self.call("cuMemcpyDtoHAsync", target.ctypes.data, source, target.nbytes, stream.native)

    def crop_out(self, target: np.ndarray, source: int, stream: Held, *, pitch: int, y: int, x: int) -> None:
        kinds = self.native.CUmemorytype
        copy = self.native.CUDA_MEMCPY2D()
        copy.srcMemoryType, copy.dstMemoryType = kinds.CU_MEMORYTYPE_DEVICE, kinds.CU_MEMORYTYPE_HOST
        copy.srcDevice, copy.dstHost = source, target.ctypes.data
        copy.srcPitch, copy.dstPitch = pitch, target.shape[1]
        copy.srcXInBytes, copy.srcY = x, y
        copy.Height, copy.WidthInBytes = target.shape
        self.call("cuMemcpy2DAsync", copy, stream.native)

    def record(self, event: Held, stream: Held) -> None:
        self.call("cuEventRecord", event.native, stream.native)

    def wait(self, stream: Held, event: Held) -> None:
        self.call("cuStreamWaitEvent", stream.native, event.native, 0)

    def synchronize(self, what: Held) -> None:
        self.call(f"cu{what.kind.capitalize()}Synchronize", what.native)

    def milliseconds(self, first: Held, second: Held) -> float:
        return self.call("cuEventElapsedTime", first.native, second.native)

    def free_bytes(self) -> int:
        status, free, _ = self.native.cuMemGetInfo()
        assert int(status) == 0
        return free

    def _keep(self, kind: Kind, native: Any) -> Held:
        self.kept.append(Held(kind, native))
        return self.kept[-1]


_RELEASES = {"stream": "cuStreamDestroy", "event": "cuEventDestroy", "device": "cuMemFree", "pinned": "cuMemFreeHost"}


class CudaError(Exception):
    """In pycuda's words: "cuMemAlloc failed: out of memory"."""


Binding = Pycuda | CudaBindings
BINDINGS = {"pycuda": Pycuda, "cuda.bindings": CudaBindings}
