"""The kit on a machine without a GPU: the emulated driver, and ONNX Runtime's CPU provider in place of CUDA's.

A rehearsal shows that every step starts, finds its files and ends; nothing about a GPU follows from it.
"""

from __future__ import annotations

import os

VARIABLE = "EXACTILE_GPU_KIT_REHEARSAL"
"""Set to 1 for a rehearsal."""
MEMORY_BYTES = 2 << 30
"""Memory of the emulated GPU."""


def rehearsing() -> bool:
    return os.environ.get(VARIABLE) == "1"


def prepare_process() -> None:
    """Put the emulated driver into this process, in a rehearsal; nothing on a machine with a GPU.

    It must be called before ``pycuda.driver`` or ``cuda.bindings`` opens the driver.
    """
    if not rehearsing():
        return
    from tests.emulation.driver import load

    load().reset(devices=1, memory_bytes=MEMORY_BYTES)
