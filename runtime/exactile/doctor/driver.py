"""Check the NVIDIA driver, the bindings to it, and the GPUs that it shows."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exactile.cuda.choice import BINDINGS, VARIABLE, open_driver
from exactile.cuda.protocol import Driver
from exactile.doctor.finding import Finding, Telling, of_error, one_line, sentence
from exactile.errors import ExactileError
from exactile.plan.budget import format_bytes

GROUP = "gpu"
DRIVER, BINDING, NO_GPU = "driver", "binding", "gpus"
MODULE_VERSION = Path("/proc/driver/nvidia/version")
PCI_DEVICES = Path("/sys/bus/pci/devices")
DEVICE_NODE = Path("/dev/nvidiactl")
NVIDIA, DISPLAY = "0x10de", "0x03"
OLDEST_CUDA = (12, 0)


def check_driver(telling: Telling, _arguments: Mapping[str, Any]) -> None:
    """Return one finding for the driver, one for the bindings, one for each GPU."""
    telling.doing("asking for the version of the NVIDIA driver")
    version = driver_version()
    reasons: dict[str, str] = {}
    chosen: Driver | None = None
    forced = os.environ.get(VARIABLE)
    for name in BINDINGS:
        telling.doing(f"loading the CUDA driver by {name}")
        try:
            driver = open_driver(name)
        except ExactileError as error:
            reasons[name] = one_line(str(error).removeprefix(f"no GPU can be used. {name}: "))
            continue
        if chosen is None and forced in (None, "", "auto", name):
            chosen = driver
    telling.found(_driver(version, chosen, reasons))
    if chosen is None:
        return
    telling.found(_binding(chosen, reasons))
    telling.doing("listing the GPUs")
    try:
        devices = chosen.devices()
    except ExactileError as error:
        telling.found(of_error(GROUP, NO_GPU, error))
        return
    if not devices:
        remedy = "see nvidia-smi and CUDA_VISIBLE_DEVICES; start containers with --gpus all."
        telling.found(Finding(group=GROUP, check=NO_GPU, status="warning", says="The driver shows no GPU.",
                              remedy=remedy))  # fmt: skip
    for device in devices:
        telling.doing(f"opening cuda:{device.ordinal}")
        telling.found(_gpu(chosen, device.ordinal))


def driver_version() -> str | None:
    """Return the version of the driver, such as 570.86.10; None if it is unknown."""
    with contextlib.suppress(OSError):
        found = re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", MODULE_VERSION.read_text(encoding="ascii", errors="replace"))
        if found:
            return found[0]
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libnvidia-ml.so.1")
        text = ctypes.create_string_buffer(96)
        if library.nvmlInit_v2() == 0:
            status = library.nvmlSystemGetDriverVersion(text, len(text))
            library.nvmlShutdown()
            return text.value.decode("ascii", errors="replace") if status == 0 else None
    return None


def nvidia_hardware() -> bool:
    """Return whether a graphics card of NVIDIA is on the bus, driver or not; containers show its device
    file at most.
    """
    if DEVICE_NODE.exists():
        return True
    with contextlib.suppress(OSError):
        for device in PCI_DEVICES.iterdir():
            with contextlib.suppress(OSError):
                kind = (device / "class").read_text(encoding="ascii")
                if (device / "vendor").read_text(encoding="ascii").strip() == NVIDIA and kind.startswith(DISPLAY):
                    return True
    return False


def _driver(version: str | None, driver: Driver | None, reasons: Mapping[str, str]) -> Finding:
    facts: dict[str, Any] = {"version": version, "cuda": None, "nvidia_hardware": nvidia_hardware()}
    if driver is not None:
        facts["cuda"] = "{}.{}".format(*driver.cuda_version)
        says = f"NVIDIA driver {version or '(version unknown)'}, for CUDA up to {facts['cuda']}."
        if driver.cuda_version >= OLDEST_CUDA:
            return Finding(group=GROUP, check=DRIVER, status="ok", says=says, facts=facts)
        remedy = "update the driver: current packages are built for CUDA 12 or 13."
        return Finding(group=GROUP, check=DRIVER, status="warning", says=says, remedy=remedy, facts=facts)
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    if version is None and not facts["nvidia_hardware"]:
        return Finding(
            group=GROUP,
            check=DRIVER,
            status="not applicable",
            says="There is no NVIDIA driver, and no NVIDIA GPU was seen.",
            remedy="if there is a GPU: install its driver; start containers with --gpus all.",
            facts={**facts, "reasons": dict(reasons)},
        )
    there = f"NVIDIA driver {version}" if version else "An NVIDIA GPU is in the machine, its driver is not"
    return Finding(
        group=GROUP,
        check=DRIVER,
        status="warning",
        says=sentence(f"{there}; exactile cannot use it: {why}"),
        remedy="pip install 'exactile[gpu]'; install the driver where it is missing; containers need --gpus all.",
        facts={**facts, "reasons": dict(reasons)},
    )


def _binding(driver: Driver, reasons: Mapping[str, str]) -> Finding:
    others = "".join(f"; not {name}: {reason}" for name, reason in reasons.items())
    graphs = "can" if driver.name.startswith("cuda.bindings") else "cannot"
    return Finding(
        group=GROUP,
        check=BINDING,
        status="ok",
        says=sentence(f"{driver.name} is used by exactile, which {graphs} capture CUDA graphs{others}"),
        facts={"name": driver.name, "reasons": dict(reasons)},
    )


def _gpu(driver: Driver, ordinal: int) -> Finding:
    check = f"cuda:{ordinal}"
    try:
        device = driver.open(ordinal)
        try:
            info = device.info
            with device.current():
                free = device.memory.free_bytes()
        finally:
            device.close()
    except ExactileError as error:
        return of_error(GROUP, check, error)
    capability = "{}.{}".format(*info.compute_capability)
    return Finding(
        group=GROUP,
        check=check,
        status="ok",
        says=f"{info.name}, compute capability {capability}, {format_bytes(free)} free of "
        f"{format_bytes(info.total_bytes)}.",
        facts={
            "ordinal": ordinal,
            "name": info.name,
            "compute_capability": list(info.compute_capability),
            "free_bytes": free,
            "total_bytes": info.total_bytes,
        },
    )
