"""ONNX Runtime keeps and uploads nothing of its own: neither a command nor a program that imports exactile."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.support import whole_nets

VARIABLE = "ORT_DISABLE_TELEMETRY"
SUPPRESS = {VARIABLE, "CI", "GITHUB_ACTIONS", "TF_BUILD", "TRAVIS", "JENKINS_URL", "CODEBUILD_BUILD_ID"}
PLAIN = "import onnxruntime as ort; ort.InferenceSession('net.onnx', providers=['CPUExecutionProvider'])"


@pytest.fixture
def python(tmp_path):
    """Run Python in an empty home folder, where nothing but our own variable could stop ONNX Runtime."""
    (tmp_path / "net.onnx").write_bytes(whole_nets.pooled())
    np.save(tmp_path / "image.npy", np.zeros((32, 32, 3), np.uint8))
    kept = {name: value for name, value in os.environ.items() if name not in SUPPRESS}

    def run(*arguments: str, **variables: str) -> list[str]:
        home = tmp_path / f"home{len(list(tmp_path.glob('home*')))}"
        home.mkdir()
        environment = {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), **variables}
        subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment, check=True, capture_output=True)
        return sorted(path.name for path in home.rglob("onnxruntime.db"))

    if run("-c", PLAIN) != ["onnxruntime.db"]:
        pytest.skip("this ONNX Runtime keeps no usage data here")
    return run


def test_a_command_keeps_no_usage_data(python):
    assert python("-m", "exactile", "run", "net.onnx", "image.npy", "-o", "labels.npy") == []


def test_a_program_that_imports_exactile_keeps_none_either(python):
    assert python("-c", f"import exactile; {PLAIN}") == []


def test_the_user_may_want_it(python):
    assert python("-c", f"import exactile; {PLAIN}", **{VARIABLE: "0"}) == ["onnxruntime.db"]
