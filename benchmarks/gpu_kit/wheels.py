"""What the machine lacks: wheels for its Python, and ONNX Runtime with CUDA without what is not needed there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness.worker import ROOT
from tests.emulation.build_pycuda import PYCUDA

PYTHON = "3.12"
"""Of the machine. Wheels of our own are built by a Python of this version, which must be on this machine."""
PLATFORMS = tuple(f"manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_26", "_2_24", "_2_17", "2014"))
SMALL = (
    *("msgspec", "imagecodecs", "tifffile", "platformdirs"),
    *("zarr", "numcodecs", "donfig", "google-crc32c"),
    *("pytools", "mako"),
)
"""Not there, or of another version; of the versions that are installed here, which the tests ran with."""
ONNX_RUNTIME = "onnxruntime-gpu==1.31.1"
NOT_NEEDED = ("libonnxruntime_providers_tensorrt.so", "libonnxruntime.so")
"""Beginnings of file names: TensorRT is omitted, and Python's extension has the library in itself."""


class MissingToolError(RuntimeError):
    """The kit cannot be built on this machine; the message says what to install."""


def contents() -> dict[str, str]:
    """Return the contents of a kit that is built now."""
    return {"python": PYTHON, "wheels": ", ".join(_pinned()), "onnxruntime": ONNX_RUNTIME, "pycuda": PYCUDA}


def small_wheels(folder: Path) -> list[Path]:
    """Return wheels of ``SMALL``."""
    return download(tuple(_pinned()), folder)


def _pinned() -> list[str]:
    return [f"{name}=={version(name)}" for name in SMALL]


def download(requirements: tuple[str, ...], folder: Path) -> list[Path]:
    """Fetch wheels for the machine, without what they depend on."""
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    target = ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}", *platforms]
    _pip(sys.executable, "download", "--no-deps", *target, "--dest", str(folder), *requirements)
    return sorted(folder.glob("*.whl"))


def build_pycuda(folder: Path) -> list[Path]:
    """Return a wheel of pycuda for the machine's Python, and its source."""
    script = ROOT / "tests" / "emulation" / "build_pycuda.py"
    subprocess.run([matching_python(), str(script), "--wheel", str(folder)], check=True)
    return sorted(folder.glob("[pP]y[cC][uU][dD][aA]-*"))


def matching_python() -> str:
    """Return a Python of the machine's version: EXACTILE_GPU_KIT_PYTHON, or found. Raises MissingToolError."""
    for candidate in _candidates():
        if _version(candidate) == PYTHON:
            return candidate
    raise MissingToolError(
        f"the kit needs CPython {PYTHON}, with pip and its headers, to build pycuda for the GPU machine; "
        f"install it (Debian: python{PYTHON}-dev, pyenv: pyenv install {PYTHON}) or name it in EXACTILE_GPU_KIT_PYTHON"
    )


def unpacked_onnx_runtime(folder: Path) -> Path:
    """Return the package's folder as it lies in site-packages, without what is not needed."""
    wheels, target = folder / "wheels", folder / "onnxruntime-gpu"
    (wheel,) = download((ONNX_RUNTIME,), wheels)
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not Path(name).name.startswith(NOT_NEEDED)]
        archive.extractall(target, names)
    wheel.unlink()
    return target


def _candidates() -> Iterator[str]:
    if named := os.environ.get("EXACTILE_GPU_KIT_PYTHON"):
        yield named
    yield sys.executable
    if found := shutil.which(f"python{PYTHON}"):
        yield found
    if pyenv := shutil.which("pyenv"):
        root = Path(subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False).stdout.strip())
        yield from map(str, sorted(root.glob(f"versions/{PYTHON}.*/bin/python"), reverse=True))


def _version(python: str) -> str | None:
    """Return major and minor version; None for what does not run, such as pyenv's shims of versions that are not
    chosen.
    """
    code = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _pip(python: str, *arguments: str) -> None:
    done = subprocess.run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=False)
    if done.returncode:
        raise MissingToolError(f"pip {' '.join(arguments)} failed")
