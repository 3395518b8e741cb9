"""Build and install pycuda where there is neither a CUDA toolkit nor a driver: it has no wheels.

Wanted are Python's headers and g++. CUDA's headers come from wheels, and what is linked against is a stub that carries
the name of the driver's library; which library pycuda really gets is decided when it is imported.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PYCUDA = "2026.1"
HEADERS = ("nvidia-cuda-runtime==13.0.96", "nvidia-cuda-profiler-api==13.0.85")
STUB = "int cuInit(unsigned flags) { return 100; }\n"  # the linker drops a library that defines nothing
DEFAULTS = """
CUDA_ROOT = {root!r}
CUDA_INC_DIR = [{root!r} + "/include"]
CUDADRV_LIB_DIR = [{stub!r}]
CUDA_ENABLE_CURAND = False
CXXFLAGS = ["-w", "-g0", "-O1"]
LDFLAGS = []
"""


def main(wheel_folder: Path | None) -> None:
    """Install it; or write a wheel and the source to ``wheel_folder``, for another machine."""
    if wheel_folder is None and _installed() == PYCUDA:
        return
    _check_compiler()
    sys.stdout.write(f"Building pycuda {PYCUDA} (about a minute and a half) ...\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="pycuda-") as name:
        folder = Path(name)
        root = _headers(folder / "headers")
        stub = _link_stub(folder / "stub")
        home = _home(folder / "home", DEFAULTS.format(root=str(root), stub=str(stub)))
        if wheel_folder is None:
            _build(home, "install", f"pycuda=={PYCUDA}")
        else:
            _build(home, "download", "--no-deps", "--dest", str(wheel_folder), f"pycuda=={PYCUDA}")
            _build(home, "wheel", "--no-deps", "--wheel-dir", str(wheel_folder), f"pycuda=={PYCUDA}")


def _installed() -> str | None:
    try:
        return importlib.metadata.version("pycuda")
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_compiler() -> None:
    if shutil.which("g++") is None:
        sys.exit("pycuda is built from source, and there is no g++: install a C++ compiler (Debian: g++)")
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        sys.exit(f"pycuda is built from source, and {headers} has no Python.h: install it (Debian: python3-dev)")


def _headers(folder: Path) -> Path:
    """CUDA's headers, as a toolkit's root folder."""
    _pip("install", "--no-deps", "--only-binary", ":all:", "--target", str(folder), *HEADERS)
    return next(folder.glob("nvidia/*/include/cuda.h")).parents[1]


def _link_stub(folder: Path) -> Path:
    folder.mkdir()
    source = folder / "stub.c"
    source.write_text(STUB)
    shared = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so")]
    subprocess.run(["g++", "-x", "c", str(source), *shared], check=True)
    return folder


def _home(folder: Path, defaults: str) -> Path:
    """A home folder with pycuda's settings: the only place where its build looks for them."""
    folder.mkdir()
    (folder / ".aksetup-defaults.py").write_text(defaults)
    return folder


def _build(home: Path, *command: str) -> None:
    """Nothing of this build may stay in the user's cache of wheels, and pip's own settings must still be found."""
    settings = {"HOME": str(home), "PIP_CACHE_DIR": str(home / "cache")}
    for candidate in (Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"):
        if candidate.exists() and "PIP_CONFIG_FILE" not in os.environ:
            settings["PIP_CONFIG_FILE"] = str(candidate)
    _pip(*command, "--no-binary", "pycuda", **settings)


def _pip(*arguments: str, **settings: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, check=False, env=os.environ | settings)
    if done.returncode:
        sys.exit(f"pip {' '.join(arguments)} failed")


if __name__ == "__main__":
    main(Path(sys.argv[2]) if sys.argv[1:2] == ["--wheel"] else None)
