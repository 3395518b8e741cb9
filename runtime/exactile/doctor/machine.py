"""Check exactile, Python, the system, the CPU, the memory. Imports nothing that could be broken."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import exactile
from exactile.doctor.cache import CHECK, cache
from exactile.doctor.finding import Finding, of_error
from exactile.engines.threads import compute_threads
from exactile.machine.architecture import processor_name, vector_instructions
from exactile.machine.memory import CGROUP_LIMITS, free_bytes
from exactile.plan.budget import format_bytes

GROUP = "machine"
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
LITTLE_MEMORY_BYTES = 1 << 30
NO_LIMIT_FROM_BYTES = 1 << 60
"""Version 1 of control groups reports a number of this size if there is no limit."""


def machine_findings() -> Iterator[Finding]:
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("system", system),
        ("cpu", cpu),
        ("memory", memory),
        (CHECK, cache),
    )
    for name, check in checks:
        try:
            yield check()
        except Exception as error:  # noqa: BLE001  # of a machine unlike all that were thought of
            yield of_error(GROUP, name, error, status="warning")


def system() -> Finding:
    facts = {
        "exactile": exactile.__version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": _system(),
        "kernel": f"{platform.system()} {platform.release()}",
        "libc": " ".join(filter(None, platform.libc_ver())) or "unknown",
        "architecture": platform.machine(),
    }
    says = (
        f"exactile {facts['exactile']} on {facts['implementation']} {facts['python']}, {facts['system']} "
        f"({facts['kernel']}, {facts['libc']}, {facts['architecture']})."
    )
    if platform.system() == "Linux":
        return Finding(group=GROUP, check="system", status="ok", says=says, facts=facts)
    remedy = "exactile is tested on Linux; run it there, or in a container or WSL, if something does not work."
    return Finding(group=GROUP, check="system", status="warning", says=says, remedy=remedy, facts=facts)


def cpu() -> Finding:
    usable, cores, quota = compute_threads(None), os.cpu_count() or 1, _quota()
    facts = {
        "model": processor_name(),
        "cores": cores,
        "usable_cores": usable,
        "quota_cores": quota,
        "vector_instructions": vector_instructions(),
    }
    vectors = f", {facts['vector_instructions']}" if facts["vector_instructions"] else ""
    says = f"{facts['model']}{vectors}; this process may use {usable} of {cores} cores."
    if quota is None or quota >= usable:
        return Finding(group=GROUP, check="cpu", status="ok", says=says, facts=facts)
    return Finding(
        group=GROUP,
        check="cpu",
        status="warning",
        says=f"{says} The container is given the time of {quota:g} cores.",
        remedy=f"run with --threads {max(1, int(quota))}: further threads only wait.",
        facts=facts,
    )


def memory() -> Finding:
    import psutil

    total, free, limit = int(psutil.virtual_memory().total), free_bytes(), _memory_limit()
    facts = {"total_bytes": total, "free_bytes": free, "container_limit_bytes": limit}
    container = "no container limit" if limit is None else f"the container's limit is {format_bytes(limit)}"
    says = f"{format_bytes(total)} of memory, {format_bytes(free)} free; {container}."
    if free >= LITTLE_MEMORY_BYTES:
        return Finding(group=GROUP, check="memory", status="ok", says=says, facts=facts)
    remedy = "end other programs or raise the limit; exactile plans smaller tiles in little memory, which is slower."
    return Finding(group=GROUP, check="memory", status="warning", says=says, remedy=remedy, facts=facts)


def _system() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"{platform.system()} {platform.version()}"


def _quota() -> float | None:
    """Return the number of cores whose time a container gets; None if there is no limit."""
    with contextlib.suppress(OSError, ValueError):
        given, period = CPU_QUOTA.read_text(encoding="ascii").split()
        return int(given) / int(period)
    return None


def _memory_limit() -> int | None:
    for path, _ in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            limit = int(path.read_text(encoding="ascii"))
            return limit if limit < NO_LIMIT_FROM_BYTES else None
    return None
