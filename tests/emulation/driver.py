"""The emulated CUDA driver, seen from a test.

``load()`` puts it into the process as ``libcuda.so.1``; call it before anything imports ``pycuda.driver`` or uses
``cuda.bindings.driver``, which then run unmodified. There is one emulated machine per process: a test begins with
``reset``, which makes everything of earlier tests void (a late clean-up of theirs does nothing).

It is an emulation: nothing about the speed or the overlap of a real GPU follows from it.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.emulation.library import built_library

MIB = 1 << 20
OUT_OF_MEMORY, LAUNCH_FAILED = 2, 719
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedDevice:
    """A GPU to be emulated."""

    name: str = "Emulated GPU"
    compute_capability: tuple[int, int] = (8, 6)
    memory_bytes: int = 256 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Something that the program under test must not do.

    ``kind`` is one of: race, freed in use, unpinned, out of bounds, use after free, wrong kind of memory, double free,
    wrong context, dead handle, call in callback.
    """

    kind: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Something that was not released; ``kind``: context, stream, event, device, pinned, graph, executable graph."""

    kind: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a stream did; ``kind``: copy_in, copy_out, copy_device, memset, compute, host. Not begun: ``start_s`` -1."""

    stream: str
    device: int
    kind: str
    label: str
    bytes: int
    submit_s: float
    start_s: float
    stop_s: float


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes in device or pinned memory: ``rows`` rows of ``row_bytes``, one every ``pitch_bytes``."""

    address: int
    row_bytes: int
    rows: int = 1
    pitch_bytes: int = 0


class EmulatedCallError(RuntimeError):
    """A call to the emulation itself returned ``status``."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the emulated driver returned {status}")
        self.status = status


class _Span(ctypes.Structure):
    _fields_ = (
        ("begin", ctypes.c_uint64),
        ("row_bytes", ctypes.c_uint64),
        ("rows", ctypes.c_uint64),
        ("pitch", ctypes.c_uint64),
        ("writes", ctypes.c_int),
    )


_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint64)


