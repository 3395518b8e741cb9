"""Streams and events on cuda.bindings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from exactile.cuda.bindings_graphs import BindingsReplay, captured
from exactile.cuda.protocol import Bytes, DeviceBuffer, Event, Window
from exactile.cuda.scope import Kind, Scope
from exactile.cuda.sizes import check_copy
from exactile.cuda.status import bindings_value
from exactile.errors import DeviceError


class BindingsStream:
    """Work in order, which can be captured. Owned."""

    def __init__(self, native: Any, scope: Scope) -> None:
        scope.require_current()
        self._native = native
        self._scope = scope
        made = native.cuStreamCreate(native.CUstream_flags.CU_STREAM_NON_BLOCKING)
        self._stream = bindings_value(native, f"making a stream on {scope.label}", made)
        scope.own(self, Kind.STREAM)

    @property
    def handle(self) -> int:
        self._scope.require(self)
        return int(self._stream)

    def copy_in(self, target: DeviceBuffer, source: Bytes, window: Window | None = None) -> None:
        self._scope.use(self)
        check_copy(source, target.size_bytes, window)
        doing = f"copying {source.nbytes:,} bytes to {self._scope.label}"
        if window is None:
            result = self._native.cuMemcpyHtoDAsync(target.address, source.ctypes.data, source.nbytes, self._stream)
        else:
            copy = self._rows(window)
            copy.srcMemoryType = self._native.CUmemorytype.CU_MEMORYTYPE_HOST
            copy.srcHost = source.ctypes.data
            copy.srcPitch = window.row_bytes
            copy.dstMemoryType = self._native.CUmemorytype.CU_MEMORYTYPE_DEVICE
            copy.dstDevice = target.address + window.offset_bytes
            copy.dstPitch = window.pitch_bytes
            result = self._native.cuMemcpy2DAsync(copy, self._stream)
        bindings_value(self._native, doing, result)

    def copy_out(self, target: Bytes, source: DeviceBuffer, window: Window | None = None) -> None:
        self._scope.use(self)
        check_copy(target, source.size_bytes, window)
        doing = f"copying {target.nbytes:,} bytes from {self._scope.label}"
        if window is None:
            result = self._native.cuMemcpyDtoHAsync(target.ctypes.data, source.address, target.nbytes, self._stream)
        else:
            copy = self._rows(window)
            copy.srcMemoryType = self._native.CUmemorytype.CU_MEMORYTYPE_DEVICE
            copy.srcDevice = source.address + window.offset_bytes
            copy.srcPitch = window.pitch_bytes
            copy.dstMemoryType = self._native.CUmemorytype.CU_MEMORYTYPE_HOST
            copy.dstHost = target.ctypes.data
            copy.dstPitch = window.row_bytes
            result = self._native.cuMemcpy2DAsync(copy, self._stream)
        bindings_value(self._native, doing, result)

    def record(self, event: Event) -> None:
        self._scope.use(self)
        doing = f"recording an event on {self._scope.label}"
        bindings_value(self._native, doing, self._native.cuEventRecord(native_event(event), self._stream))

    def wait(self, event: Event) -> None:
        self._scope.use(self)
        doing = f"letting a stream of {self._scope.label} wait for an event"
        bindings_value(self._native, doing, self._native.cuStreamWaitEvent(self._stream, native_event(event), 0))

    def capture(self, work: Callable[[], Any]) -> BindingsReplay:
        """Raise DeviceError; what ``work`` raises goes on, and nothing was captured."""
        self._scope.use(self)
        graph = captured(self._native, self._scope, self._stream, work)
        return BindingsReplay(self._native, self._scope, graph)

    def synchronize(self) -> None:
        self._scope.use(self)
        self._wait()

    def close(self) -> None:
        """Waits for its work: what that uses is often closed next."""
        self._scope.release(self, self._free)

    def _rows(self, window: Window) -> Any:
        """Return a copy of rows of which neither side is set yet."""
        copy = self._native.CUDA_MEMCPY2D()
        copy.WidthInBytes = window.row_bytes
        copy.Height = window.rows
        return copy

    def _wait(self) -> None:
        doing = f"waiting for a stream of {self._scope.label}"
        bindings_value(self._native, doing, self._native.cuStreamSynchronize(self._stream))

    def _free(self) -> None:
        try:
            self._wait()
        except DeviceError:
            with contextlib.suppress(DeviceError):
                self._wait()  # what the work uses is freed next
            raise
        finally:
            doing = f"closing a stream of {self._scope.label}"
            bindings_value(self._native, doing, self._native.cuStreamDestroy(self._stream))


class BindingsEvent:
    """A point in a stream's work. Owned. Waiting for it puts the thread to sleep, rather than spinning."""

    def __init__(self, native: Any, scope: Scope, *, timed: bool) -> None:
        scope.require_current()
        self._native = native
        self._scope = scope
        self._timed = timed
        flags = int(native.CUevent_flags.CU_EVENT_BLOCKING_SYNC)
        if not timed:
            flags |= int(native.CUevent_flags.CU_EVENT_DISABLE_TIMING)
        self._event = bindings_value(native, f"making an event on {scope.label}", native.cuEventCreate(flags))
        scope.own(self, Kind.EVENT)

    @property
    def native(self) -> Any:
        """The driver's event. Raises DeviceError if it was closed."""
        self._scope.require(self)
        return self._event

    @property
    def timed(self) -> bool:
        return self._timed

    def synchronize(self) -> None:
        self._scope.use(self)
        doing = f"waiting for an event on {self._scope.label}"
        bindings_value(self._native, doing, self._native.cuEventSynchronize(self._event))

    def seconds_since(self, earlier: Event) -> float:
        self._scope.use(self)
        if not (self._timed and isinstance(earlier, BindingsEvent) and earlier.timed):
            raise DeviceError("only the time between two events made with timed=True is known")
        doing = f"taking the time between events on {self._scope.label}"
        return (
            float(bindings_value(self._native, doing, self._native.cuEventElapsedTime(earlier.native, self._event)))
            / 1000
        )

    def close(self) -> None:
        self._scope.release(self, self._free)

    def _free(self) -> None:
        doing = f"closing an event on {self._scope.label}"
        bindings_value(self._native, doing, self._native.cuEventDestroy(self._event))


def native_event(event: Event) -> Any:
    """Raise DeviceError if ``event`` was closed, or is another binding's."""
    if not isinstance(event, BindingsEvent):
        raise DeviceError(f"a stream of cuda.bindings takes its own events, not {type(event).__name__}")
    return event.native
