"""Name the kind of CPU that this is. Strips that hold the arithmetic of one kind do not run on others."""

from __future__ import annotations

import contextlib
import platform
import re
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
GPU = "gpu"
"""Stands for all GPUs where an architecture is named."""

_SAME = {"amd64": "x86_64", "aarch64": "arm64"}


def architecture() -> str:
    """Return the same name on all systems: "x86_64", "arm64", or what the system calls another one."""
    name = re.sub(r"[^a-z0-9_]", "_", platform.machine().lower())[:32]
    return _SAME.get(name, name) or "unknown"


def processor_name() -> str:
    """Return the model name of the CPU, as the system reports it."""
    return cpu_info("model name") or platform.processor() or f"{platform.machine()} CPU"


def vector_instructions() -> str:
    """Return the CPU features that the arithmetic of networks depends on: ``avx2, avx512f``."""
    flags = (cpu_info("flags") or cpu_info("Features")).split()
    return ", ".join(name for name in ("avx2", "avx512f", "asimd", "sve") if name in flags)


def cpu_info(name: str) -> str:
    """Return what Linux reports about the first CPU; empty if it reports nothing."""
    with contextlib.suppress(OSError):
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return " ".join(value.split())
    return ""