class Emulation:
    """The controls of the emulated machine of this process; get it from ``load``."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._functions: dict[int, tuple[Callable[[], Any], bool]] = {}
        self._numbers = itertools.count(1)
        self._call = _FUNCTION(self._run)  # lives as long as the process: streams may call it at any time
        self.errors: list[BaseException] = []
        """What functions on streams raised."""
        library.emu_report.restype = ctypes.c_char_p
        library.emu_enqueue.argtypes = (
            ctypes.c_void_p,
            _FUNCTION,
            ctypes.c_uint64,
            ctypes.c_char_p,
            ctypes.POINTER(_Span),
            ctypes.c_size_t,
        )
        library.emu_reset.argtypes = (ctypes.c_uint64, ctypes.c_double, ctypes.c_double)
        library.emu_add_device.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_uint64)
        library.emu_set_duration.argtypes = (ctypes.c_char_p, ctypes.c_double)
        library.emu_fail_call.argtypes = (ctypes.c_uint64, ctypes.c_char_p, ctypes.c_int)
        library.emu_fail_operation.argtypes = (ctypes.c_uint64, ctypes.c_char_p, ctypes.c_int)
        library.emu_name_stream.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        library.emu_host_access.argtypes = (ctypes.POINTER(_Span),)
        library.emu_is_capturing.argtypes = (ctypes.c_void_p,)

    def reset(
        self,
        *,
        devices: int | Sequence[EmulatedDevice] = 1,
        memory_bytes: int = 256 * MIB,
        seed: int = 0,
        max_delay_s: float = 0.0,
        durations: Mapping[str, float] | None = None,
    ) -> None:
        """A new machine. What streams still had to do is dropped; raises RuntimeError if what they do does not end.

        ``devices``: the GPUs, or how many equal ones of ``memory_bytes`` each. Operations are delayed at random before
        and (copies) in the middle by up to ``max_delay_s``, the same way for the same ``seed``; or take at least the
        seconds that ``durations`` gives for their kind, on a clock of their own that a slow host does not slow down.
        """
        ended = self._library.emu_reset(seed, max_delay_s, _PATIENCE_S)
        self._functions.clear()
        self.errors.clear()
        if isinstance(devices, int):
            devices = [EmulatedDevice(memory_bytes=memory_bytes)] * devices
        for device in devices:
            self._library.emu_add_device(device.name.encode(), *device.compute_capability, device.memory_bytes)
        for kind, seconds in (durations or {}).items():
            self._library.emu_set_duration(kind.encode(), seconds)
        if not ended:
            raise RuntimeError(f"an operation of the test before was still running after {_PATIENCE_S} s")

    def violations(self) -> list[Violation]:
        """What was done wrong since the reset, in order."""
        return [Violation(**each) for each in self._report("violations")]

    def leaks(self) -> list[Leak]:
        """What lives now, and what went down with its context."""
        return [Leak(**each) for each in self._report("leaks")]

    def context_depth(self) -> int:
        """How many contexts are on the calling thread's stack."""
        return self._library.emu_context_depth()

    def calls(self) -> dict[str, int]:
        """How often each entry of the driver was called since the reset, by its name without a version suffix."""
        return self._report("calls")

    def trace(self) -> list[Operation]:
        """What was put on streams since the reset, in that order, without records of events and waits for them."""
        return [Operation(**each) for each in self._report("trace")]

    def fail_at(self, n: int, name: str | None = None, status: int = OUT_OF_MEMORY) -> None:
        """The ``n``-th call from now (1: the next), of those to ``name`` if given, returns ``status``; 0: none does.

        A call that releases something does its work all the same. ``enqueue`` counts as ``cuLaunchKernel``.
        """
        self._library.emu_fail_call(n, (name or "").encode(), status)

    def fail_operation(self, n: int, kind: str | None = None, status: int = LAUNCH_FAILED) -> None:
        """The ``n``-th operation that begins from now on, of ``kind`` if given, breaks its context.

        As after a failing kernel every later call in that context then returns ``status``.
        """
        self._library.emu_fail_operation(n, (kind or "").encode(), status)

    def enqueue(
        self,
        stream: int,
        function: Callable[[], Any],
        *,
        reads: Iterable[Range | tuple[int, int]] = (),
        writes: Iterable[Range | tuple[int, int]] = (),
        label: str = "",
    ) -> None:
        """Put ``function`` on a stream (its CUstream) as a kernel that reads and writes the given ranges.

        A tuple is (address, bytes). On a stream that is captured it becomes part of the graph. What it raises breaks
        the context (719), and is kept in ``errors``. Raises EmulatedCallError.
        """
        spans = [*(_span(each, writes=False) for each in reads), *(_span(each, writes=True) for each in writes)]
        number = next(self._numbers)
        kept = bool(self._library.emu_is_capturing(stream))
        self._functions[number] = (function, kept)
        array = (_Span * len(spans))(*spans)
        status = self._library.emu_enqueue(stream, self._call, number, label.encode(), array, len(spans))
        if status != 0:
            del self._functions[number]
            raise EmulatedCallError(status)

    def host_read(self, what: Range | tuple[int, int]) -> None:
        """Say that the host reads pinned memory now: a copy into it that may still run is a race.

        In a function on a stream it is the stream that reads.
        """
        self._library.emu_host_access(ctypes.byref(_span(what, writes=False)))

    def host_write(self, what: Range | tuple[int, int]) -> None:
        """Say that the host writes to pinned memory now."""
        self._library.emu_host_access(ctypes.byref(_span(what, writes=True)))

    def name_stream(self, stream: int, name: str) -> None:
        """What reports and the trace call a stream, instead of "stream 3"."""
        self._library.emu_name_stream(stream, name.encode())

    def _run(self, number: int) -> int:
        function, kept = self._functions.get(number, (None, False))
        if function is None:
            return LAUNCH_FAILED
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - it would be lost in the stream's thread
            self.errors.append(error)
            return LAUNCH_FAILED
        finally:
            if not kept:
                self._functions.pop(number, None)
        return 0

    def _report(self, what: str) -> Any:
        return json.loads(self._library.emu_report(what.encode()))


def _span(what: Range | tuple[int, int], *, writes: bool) -> _Span:
    each = what if isinstance(what, Range) else Range(*what)
    return _Span(each.address, each.row_bytes, each.rows, each.pitch_bytes or each.row_bytes, int(writes))


@cache
def load() -> Emulation:
    """The emulation, loaded into this process and reset. Raises NoCompilerError."""
    emulation = Emulation(ctypes.CDLL(str(built_library()), mode=ctypes.RTLD_GLOBAL))
    emulation.reset()
    atexit.register(emulation.reset)  # no stream calls into an interpreter that is gone
    return emulation
