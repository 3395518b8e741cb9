"""Builds the emulated driver from the C++ next to this file, once for all processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent
FLAGS = ("-std=c++17", "-O1", "-g1", "-w", "-fPIC", "-shared", "-pthread", "-Wl,-soname,libcuda.so.1")


class NoCompilerError(RuntimeError):
    """The emulation cannot be built here."""


def built_library() -> Path:
    """The path of ``libcuda.so.1``, built if these sources were not built yet. Raises NoCompilerError."""
    sources = sorted([*SOURCES.glob("*.hpp"), *SOURCES.glob("*.inc"), SOURCES / "libcuda.cpp"])
    content = b"\0".join([" ".join(FLAGS).encode(), *(path.read_bytes() for path in sources)])
    folder = _cache() / hashlib.sha256(content).hexdigest()[:20]
    library = folder / "libcuda.so.1"
    if not library.exists():
        _build(library)
    return library


def _cache() -> Path:
    """In the environment; or, where that is read-only, in this user's folder of temporary files."""
    wanted = Path(sys.prefix) / "emulation"
    try:
        wanted.mkdir(exist_ok=True)
    except OSError:
        wanted = Path(tempfile.gettempdir()) / f"exactile-emulation-{os.getuid()}"
        wanted.mkdir(mode=0o700, exist_ok=True)
    return wanted


def _build(library: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        raise NoCompilerError("the emulation of the CUDA driver is built by g++, and there is none")
    library.parent.mkdir(exist_ok=True)
    # Under a name of its own and then renamed: other processes see all of it or nothing.
    part = library.with_name(f"{os.getpid()}.part")
    command = [compiler, *FLAGS, "-o", part, SOURCES / "libcuda.cpp", "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"g++ failed on the emulation of the CUDA driver:\n{done.stderr[-4000:]}")
    part.replace(library)
