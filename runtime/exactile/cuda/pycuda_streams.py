"""Streams and events on pycuda.

It destroys them when the last reference goes, so each is held in one place, and let go there, in its context.
"""

from __future__ import annotations

import contextlib
from typing import Any

from exactile.cuda.protocol import Bytes, DeviceBuffer, Event, Window
from exactile.cuda.scope import Kind, Scope
from exactile.cuda.sizes import check_copy
from exactile.cuda.status import pycuda_calls
from exactile.errors import DeviceError

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, for which pycuda has no name: does not wait for the legacy default stream."""


class PycudaStream:
    """Work in order. Owned."""

    def __init__(self, native: Any, scope: Scope) -> None:
        scope.require_current()
        self._native = native
        self._scope = scope
        with pycuda_calls(native, f"making a stream on {scope.label}"):
            self._stream: Any = native.Stream(NON_BLOCKING)
        scope.own(self, Kind.STREAM)

    @property
    def handle(self) -> int:
        self._scope.require(self)
        return int(self._stream.handle)

    def copy_in(self, target: DeviceBuffer, source: Bytes, window: Window | None = None) -> None:
        self._scope.use(self)
        check_copy(source, target.size_bytes, window)
        with pycuda_calls(self._native, f"copying {source.nbytes:,} bytes to {self._scope.label}"):
            if window is None:
                self._native.memcpy_htod_async(target.address, source, self._stream)
                return
            copy = self._rows(window)
            copy.set_src_host(source)
            copy.src_pitch = window.row_bytes
            copy.set_dst_device(target.address + window.offset_bytes)
            copy.dst_pitch = window.pitch_bytes
            copy(self._stream)

    def copy_out(self, target: Bytes, source: DeviceBuffer, window: Window | None = None) -> None:
        self._scope.use(self)
        check_copy(target, source.size_bytes, window)
        with pycuda_calls(self._native, f"copying {target.nbytes:,} bytes from {self._scope.label}"):
            if window is None:
                self._native.memcpy_dtoh_async(target, source.address, self._stream)
                return
            copy = self._rows(window)
            copy.set_src_device(source.address + window.offset_bytes)
            copy.src_pitch = window.pitch_bytes
            copy.set_dst_host(target)
            copy.dst_pitch = window.row_bytes
            copy(self._stream)

    def record(self, event: Event) -> None:
        self._scope.use(self)
        with pycuda_calls(self._native, f"recording an event on {self._scope.label}"):
            native_event(event).record(self._stream)

    def wait(self, event: Event) -> None:
        self._scope.use(self)
        with pycuda_calls(self._native, f"letting a stream of {self._scope.label} wait for an event"):
            self._stream.wait_for_event(native_event(event))

    def synchronize(self) -> None:
        self._scope.use(self)
        self._wait()

    def close(self) -> None:
        """Waits for its work: what that uses is often closed next."""
        self._scope.release(self, self._free)

    def _rows(self, window: Window) -> Any:
        """Return a copy of rows of which neither side is set yet."""
        copy = self._native.Memcpy2D()
        copy.width_in_bytes = window.row_bytes
        copy.height = window.rows
        return copy

    def _wait(self) -> None:
        with pycuda_calls(self._native, f"waiting for a stream of {self._scope.label}"):
            self._stream.synchronize()

    def _free(self) -> None:
        try:
            self._wait()
        except DeviceError:
            with contextlib.suppress(DeviceError):
                self._wait()  # what the work uses is freed next
            raise
        finally:
            self._stream = None


class PycudaEvent:
    """A point in a stream's work. Owned. Waiting for it puts the thread to sleep, rather than spinning."""

    def __init__(self, native: Any, scope: Scope, *, timed: bool) -> None:
        scope.require_current()
        self._native = native
        self._scope = scope
        self._timed = timed
        flags = native.event_flags.BLOCKING_SYNC | (0 if timed else native.event_flags.DISABLE_TIMING)
        with pycuda_calls(native, f"making an event on {scope.label}"):
            self._event: Any = native.Event(flags)
        scope.own(self, Kind.EVENT)

    @property
    def native(self) -> Any:
        """The driver's event, in pycuda's hands; not to be kept. Raises DeviceError if it was closed."""
        self._scope.require(self)
        return self._event

    @property
    def timed(self) -> bool:
        return self._timed

    def synchronize(self) -> None:
        self._scope.use(self)
        with pycuda_calls(self._native, f"waiting for an event on {self._scope.label}"):
            self._event.synchronize()

    def seconds_since(self, earlier: Event) -> float:
        self._scope.use(self)
        if not (self._timed and isinstance(earlier, PycudaEvent) and earlier.timed):
            raise DeviceError("only the time between two events made with timed=True is known")
        with pycuda_calls(self._native, f"taking the time between events on {self._scope.label}"):
            return float(self._event.time_since(native_event(earlier))) / 1000

    def close(self) -> None:
        self._scope.release(self, self._free)

    def _free(self) -> None:
        self._event = None


def native_event(event: Event) -> Any:
    """Raise DeviceError if ``event`` was closed, or is another binding's."""
    if not isinstance(event, PycudaEvent):
        raise DeviceError(f"a pycuda stream takes its own events, not {type(event).__name__}")
    return event.native
