"""The device tests once more, on the driver and GPU of this machine, in a process without the emulation."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.folders import ROOT
from tests.support.gpu_driver import BINDINGS, VARIABLE

PROBE = """
from exactile.cuda.choice import chosen_devices, open_driver
from exactile.errors import DeviceError
try:
    chosen_devices(open_driver({binding!r}), "all")
except DeviceError as error:
    print(error)
"""


@pytest.mark.gpu
@pytest.mark.parametrize("binding", BINDINGS)
def test_the_device_tests_pass_on_a_real_gpu(binding):
    """Skips, with the driver's own words, only where no GPU can be opened."""
    probe = [sys.executable, "-c", PROBE.format(binding=binding)]
    reason = subprocess.run(probe, capture_output=True, text=True, check=True).stdout.strip()
    if reason:
        pytest.skip(reason)
    command = [sys.executable, "-m", "pytest", "-q", "tests/gpu/test_cuda_device.py", "-k", binding]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {VARIABLE: "real"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
