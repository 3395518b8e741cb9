"""Which binding of the CUDA driver, and which GPUs."""

from __future__ import annotations

import os
from typing import Literal

from exactile.cuda.ordinals import DeviceChoice, device_at, parse_devices
from exactile.cuda.protocol import DeviceInfo, Driver
from exactile.errors import DeviceError, OptionError

__all__ = ["BINDINGS", "VARIABLE", "Binding", "DeviceChoice", "chosen_devices", "open_driver", "parse_devices"]

Binding = Literal["auto", "pycuda", "cuda.bindings"]
BINDINGS: tuple[Literal["pycuda", "cuda.bindings"], ...] = ("pycuda", "cuda.bindings")
"""In the order in which ``auto`` tries them."""

VARIABLE = "EXACTILE_CUDA_BINDING"
"""The environment variable that says which binding ``auto`` is."""


def open_driver(binding: Binding = "auto") -> Driver:
    """Return the CUDA driver on ``binding``; ``auto`` is the first that works.

    Raises DeviceError that says of each why not, and what to install; OptionError for a binding that does not exist.
    """
    forced = os.environ.get(VARIABLE) if binding == "auto" else None
    wanted = forced or binding
    if wanted not in ("auto", *BINDINGS):
        raise OptionError(f"{VARIABLE if forced else 'the binding'} is auto, pycuda or cuda.bindings; got {wanted!r}")
    reasons = []
    for name in BINDINGS:
        if wanted in ("auto", name):
            try:
                return _open(name)
            except DeviceError as error:
                reasons.append(f"{name}: {error}")
    raise DeviceError("no GPU can be used. " + "; ".join(reasons))


def chosen_devices(driver: Driver, choice: tuple[int, ...] | Literal["all"]) -> tuple[DeviceInfo, ...]:
    """Return the GPUs that ``choice`` names. Raises DeviceError if one is missing, or if there is none at all."""
    devices = driver.devices()
    if not devices:
        raise DeviceError(f"no GPU is visible to the driver ({driver.name}): see nvidia-smi and CUDA_VISIBLE_DEVICES")
    return devices if choice == "all" else tuple(device_at(devices, ordinal) for ordinal in choice)


def _open(name: Literal["pycuda", "cuda.bindings"]) -> Driver:
    if name == "pycuda":
        from exactile.cuda.pycuda_driver import PycudaDriver

        return PycudaDriver()
    from exactile.cuda.bindings_driver import BindingsDriver

    return BindingsDriver()
