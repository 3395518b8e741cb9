"""GPUs on pycuda. It cannot capture a stream's work."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from typing import Any

from exactile.cuda.current import Current
from exactile.cuda.ordinals import device_at
from exactile.cuda.protocol import DeviceInfo
from exactile.cuda.pycuda_memory import PycudaMemory
from exactile.cuda.pycuda_streams import PycudaEvent, PycudaStream
from exactile.cuda.scope import Scope
from exactile.cuda.status import pycuda_calls
from exactile.errors import DeviceError


class PycudaDriver:
    """Driver on pycuda."""

    def __init__(self) -> None:
        """Raise DeviceError that says what is missing."""
        self._native, self._version = _load()
        self._current = Current()
        with pycuda_calls(self._native, "starting the CUDA driver"):
            self._native.init()

    @property
    def name(self) -> str:
        return f"pycuda {self._version}"

    @property
    def cuda_version(self) -> tuple[int, int]:
        with pycuda_calls(self._native, "asking for the driver's version"):
            version = int(self._native.get_driver_version())
        return version // 1000, version % 1000 // 10

    def devices(self) -> tuple[DeviceInfo, ...]:
        with pycuda_calls(self._native, "listing the GPUs"):
            return tuple(_describe(self._native, ordinal) for ordinal in range(self._native.Device.count()))

    def open(self, ordinal: int) -> PycudaDevice:
        info = device_at(self.devices(), ordinal)
        return PycudaDevice(self._native, info, Scope(info, PycudaContext(self._native, info), self._current))


class PycudaDevice:
    """A GPU with its primary context."""

    def __init__(self, native: Any, info: DeviceInfo, scope: Scope) -> None:
        self._native = native
        self._info = info
        self._scope = scope
        self._memory = PycudaMemory(native, scope)

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def memory(self) -> PycudaMemory:
        return self._memory

    def current(self) -> AbstractContextManager[None]:
        return self._scope.current()

    def stream(self) -> PycudaStream:
        return PycudaStream(self._native, self._scope)

    def event(self, *, timed: bool = False) -> PycudaEvent:
        return PycudaEvent(self._native, self._scope, timed=timed)

    def close(self) -> None:
        self._scope.close()


class PycudaContext:
    """A GPU's primary context, on pycuda's own stack of contexts, which its objects look at."""

    def __init__(self, native: Any, info: DeviceInfo) -> None:
        self._native = native
        self._ordinal = info.ordinal
        with pycuda_calls(native, f"opening cuda:{info.ordinal}"):
            self._context = native.Device(info.ordinal).retain_primary_context()

    def push(self) -> None:
        with pycuda_calls(self._native, f"making cuda:{self._ordinal} current"):
            self._context.push()

    def pop(self) -> None:
        """Again if need be: pycuda aborts the process when a thread ends that still has a context."""
        try:
            self._pop()
        except DeviceError:
            try:
                self._pop()
            except DeviceError:
                self._put_back()
                self._pop()

    def synchronize(self) -> None:
        with pycuda_calls(self._native, f"waiting for cuda:{self._ordinal}"):
            self._native.Context.synchronize()

    def release(self) -> None:
        """In a thread of its own, which ends: pycuda's ``detach`` releases a context only where it is current.

        And it leaves a primary context on the driver's stack of that thread.
        """
        failures: list[DeviceError] = []
        thread = threading.Thread(target=self._detach, args=(failures,), name=f"release cuda:{self._ordinal}")
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    def _push_persistently(self) -> None:
        """Once more after a failure: if it does not succeed, the context can no longer be released."""
        try:
            self.push()
        except DeviceError:
            self.push()

    def _pop(self) -> None:
        with pycuda_calls(self._native, f"leaving cuda:{self._ordinal}"):
            self._native.Context.pop()

    def _put_back(self) -> None:
        """Where a failed pop took it off the driver's stack, but left it on pycuda's, which pops both or none."""
        with pycuda_calls(self._native, f"leaving cuda:{self._ordinal}"):
            # Detaching a reference to the context that is on no stack leaves the context on the driver's.
            self._native.Device(self._ordinal).retain_primary_context().detach()

    def _detach(self, failures: list[DeviceError]) -> None:
        try:
            self._push_persistently()
            with pycuda_calls(self._native, f"closing cuda:{self._ordinal}"):
                self._context.detach()
        except DeviceError as error:
            failures.append(error)


def _load() -> tuple[Any, str]:
    """Return the module ``pycuda.driver`` and pycuda's version. Raises DeviceError."""
    try:
        import pycuda
    except ImportError as error:
        raise DeviceError("pycuda is not installed: pip install 'exactile[gpu]'") from error
    try:
        import pycuda.driver
    except ImportError as error:
        if "libcuda" in str(error):
            raise DeviceError(
                f"pycuda found no NVIDIA driver ({error}): install the driver; containers need --gpus all"
            ) from error
        raise DeviceError(f"pycuda {pycuda.VERSION_TEXT} does not load: {error}") from error
    return pycuda.driver, str(pycuda.VERSION_TEXT)


def _describe(native: Any, ordinal: int) -> DeviceInfo:
    device = native.Device(ordinal)
    major, minor = device.compute_capability()
    return DeviceInfo(
        ordinal=ordinal,
        name=str(device.name()),
        compute_capability=(int(major), int(minor)),
        total_bytes=int(device.total_memory()),
    )
