"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("numpy", "onnxruntime", "torch", "tifffile", "imagecodecs", "zarr")


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions of the installed ones of ``packages``."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, object]:
    """Return processor, cores that this process may use, memory, kernel, Python, packages."""
    from exactile.machine.architecture import processor_name  # peers' environments, which ask for versions, lack it

    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions(),
    }


def describe_machine(found: dict[str, object]) -> str:
    """Return one line of what ``machine`` found."""
    packages = ", ".join(f"{name} {number}" for name, number in dict(found["packages"]).items())
    return (
        f"{found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB; {found['system']}; "
        f"Python {found['python']}, {packages}"
    )
