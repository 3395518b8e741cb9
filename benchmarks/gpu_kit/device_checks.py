"""The device layer on a GPU: what is installed, the project's own tests, copies, pinned memory, graphs, contexts."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_kit.rehearsal import rehearsing
from benchmarks.harness.worker import ROOT
from exactile.cuda.choice import open_driver
from exactile.cuda.protocol import CapturingStream, Device, Stream, Window

MIB = 1 << 20
NEEDED = ("msgspec", "imagecodecs", "tifffile", "numpy", "psutil", "typer", "rich", "onnx", "onnx_ir", "onnxscript")
BINDINGS = {"pycuda": "pycuda.driver", "cuda.bindings": "cuda.bindings.driver"}
REPEATS = 5


def environment(folder: Path) -> dict[str, Any]:
    """Return everything that the steps import, and where it came from."""
    rows = []
    for name in (*NEEDED, *BINDINGS.values()):
        try:
            module = importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  # each is a row
            rows.append({"module": name, "found": False, "version": "", "from": f"{type(error).__name__}: {error}"})
        else:
            place = Path(module.__file__ or "").parts[-4:]
            rows.append({"module": name, "found": True, "version": _version(name), "from": "/".join(place)})
    free = os.statvfs(folder)
    found = {"free_gib": round(free.f_bavail * free.f_frsize / 2**30, 1)}
    missing = [row["module"] for row in rows if not row["found"]]
    return {"passed": not missing, "missing": missing, **found, "rows": rows}


def device_tests(binding: str, folder: Path) -> dict[str, Any]:
    """Return the project's tests of the device layer on this driver, by one binding."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", "--maxfail=5"]
    selected = ["tests/gpu/test_cuda_device.py", "-k", binding]
    settings = {} if rehearsing() else {"EXACTILE_TEST_DRIVER": "real"}
    environment = os.environ | settings
    done = subprocess.run([*command, *selected], cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    print(done.stdout[-6000:], done.stderr[-2000:])
    lines = done.stdout.strip().splitlines()
    return {"passed": done.returncode == 0, "said": lines[-1] if lines else ""}


def bandwidths(binding: str, mib: int, folder: Path) -> dict[str, Any]:
    """Measure GB/s of copies between pinned memory and the device, whole and by rows, one way and both at once; by
    events.
    """
    rows = []
    with opened(binding) as device, ExitStack() as stack:
        size = mib * MIB
        host, back = (stack.enter_context(closing(device.memory.pinned(size))) for _ in range(2))
        near, far = (stack.enter_context(closing(device.memory.allocate(size))) for _ in range(2))
        into, out = (stack.enter_context(closing(device.stream())) for _ in range(2))
        host.array[:] = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        seconds_in = timed(device, into, lambda: into.copy_in(near, host.array))
        seconds_out = timed(device, out, lambda: out.copy_out(back.array, near))
        equal = bool(np.array_equal(host.array, back.array))
        rows += [_rate("host to device", size, seconds_in), _rate("device to host", size, seconds_out)]
        for row_bytes in (1024, 4096):
            window = Window(
                offset_bytes=64, rows=size // (2 * row_bytes), row_bytes=row_bytes, pitch_bytes=2 * row_bytes - 1
            )
            packed = back.array[: window.rows * row_bytes]
            taken = timed(device, out, lambda w=window, p=packed: out.copy_out(p, near, w))
            rows.append(_rate(f"device to host, rows of {row_bytes} bytes", packed.nbytes, taken))
        both = _both_ways(into, out, lambda: into.copy_in(far, host.array), lambda: out.copy_out(back.array, near))
        rows.append(_rate("both ways at once, sum", 2 * size, both))
    return {"passed": equal, "binding": binding, "rows": rows}


def pinned_costs(binding: str, total_mib: int, folder: Path) -> dict[str, Any]:
    """Measure milliseconds to pin and to release the same bytes in one piece, in 8 and in 64."""
    rows = []
    with opened(binding) as device:
        for pieces in (1, 8, 64):
            begin = time.perf_counter()
            buffers = [device.memory.pinned(total_mib * MIB // pieces) for _ in range(pieces)]
            pinned = time.perf_counter()
            for buffer in buffers:
                buffer.close()
            end = time.perf_counter()
            rows.append(
                {
                    "pieces": pieces,
                    "MiB": total_mib,
                    "pin ms": round(1e3 * (pinned - begin), 2),
                    "release ms": round(1e3 * (end - pinned), 2),
                }
            )
    return {"passed": True, "binding": binding, "rows": rows}


def captured_graphs(count: int, folder: Path) -> dict[str, Any]:
    """Measure ``count`` captured graphs of one copy each: device memory and host time of each, and that all replay."""
    with opened("cuda.bindings") as device, ExitStack() as stack:
        stream = stack.enter_context(closing(device.stream()))
        if not isinstance(stream, CapturingStream):
            raise TypeError("cuda.bindings has no capture")
        size = 4096
        host, back = (stack.enter_context(closing(device.memory.pinned(size * count))) for _ in range(2))
        buffer = stack.enter_context(closing(device.memory.allocate(size)))
        host.array[:] = np.random.default_rng(1).integers(0, 256, size * count, np.uint8)
        free, begin = device.memory.free_bytes(), time.perf_counter()
        replays = []
        for index in range(count):
            part = slice(index * size, (index + 1) * size)

            def work(part: slice = part) -> None:
                stream.copy_in(buffer, host.array[part])
                stream.copy_out(back.array[part], buffer)

            replays.append(stack.enter_context(closing(stream.capture(work))))
        captured = time.perf_counter()
        for replay in replays:
            replay.launch(stream)
        stream.synchronize()
        launched = time.perf_counter()
        taken = free - device.memory.free_bytes()
        equal = bool(np.array_equal(host.array, back.array))
    return {
        "passed": equal,
        "graphs": count,
        "capture_ms_each": 1e3 * (captured - begin) / count,
        "launch_us_each": 1e6 * (launched - captured) / count,
        "device_kib_each": taken / count / 1024,
    }


def many_threads(binding: str, threads: int, folder: Path) -> dict[str, Any]:
    """Check that threads that use one device at once, each with its own streams and buffers, get their
    own bytes back.
    """
    wrong: list[int] = []
    with opened(binding) as device:

        def work(number: int) -> None:
            values = np.random.default_rng(number).integers(0, 256, MIB, np.uint8)
            with device.current(), ExitStack() as stack:
                stream = stack.enter_context(closing(device.stream()))
                host = stack.enter_context(closing(device.memory.pinned(MIB)))
                buffer = stack.enter_context(closing(device.memory.allocate(MIB)))
                for _ in range(20):
                    host.array[:] = values
                    stream.copy_in(buffer, host.array)
                    stream.synchronize()
                    host.array[:] = 0
                    stream.copy_out(host.array, buffer)
                    stream.synchronize()
                    if not np.array_equal(host.array, values):
                        wrong.append(number)

        started = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    return {"passed": not wrong, "threads": threads, "wrong": wrong}


def beside_torch(binding: str, folder: Path) -> dict[str, Any]:
    """Check that results of torch are the same before, while and after a device is used in its thread."""
    import torch

    if rehearsing() or not torch.cuda.is_available():
        return {"passed": rehearsing(), "note": "torch sees no GPU"}
    values = torch.arange(1 << 20, device="cuda", dtype=torch.float32)
    before = float(values.sum())
    with opened(binding) as device, ExitStack() as stack:
        stream = stack.enter_context(closing(device.stream()))
        host = stack.enter_context(closing(device.memory.pinned(MIB)))
        buffer = stack.enter_context(closing(device.memory.allocate(MIB)))
        stream.copy_in(buffer, host.array)
        meanwhile = float((values * 2).sum())
        stream.synchronize()
    after = float(values.sum())
    torch.cuda.synchronize()
    return {"passed": before == after == meanwhile / 2, "sum": before, "torch": torch.__version__}


@contextmanager
def opened(binding: str) -> Iterator[Device]:
    """Yield the first GPU by ``binding``, current in this thread."""
    device = open_driver(binding).open(0)
    try:
        with device.current():
            yield device
    finally:
        device.close()


@contextmanager
def closing(owned: Any) -> Iterator[Any]:
    try:
        yield owned
    finally:
        owned.close()


def timed(device: Device, stream: Stream, work: Any) -> float:
    """Return seconds of ``work`` on ``stream`` by events: the median of a few."""
    found = []
    with closing(device.event(timed=True)) as begin, closing(device.event(timed=True)) as end:
        for _ in range(REPEATS):
            stream.record(begin)
            work()
            stream.record(end)
            stream.synchronize()
            found.append(end.seconds_since(begin))
    return float(np.median(found))


def _both_ways(first: Stream, second: Stream, work: Any, other: Any) -> float:
    """Return seconds by the host's clock of both streams' work, begun together: the median of a few."""
    found = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        work()
        other()
        first.synchronize()
        second.synchronize()
        found.append(time.perf_counter() - begin)
    return float(np.median(found))


def _rate(what: str, size: int, seconds: float) -> dict[str, Any]:
    return {"copy": what, "MiB": round(size / MIB, 1), "ms": 1e3 * seconds, "GB/s": size / max(seconds, 1e-9) / 1e9}


def _version(module: str) -> str:
    for name in (module, module.partition(".")[0], module.replace("_", "-"), "cuda-bindings"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""
