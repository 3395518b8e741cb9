"""What kind of CPU this is: where strips hold the arithmetic of one kind, others do not take them."""

from __future__ import annotations

import platform
import re

GPU = "gpu"
"""Stands for all GPUs where the name of an architecture is asked for."""

_SAME = {"amd64": "x86_64", "aarch64": "arm64"}


def architecture() -> str:
    """The same name on all systems: "x86_64", "arm64", or what the system calls another one."""
    name = re.sub(r"[^a-z0-9_]", "_", platform.machine().lower())[:32]
    return _SAME.get(name, name) or "unknown"
