"""What the rest of the runtime knows of a GPU: a few small protocols, implemented on pycuda and on cuda.bindings.

Whoever makes a thing owns it and closes it; closing twice is safe, and a device closes what was made on it and is still
open. Every call but ``Driver``'s and ``Device.current`` needs the device's context to be current in the calling thread:
``with device.current(): ...``. Asynchronous calls are methods of the stream that they go on.

Everything raises DeviceError with the driver's own words, DeviceMemoryError when memory ran out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
"""Host memory as bytes: one dimension, C-contiguous."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """A GPU as the driver describes it."""

    ordinal: int
    name: str
    compute_capability: tuple[int, int]
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Equal runs of bytes in a device buffer: ``rows`` of ``row_bytes`` each, one every ``pitch_bytes``."""

    offset_bytes: int
    rows: int
    row_bytes: int
    pitch_bytes: int


class Driver(Protocol):
    """A binding of the CUDA driver. Making one loads the library and initialises it, or raises DeviceError."""

    @property
    def name(self) -> str:
        """The binding and its version, for people."""

    @property
    def cuda_version(self) -> tuple[int, int]:
        """The newest CUDA that the driver supports."""

    def devices(self) -> tuple[DeviceInfo, ...]:
        """Return all GPUs that this process may use."""

    def open(self, ordinal: int) -> Device:
        """Return the GPU ``ordinal`` with its primary context, which libraries such as TensorRT use as well."""


class Device(Protocol):
    """One GPU and its primary context. Owns everything made on it."""

    @property
    def info(self) -> DeviceInfo: ...

    @property
    def memory(self) -> DeviceMemory:
        """Where its memory comes from."""

    def current(self) -> AbstractContextManager[None]:
        """Make the context current in this thread, until left; may be nested."""

    def stream(self) -> Stream:
        """Return a stream that does not wait for the legacy default stream."""

    def event(self, *, timed: bool = False) -> Event:
        """Return an event; only ``timed`` ones know when they happened."""

    def close(self) -> None:
        """Wait for all its work, release what is still open, then the context."""


class DeviceMemory(Protocol):
    """Memory of one device, and host memory that it copies from and to directly."""

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """Raise DeviceMemoryError."""

    def pinned(self, size_bytes: int) -> PinnedBuffer:
        """Return page-locked host memory, usable with every device. Raises DeviceMemoryError."""

    def free_bytes(self) -> int:
        """Return what the device could still give now."""


class DeviceBuffer(Protocol):
    """Memory on a device. Owned."""

    @property
    def address(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    def close(self) -> None: ...


class PinnedBuffer(Protocol):
    """Page-locked host memory. Owned: its array must not be used after ``close``."""

    @property
    def array(self) -> Bytes: ...

    def close(self) -> None: ...


class Stream(Protocol):
    """Work in order. Owned. Host arrays of copies must be pinned, and live until the copy is done."""

    @property
    def handle(self) -> int:
        """The driver's handle (CUstream), for libraries that put work on it."""

    def copy_in(self, target: DeviceBuffer, source: Bytes, window: Window | None = None) -> None:
        """Host to device: all of ``source`` to the start of ``target``, or packed rows into its ``window``."""

    def copy_out(self, target: Bytes, source: DeviceBuffer, window: Window | None = None) -> None:
        """Device to host: as many bytes as ``target`` has, or the ``window``'s rows, packed."""

    def record(self, event: Event) -> None:
        """``event`` happens when everything on this stream so far is done."""

    def wait(self, event: Event) -> None:
        """What comes on this stream from now on waits for ``event`` as recorded last."""

    def synchronize(self) -> None:
        """Wait, in this thread, until everything is done."""

    def close(self) -> None: ...


@runtime_checkable
class CapturingStream(Stream, Protocol):
    """A stream of a binding that can capture what is put on it."""

    def capture(self, work: Callable[[], Any]) -> Replay:
        """Call ``work``, which puts work on this stream alone; nothing runs, it becomes a CUDA graph."""


class Replay(Protocol):
    """A captured piece of work. Owned."""

    def launch(self, stream: Stream) -> None:
        """Put the captured work on ``stream``."""

    def close(self) -> None: ...


class Event(Protocol):
    """A point in a stream's work. Owned."""

    def synchronize(self) -> None:
        """Wait, in this thread, until it happened; at once if it was never recorded."""

    def seconds_since(self, earlier: Event) -> float:
        """Between two timed events that both happened."""

    def close(self) -> None: ...
