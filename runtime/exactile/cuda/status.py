"""A driver's failure becomes one of our errors: what was being done, the driver's own words, and what helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from exactile.errors import DeviceError, DeviceMemoryError

DRIVER_LIBRARY = "libcuda.so.1"

OUT_OF_MEMORY = "out of memory"
REMEDIES = {
    OUT_OF_MEMORY: "Use smaller tiles, or free memory that others hold (nvidia-smi shows who)",
    "no CUDA-capable device": "No GPU is visible: see nvidia-smi and CUDA_VISIBLE_DEVICES; containers need --gpus all",
    "busy or unavailable": "Another process has this GPU for itself: see nvidia-smi",
    "driver combination": "The NVIDIA driver does not fit: update it",
    "stub library": "The libcuda.so.1 found is for linking alone: take folders named stubs out of LD_LIBRARY_PATH",
    "forward compatibility": "A cuda-compat library does not suit this GPU: take it out of LD_LIBRARY_PATH, or update "
    "the driver",
    "not yet initialized": "GPUs that are linked by NVSwitch need nvidia-fabricmanager to run",
    "initialization error": "CUDA does not outlive a fork: start processes by spawn, or before CUDA is used",
    "unknown error": "If it stays after a restart of the process, the GPU or its driver needs one: see dmesg",
    "illegal memory access": "The context is lost: start the process anew",
    "launch fail": "The context is lost: start the process anew",
    "ECC error": "The GPU's memory is faulty: see nvidia-smi -q",
}
"""By a part of the driver's words."""

OF_THE_HOST = "It is of the machine's own memory: use smaller tiles, or end other programs"


@contextmanager
def pycuda_calls(native: Any, doing: str, *, on_host: bool = False) -> Iterator[None]:
    """Yield what pycuda (``native``: its module ``pycuda.driver``) raises inside becomes DeviceError or
    DeviceMemoryError.

    ``on_host``: memory that runs out is not the GPU's.
    """
    try:
        yield
    except native.Error as error:
        memory = isinstance(error, native.MemoryError)
        raise _failure(doing, str(error), memory=memory, on_host=on_host) from error


def bindings_value(native: Any, doing: str, result: tuple[Any, ...], *, on_host: bool = False) -> Any:
    """Return what a call of cuda.bindings (``native``: its module ``driver``) returned beside its status.

    ``on_host``: memory that runs out is not the GPU's. Raises DeviceError or DeviceMemoryError if the status says so.
    """
    status, *values = result
    if status != native.CUresult.CUDA_SUCCESS:
        memory = status == native.CUresult.CUDA_ERROR_OUT_OF_MEMORY
        raise _failure(doing, _words(native, status), memory=memory, on_host=on_host)
    return values[0] if values else None


def out_of_memory(error: DeviceMemoryError, free_bytes: Callable[[], int]) -> DeviceMemoryError:
    """Return ``error``, with the free memory if the driver still reports it."""
    try:
        return DeviceMemoryError(f"{error}. Free were {free_bytes():,} bytes")
    except DeviceError:
        return error


def _words(native: Any, status: Any) -> str:
    """Return the driver's description of a status, and its name."""
    found, words = native.cuGetErrorString(status)
    name = getattr(status, "name", str(status))
    return f"{words.decode()} ({name})" if found == native.CUresult.CUDA_SUCCESS and words else name


def _failure(doing: str, words: str, *, memory: bool, on_host: bool) -> DeviceError:
    remedy = next((f". {remedy}" for part, remedy in REMEDIES.items() if part in words), "")
    if memory and on_host:
        remedy = f". {OF_THE_HOST}"
    return (DeviceMemoryError if memory else DeviceError)(f"{doing} failed: {words}{remedy}")
