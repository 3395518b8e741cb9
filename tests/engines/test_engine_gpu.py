"""Networks on the real GPU of this machine, in a process without the emulated driver."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.engines_on_gpu import UNAVAILABLE
from tests.support.folders import ROOT


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx", "onnxruntime"])
def test_a_real_gpu_gives_the_scores_of_the_cpu(name):
    """Skips, with the reason in full, where the library or a GPU is missing."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.engines_on_gpu", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == UNAVAILABLE:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr
