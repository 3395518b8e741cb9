"""The speed of this machine: measured once, and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import math
import mmap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct

from exactile import __version__
from exactile.engines.onnx_runtime import load_library, session_options
from exactile.errors import ExactileError
from exactile.machine.cache_folder import cache_folder
from exactile.machine_speed.machine_name import machine_name
from exactile.machine_speed.speed import MachineSpeed
from exactile.sinks.files.whole_file import replace_file

FOLDER = "machine"
MOST_FILE_BYTES = 1 << 16
FORMAT = "exactile.machine-speed"

CONVOLUTIONS = "convolutions.onnx"
CONVOLUTIONS_MAC = 3 * 16 * 16 * 9 + 16
"""Multiply-accumulates of that network for a pixel: three convolutions of 16 channels, and one to one channel."""

CONVOLVED_PX = (256, 512)
TOUCHED_BYTES = 64 << 20
MEASURING_BYTES = 160 << 20
"""Most memory for measuring, which is returned: maps of 8 MiB, and pages that are touched."""

TURNS = 5
LONGEST_S = 0.5
"""Longest time of each of the two measurements, except for the last turn."""

LEAST_SHARE = 0.75
"""Least share of the processors' time, of as many as there are threads, with which a measurement is not disturbed."""

AGAIN_AFTER_S = 600.0
"""Age at which a disturbed measurement is repeated."""

Speeds = Annotated[float, Meta(gt=0, le=1e18)]


@cache
def machine_speed(threads: int) -> MachineSpeed:
    """Return the speed of this machine with so many ``threads``: measured earlier, or now, within a second.

    Takes ``MEASURING_BYTES`` for that long. Without a cache folder, or if it cannot be written, each process measures
    again. What was measured while other work took much of the processors is measured again after ``AGAIN_AFTER_S``; of
    several such measurements the fastest counts.
    """
    path, known = None, None
    with suppress(ImportError):
        path = cache_folder() / FOLDER / f"{_key(threads)}.json"
        known = _read(path)
        if known is not None and not (known.disturbed and _age_s(path) > AGAIN_AFTER_S):
            return known.speed
    found = _measured(threads, known)
    if path is not None:
        with suppress(OSError, ExactileError):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    return found.speed


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``machine`` and ``threads`` are for people: the file's name is their hash.

    ``disturbed`` marks what was measured while other work took the processors.
    """

    format: str
    machine: str
    threads: int
    mac_per_s: Speeds
    touched_bytes_per_s: Speeds
    disturbed: bool = False

    @property
    def speed(self) -> MachineSpeed:
        return MachineSpeed(mac_per_s=self.mac_per_s, touched_bytes_per_s=self.touched_bytes_per_s)


def _key(threads: int) -> str:
    named = f"{FORMAT} {__version__}; {machine_name()}; {threads} threads"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def _read(path: Path) -> _File | None:
    """Return what is stored; None if there is none, or it is damaged: it is then measured and written again."""
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            return None
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return file if file.format == FORMAT else None


def _age_s(path: Path) -> float:
    """Return seconds since the file was written; infinite if it is gone, or its time lies in the future."""
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return math.inf
    return age if age >= 0 else math.inf


def _measured(threads: int, known: _File | None) -> _File:
    """Measure now; a disturbed measurement is no slower than what is ``known``."""
    mac_per_s, share = _mac_per_s(threads)
    touched_bytes_per_s = _touched_bytes_per_s(threads)
    disturbed = share < LEAST_SHARE
    if disturbed and known is not None:
        mac_per_s = max(mac_per_s, known.mac_per_s)
        touched_bytes_per_s = max(touched_bytes_per_s, known.touched_bytes_per_s)
    return _File(
        format=FORMAT,
        machine=machine_name(),
        threads=threads,
        mac_per_s=mac_per_s,
        touched_bytes_per_s=touched_bytes_per_s,
        disturbed=disturbed,
    )


def _mac_per_s(threads: int) -> tuple[float, float]:
    """Return the rate of a few convolutions over maps that do not fit a core's cache, and the share of the processors
    that they had.
    """
    graph = files("exactile.machine_speed").joinpath(CONVOLUTIONS).read_bytes()
    options = session_options(load_library(), CONVOLVED_PX, threads)
    session = load_library().InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    height, width = CONVOLVED_PX
    image = np.ones((1, 16, height, width), np.float32)
    session.run(None, {"x": image})  # code and memory that are used for the first time
    seconds, used = _fastest(lambda: session.run(None, {"x": image}))
    return height * width * CONVOLUTIONS_MAC / seconds, used / threads


def _touched_bytes_per_s(threads: int) -> float:
    """Return the rate of threads that each write into fresh pages."""
    share = max(1 << 20, TOUCHED_BYTES // threads)
    with ThreadPoolExecutor(threads) as pool:
        return threads * share / _fastest(lambda: list(pool.map(_touch, [share] * threads)))[0]


def _touch(size: int) -> None:
    with mmap.mmap(-1, size) as fresh:
        pages = np.frombuffer(fresh, np.uint8)
        pages.fill(1)
        del pages


def _fastest(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of the fastest of some turns, as other work on the machine makes others slower; and how many
    processors this process used meanwhile.
    """
    end, found, used = time.perf_counter() + LONGEST_S, list[float](), time.process_time()
    while len(found) < TURNS and (not found or time.perf_counter() < end):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return max(min(found), 1e-9), (time.process_time() - used) / max(sum(found), 1e-9)
