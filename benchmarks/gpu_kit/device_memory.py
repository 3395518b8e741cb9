"""The most device memory that is in use, sampled.

NVML knows what all processes use of the GPU: a process of its own asks it every few milliseconds, where no lock of the
interpreter that is watched delays it. Where NVML is missing, or may not be asked, a thread asks the driver.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from benchmarks.gpu_kit.rehearsal import rehearsing
from benchmarks.harness.worker import ROOT
from exactile.cuda.choice import open_driver

EVERY_S = 0.002
READY = "ready"


class Sampler(Protocol):
    """Bytes in use on the first GPU."""

    source: str

    def peak_since_last(self) -> int:
        """Return the most since this was called last, and now."""


@contextmanager
def sampler() -> Iterator[Sampler]:
    with ExitStack() as opened:
        found = None if rehearsing() else opened.enter_context(_in_process())
        yield found if found is not None else opened.enter_context(_in_thread())


class _Peak:
    """Kept by one thread, requested by another."""

    def __init__(self, used: Callable[[], int]) -> None:
        self._used, self._lock, self._peak = used, threading.Lock(), 0

    def sample(self) -> None:
        used = self._used()
        with self._lock:
            self._peak = max(self._peak, used)

    def take(self) -> int:
        self.sample()
        with self._lock:
            peak, self._peak = self._peak, 0
        return peak


class _Thread:
    source = "driver"

    def __init__(self, peak: _Peak) -> None:
        self._peak = peak

    def peak_since_last(self) -> int:
        return self._peak.take()


@contextmanager
def _in_thread() -> Iterator[_Thread]:
    device = open_driver().open(0)
    ended = threading.Event()

    def used() -> int:
        with device.current():
            return device.info.total_bytes - device.memory.free_bytes()

    peak = _Peak(used)
    thread = _sampling(peak, ended)
    try:
        yield _Thread(peak)
    finally:
        ended.set()
        thread.join()
        device.close()


class _Process:
    source = "NVML"

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def peak_since_last(self) -> int:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return int(self._child.stdout.readline())


@contextmanager
def _in_process() -> Iterator[_Process | None]:
    """Yield a sampler in this process; None if there is none."""
    command = [sys.executable, "-m", "benchmarks.gpu_kit.device_memory"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        yield _Process(child) if child.stdout.readline().strip() == READY else None
        # Leaving closes its standard input, which ends it.


def _sampling(peak: _Peak, ended: threading.Event) -> threading.Thread:
    def sample() -> None:
        while not ended.is_set():
            peak.sample()
            time.sleep(EVERY_S)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    return thread


def main() -> None:
    """Answer each line on standard input with the peak since the last one."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    peak = _Peak(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used))
    peak.sample()
    ended = threading.Event()
    _sampling(peak, ended)
    print(READY, flush=True)
    for _line in sys.stdin:
        print(peak.take(), flush=True)
    ended.set()


if __name__ == "__main__":
    main()
