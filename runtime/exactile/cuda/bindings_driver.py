"""GPUs on cuda.bindings, NVIDIA's own binding of the driver."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager
from typing import Any

from exactile.cuda.bindings_memory import BindingsMemory
from exactile.cuda.bindings_streams import BindingsEvent, BindingsStream
from exactile.cuda.current import Current
from exactile.cuda.ordinals import device_at
from exactile.cuda.protocol import DeviceInfo
from exactile.cuda.scope import Scope
from exactile.cuda.status import DRIVER_LIBRARY, bindings_value
from exactile.errors import DeviceError

NAME_BYTES = 256


class BindingsDriver:
    """Driver on cuda.bindings."""

    def __init__(self) -> None:
        """Raise DeviceError that says what is missing."""
        self._native, self._version = _load()
        self._current = Current()
        try:
            started = self._native.cuInit(0)
        except RuntimeError as error:  # the library is looked for now, not at import
            raise _no_driver(error) from error
        bindings_value(self._native, "starting the CUDA driver", started)

    @property
    def name(self) -> str:
        return f"cuda.bindings {self._version}"

    @property
    def cuda_version(self) -> tuple[int, int]:
        version = bindings_value(self._native, "asking for the driver's version", self._native.cuDriverGetVersion())
        return version // 1000, version % 1000 // 10

    def devices(self) -> tuple[DeviceInfo, ...]:
        count = bindings_value(self._native, "listing the GPUs", self._native.cuDeviceGetCount())
        return tuple(_describe(self._native, ordinal) for ordinal in range(count))

    def open(self, ordinal: int) -> BindingsDevice:
        info = device_at(self.devices(), ordinal)
        return BindingsDevice(self._native, info, Scope(info, BindingsContext(self._native, info), self._current))


class BindingsDevice:
    """A GPU with its primary context."""

    def __init__(self, native: Any, info: DeviceInfo, scope: Scope) -> None:
        self._native = native
        self._info = info
        self._scope = scope
        self._memory = BindingsMemory(native, scope)

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def memory(self) -> BindingsMemory:
        return self._memory

    def current(self) -> AbstractContextManager[None]:
        return self._scope.current()

    def stream(self) -> BindingsStream:
        return BindingsStream(self._native, self._scope)

    def event(self, *, timed: bool = False) -> BindingsEvent:
        return BindingsEvent(self._native, self._scope, timed=timed)

    def close(self) -> None:
        self._scope.close()


class BindingsContext:
    """A GPU's primary context."""

    def __init__(self, native: Any, info: DeviceInfo) -> None:
        self._native = native
        self._name = f"cuda:{info.ordinal}"
        self._device = bindings_value(native, f"opening {self._name}", native.cuDeviceGet(info.ordinal))
        retained = native.cuDevicePrimaryCtxRetain(self._device)
        self._context = bindings_value(native, f"opening {self._name}", retained)

    def push(self) -> None:
        bindings_value(self._native, f"making {self._name} current", self._native.cuCtxPushCurrent(self._context))

    def pop(self) -> None:
        popped = self._native.cuCtxPopCurrent()
        try:
            bindings_value(self._native, f"leaving {self._name}", popped)
        except DeviceError:
            if self._is_current():
                bindings_value(self._native, f"leaving {self._name}", self._native.cuCtxPopCurrent())

    def synchronize(self) -> None:
        bindings_value(self._native, f"waiting for {self._name}", self._native.cuCtxSynchronize())

    def release(self) -> None:
        bindings_value(self._native, f"closing {self._name}", self._native.cuDevicePrimaryCtxRelease(self._device))

    def _is_current(self) -> bool:
        current = bindings_value(self._native, f"leaving {self._name}", self._native.cuCtxGetCurrent())
        return int(current) == int(self._context)


def _load() -> tuple[Any, str]:
    """Return the module ``cuda.bindings.driver`` and the package's version. Raises DeviceError."""
    try:
        import cuda.bindings

        _check_library()  # it takes a hundredth of the time that the module takes
        from cuda.bindings import driver
    except ModuleNotFoundError as error:
        raise DeviceError("cuda-bindings is not installed: pip install 'exactile[gpu]'") from error
    except ImportError as error:
        raise DeviceError(f"cuda.bindings does not load: {error}") from error
    return driver, str(cuda.bindings.__version__)


def _check_library() -> None:
    """Raise DeviceError where there is no NVIDIA driver."""
    try:
        ctypes.CDLL(DRIVER_LIBRARY)
    except OSError as error:
        raise _no_driver(error) from error


def _no_driver(error: Exception) -> DeviceError:
    return DeviceError(
        f"cuda.bindings found no NVIDIA driver ({error}): install the driver; containers need --gpus all"
    )


def _describe(native: Any, ordinal: int) -> DeviceInfo:
    def ask(result: tuple[Any, ...]) -> Any:
        return bindings_value(native, f"asking what cuda:{ordinal} is", result)

    device = ask(native.cuDeviceGet(ordinal))
    attribute = native.CUdevice_attribute
    major = ask(native.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))
    minor = ask(native.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device))
    return DeviceInfo(
        ordinal=ordinal,
        name=ask(native.cuDeviceGetName(NAME_BYTES, device)).partition(b"\0")[0].decode(),
        compute_capability=(int(major), int(minor)),
        total_bytes=int(ask(native.cuDeviceTotalMem(device))),
    )
