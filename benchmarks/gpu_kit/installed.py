"""The kit on the machine that it was brought to: parts are checked, unpacked and kept for the steps.

Nothing but the standard library and pip, which never asks a network.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu_kit.parts import MANIFEST, SLICE_SUFFIX, Manifest, join_slices, unpack_slice
from benchmarks.harness.worker import ROOT

HOME = ROOT / "build" / "gpu-kit-installed"
SITE, RUNTIME, SLICES, SCRATCH = "site", "onnxruntime-gpu", "slices", "scratch"
"""Folders in ``HOME``: wheels; ONNX Runtime with CUDA; its slices until all are there; large files of steps."""


def receive(part: Path, home: Path = HOME) -> str:
    """Unpack a part; a sentence that says what is there now. Raises DamagedPartError, and RuntimeError from pip.

    Parts may come in any order; one that comes again replaces itself.
    """
    manifest = Manifest.load(part)
    manifest.check(part)
    home.mkdir(parents=True, exist_ok=True)
    files = [part / name for name in manifest.files]
    said = []
    if wheels := [path for path in files if path.suffix == ".whl"]:
        said.append(_install(wheels, home))
    for path in files:
        if path.name.endswith(SLICE_SUFFIX):
            (home / SLICES).mkdir(exist_ok=True)
            unpack_slice(path, home / SLICES)
            said.append(f"slice {path.name} unpacked")
    if _all_slices(home, manifest.slices):
        join_slices(_slices(home, manifest.slices), home / RUNTIME)
        for path in _slices(home, manifest.slices):
            path.unlink()
        said.append("ONNX Runtime with CUDA is there")
    (home / MANIFEST).write_text((part / MANIFEST).read_text())
    return f"part {manifest.part} of {manifest.parts}: {', '.join(said)}"


def kit(home: Path = HOME) -> dict[str, str]:
    """Return what the received kit was built from; empty before a part came."""
    return dict(Manifest.load(home).kit) if (home / MANIFEST).exists() else {}


def has_runtime(home: Path = HOME) -> bool:
    """Return whether ONNX Runtime with CUDA is there."""
    return (home / RUNTIME / "onnxruntime" / "__init__.py").exists()


def use(home: Path = HOME) -> None:
    """Let this process and those that it starts find the project and what was received, before what the machine has."""
    folders = [home / RUNTIME, home / SITE, ROOT / "runtime", ROOT / "converters", ROOT]
    paths = [str(folder) for folder in folders if folder.is_dir()]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ.setdefault("EXACTILE_CACHE_DIR", str(home / SCRATCH / "cache"))
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def _install(wheels: list[Path], home: Path) -> str:
    """Into a folder of their own: what the machine has stays as it is."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    options = ["--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", "--target", str(home / SITE)]
    done = subprocess.run([*command, *options, *map(str, wheels)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip could not install the kit's wheels:\n{done.stderr[-2000:]}")
    return f"{len(wheels)} wheels installed"


def _slices(home: Path, count: int) -> list[Path]:
    return [home / SLICES / f"{index}{SLICE_SUFFIX.removesuffix('.xz')}" for index in range(count)]


def _all_slices(home: Path, count: int) -> bool:
    return count > 0 and all(path.exists() for path in _slices(home, count))
