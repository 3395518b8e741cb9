"""Measure what of a run cannot be done by several threads at once: seconds of the interpreter, and of single-thread
stages.

Processor time, thread by thread, so that other processes do not count. Codecs, file calls and conversions of samples
release the interpreter's lock: their time is measured separately, by a stop watch around each of them. All the rest of
every thread's time is assumed to need the lock, which is slightly more than it does.
"""

from __future__ import annotations

import functools
import importlib
import os
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

LIBRARY = {
    "imagecodecs": ("jpeg8_decode", "zlib_decode", "deflate_decode", "zstd_decode", "lzw_decode", "lz4_encode",
                    "deflate_encode", "zstd_encode", "lzw_encode"),
    "numcodecs.zstd.Zstd": ("encode", "decode"),
    "numcodecs.blosc.Blosc": ("encode", "decode"),
    "exactile.sources.channel_choice": ("convert_samples",),
    "exactile.sinks.tiles.pyramid.LevelTile": ("reduce",),
    "benchmarks.scaling.free_engine.FreeEngine": ("infer",),
}  # fmt: skip
"""By module or class: what works on bytes without the lock."""

FILE_CALLS = (
    "open",
    "close",
    "read",
    "pread",
    "preadv",
    "write",
    "pwrite",
    "pwritev",
    "ftruncate",
    "replace",
    "unlink",
)
DISK_CALLS = ("fsync", "fdatasync")
"""These wait for the disk: their seconds are those of the clock."""

NETWORK = "network"
"""Threads of what stands for the network; they are left out."""

PARALLEL = "decoding in the reading thread"
STAGES = ("read", "infer", "write", "main", "event loop")
"""What one thread does alone."""


Key = tuple[str, int]
"""What was called, and the thread that called it: no other thread counts under this key."""


class SerialMeter:
    """Counts while ``counting`` is entered. Patches libraries for good: it takes a process of its own.

    Created before the code to meter, so that no object holds a function that was not patched.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = False
        self._thread_s: Counter[str] = Counter()
        self._library_s: Counter[Key] = Counter()
        self._disk_s: Counter[Key] = Counter()
        self._calls: Counter[Key] = Counter()
        self._patch()

    @contextmanager
    def counting(self) -> Iterator[None]:
        for counted in (self._library_s, self._disk_s, self._calls):
            counted.clear()
        before = _clocks()
        yield
        self._ended = True
        for thread, seconds in _clocks().items():
            self._thread_s[_stage(thread)] += seconds - before.get(thread, 0.0)

    def found(self) -> dict[str, Any]:
        """Seconds: of the interpreter, of stages that are one thread, of all threads; how often what was called."""
        library_s, disk_s = _by_name(self._library_s), _by_name(self._disk_s)
        del self._thread_s[NETWORK]
        decoding_s = library_s.pop(PARALLEL, 0.0)
        serial = {stage: self._thread_s[stage] + disk_s.get(stage, 0.0) for stage in STAGES}
        serial["read"] -= decoding_s
        serial["infer"] -= library_s.get("infer", 0.0)
        return {
            "interpreter_s": sum(self._thread_s.values()) - sum(library_s.values()),
            "serial_s": serial,
            "threads_s": dict(self._thread_s),
            "library_s": library_s,
            "calls": _by_name(self._calls),
        }

    def _add(self, thread: threading.Thread, seconds: float) -> None:
        with self._lock:
            if not self._ended:
                self._thread_s[_stage(thread)] += seconds

    def _patch(self) -> None:
        run = threading.Thread.run

        def timed(thread: threading.Thread) -> None:
            begin = time.thread_time()
            try:
                run(thread)
            finally:
                self._add(thread, time.thread_time() - begin)

        threading.Thread.run = timed  # type: ignore[method-assign]
        for owner, names in LIBRARY.items():
            with suppress(ImportError):
                self._watch(_found(owner), names, self._library)
        self._watch(os, FILE_CALLS, self._library)
        self._watch(os, DISK_CALLS, self._disk)
        self._watch(zlib, ("crc32",), self._library)
        with suppress(ImportError):
            self._watch(_found("exactile.sources.chunks.decode_pool.DecodePool"), ("for_each",), self._decoding)

    def _watch(self, owner: Any, names: tuple[str, ...], watched: Callable[[str, Callable[..., Any]], Any]) -> None:
        for name in names:
            function = getattr(owner, name, None)
            if function is not None:
                setattr(owner, name, functools.wraps(function)(watched(name, function)))

    def _library(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                key = name, threading.get_ident()
                self._library_s[key] += time.thread_time() - begin
                self._calls[key] += 1

        return call

    def _disk(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begin, busy = time.perf_counter(), time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                busy = time.thread_time() - busy
                ident = threading.get_ident()
                self._library_s[name, ident] += busy
                self._disk_s[_stage(threading.current_thread()), ident] += time.perf_counter() - begin - busy
                self._calls[name, ident] += 1

        return call

    def _decoding(self, _name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap decoding: the reading thread takes part in it, and that part is not its own."""

        def call(*arguments: Any, **options: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                self._library_s[PARALLEL, threading.get_ident()] += time.thread_time() - begin

        return call


def _by_name(counted: Counter[Key]) -> dict[str, float]:
    found: Counter[str] = Counter()
    for (name, _), count in counted.items():
        found[name] += count
    return dict(found)


def _found(owner: str) -> Any:
    """Return a module, or a class in one."""
    try:
        return importlib.import_module(owner)
    except ImportError:
        module, _, name = owner.rpartition(".")
        return getattr(importlib.import_module(module), name)


def _clocks() -> dict[threading.Thread, float]:
    """Return processor seconds of the threads that are there now."""
    return {
        thread: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None
    }


def _stage(thread: threading.Thread) -> str:
    name = thread.name
    if name.startswith("exactile-"):
        return name.removeprefix("exactile-").partition("_")[0]
    if name.startswith("zarr"):
        return "event loop"
    return "main" if thread is threading.main_thread() else "others"
