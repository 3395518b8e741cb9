"""The speed of this machine: measured once, and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
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

Speeds = Annotated[float, Meta(gt=0, le=1e18)]


@cache
def machine_speed(threads: int) -> MachineSpeed:
    """Return the speed of this machine with so many ``threads``: measured earlier, or now, within a second.

    Takes ``MEASURING_BYTES`` for that long. Without a cache folder, or if it cannot be written, each process measures
    again.
    """
    path = None
    with suppress(ImportError):
        path = cache_folder() / FOLDER / f"{_key(threads)}.json"
        known = _read(path)
        if known is not None:
            return known
    found = MachineSpeed(mac_per_s=_mac_per_s(threads), touched_bytes_per_s=_touched_bytes_per_s(threads))
    if path is not None:
        with suppress(OSError, ExactileError):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, _encoded(found, threads))
    return found


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``machine`` and ``threads`` are for people: the file's name is their hash."""

    format: str
    machine: str
    threads: int
    mac_per_s: Speeds
    touched_bytes_per_s: Speeds


def _key(threads: int) -> str:
    named = f"{FORMAT} {__version__}; {machine_name()}; {threads} threads"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def _read(path: Path) -> MachineSpeed | None:
    """Return the stored speed; None if there is none, or it is damaged: it is then measured and written again."""
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            return None
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if file.format != FORMAT:
        return None
    return MachineSpeed(mac_per_s=file.mac_per_s, touched_bytes_per_s=file.touched_bytes_per_s)


def _encoded(found: MachineSpeed, threads: int) -> bytes:
    file = _File(
        format=FORMAT,
        machine=machine_name(),
        threads=threads,
        mac_per_s=found.mac_per_s,
        touched_bytes_per_s=found.touched_bytes_per_s,
    )
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def _mac_per_s(threads: int) -> float:
    """Return the rate of a few convolutions over maps that do not fit a core's cache."""
    graph = files("exactile.machine_speed").joinpath(CONVOLUTIONS).read_bytes()
    options = session_options(load_library(), CONVOLVED_PX, threads)
    session = load_library().InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    height, width = CONVOLVED_PX
    image = np.ones((1, 16, height, width), np.float32)
    session.run(None, {"x": image})  # code and memory that are used for the first time
    return height * width * CONVOLUTIONS_MAC / _fastest(lambda: session.run(None, {"x": image}))


def _touched_bytes_per_s(threads: int) -> float:
    """Return the rate of threads that each write into fresh pages."""
    share = max(1 << 20, TOUCHED_BYTES // threads)
    with ThreadPoolExecutor(threads) as pool:
        return threads * share / _fastest(lambda: list(pool.map(_touch, [share] * threads)))


def _touch(size: int) -> None:
    with mmap.mmap(-1, size) as fresh:
        pages = np.frombuffer(fresh, np.uint8)
        pages.fill(1)
        del pages


def _fastest(work: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of some turns: other work on the machine makes others slower."""
    end, found = time.perf_counter() + LONGEST_S, list[float]()
    while len(found) < TURNS and (not found or time.perf_counter() < end):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return max(min(found), 1e-9)
