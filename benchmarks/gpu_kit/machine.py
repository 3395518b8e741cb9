"""What a step ran on: card, driver, versions, cores, the kit, and the project's own source."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.gpu_kit.rehearsal import rehearsing
from benchmarks.harness.machine import machine, versions
from benchmarks.harness.record import revision
from benchmarks.harness.worker import ROOT

PACKAGES = (
    *("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "torch", "cuda-bindings", "pycuda", "tifffile"),
    *("imagecodecs", "nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-cuda-runtime", "cupy-cuda13x"),
)
_QUERY = "name,driver_version,memory.total,compute_cap,pci.bus_id,clocks.max.sm,power.limit"
_SOURCE = ("runtime", "converters", "benchmarks", "models", "tests")


def describe() -> dict[str, Any]:
    """Return JSON values."""
    found = {name: value for name, value in machine().items() if name != "packages"}
    return {
        "commit": revision() if shutil.which("git") else "",
        **found,
        "gpus": "none: a rehearsal on an emulated driver" if rehearsing() else nvidia_smi(_QUERY),
        "cuda_toolkit": _last_line("nvcc", "--version"),
        "packages": versions(PACKAGES),
        "source": source_digest(),
    }


def nvidia_smi(query: str) -> list[str]:
    """Return a line of comma-separated values for each GPU; none where there is no ``nvidia-smi``."""
    text = _output("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
    return [line.strip() for line in text.splitlines() if line.strip()]


def source_digest() -> str:
    """Return the first digits of a hash of all Python, C++ and CUDA files of the project: what ran, where git does not
    say.
    """
    digest = hashlib.sha256()
    for path in sorted(_source_files()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _source_files() -> list[Path]:
    kinds = {".py", ".cpp", ".hpp", ".inc", ".cu"}
    return [path for name in _SOURCE for path in (ROOT / name).rglob("*") if path.suffix in kinds]


def _last_line(*command: str) -> str:
    lines = _output(*command).strip().splitlines()
    return lines[-1] if lines else "none"


def _output(*command: str) -> str:
    """Return what the command prints; "" where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""
