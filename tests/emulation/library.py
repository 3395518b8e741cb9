"""Builds the emulated driver from the C++ next to this file, once for all processes.

With the library in ``LD_PRELOAD`` any program finds a driver with two GPUs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
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
    """In the virtual environment; where there is none or it is read-only, among this user's temporary files."""
    with suppress(OSError):
        if sys.prefix != sys.base_prefix:
            folder = Path(sys.prefix) / "emulation"
            folder.mkdir(exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    folder = Path(tempfile.gettempdir()) / f"exactile-emulation-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


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
