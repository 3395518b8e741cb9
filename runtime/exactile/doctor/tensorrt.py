"""Check TensorRT and TensorRT-RTX: their version, or why they cannot be imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exactile.contract.built_engine import Backend
from exactile.doctor.finding import Finding, Telling, one_line
from exactile.engines.tensorrt_library import load_tensorrt
from exactile.errors import DeviceError

GROUP = "engines"


def check_tensorrt(telling: Telling, arguments: Mapping[str, Any]) -> None:
    """Return one finding, for ``backend``."""
    backend: Backend = arguments["backend"]
    telling.doing(f"importing {backend}")
    try:
        version = load_tensorrt(backend).version
    except DeviceError as error:
        telling.found(_missing(backend, error))
        return
    facts = {"version": version}
    telling.found(Finding(group=GROUP, check=backend, status="ok", says=f"{backend} {version}.", facts=facts))


def _missing(backend: Backend, error: DeviceError) -> Finding:
    extra = "rtx" if backend == "tensorrt-rtx" else "tensorrt"
    facts = {"version": None}
    if isinstance(error.__cause__, ModuleNotFoundError):
        remedy = f"pip install 'exactile[{extra}]', if you want it."
        says = f"{backend} is not installed."
        return Finding(group=GROUP, check=backend, status="not applicable", says=says, remedy=remedy, facts=facts)
    says = f"{backend} is installed and cannot be imported ({one_line(str(error.__cause__), 300)})."
    remedy = f"reinstall it: pip install --force-reinstall 'exactile[{extra}]'."
    return Finding(group=GROUP, check=backend, status="warning", says=says, remedy=remedy, facts=facts)
