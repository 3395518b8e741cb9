"""The driver that device tests run on: the emulation, or the machine's own if EXACTILE_TEST_DRIVER is ``real``."""

from __future__ import annotations

import os

import pytest

from tests.emulation.driver import EmulatedDevice, Emulation, load

BINDINGS = ("pycuda", "cuda.bindings")
VARIABLE = "EXACTILE_TEST_DRIVER"
REAL = os.environ.get(VARIABLE) == "real"
TWO_GPUS = (EmulatedDevice(name="First", memory_bytes=1 << 26), EmulatedDevice(name="Second", memory_bytes=1 << 25))


def emulation() -> Emulation:
    """A new emulated machine of two GPUs. Skips on a real driver."""
    found = emulation_now()
    found.reset(devices=TWO_GPUS, max_delay_s=0.002)
    return found


def emulation_now() -> Emulation:
    """The emulated machine as it is. Skips on a real driver."""
    if REAL:
        pytest.skip("this is about the emulated driver")
    return load()
