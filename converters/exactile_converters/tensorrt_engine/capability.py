"""Choose the GPUs for which an engine is built."""

from __future__ import annotations

import re
from typing import Any

from exactile.cuda.choice import open_driver
from exactile.engines.rtx_gpus import RTX_CAPABILITIES, capability_text, rtx_refusal
from exactile.engines.tensorrt_library import TensorRTLibrary
from exactile.errors import DeviceError, EngineBuildError, OptionError

Capability = tuple[int, int]
Capabilities = tuple[Capability, ...]

OLDEST_IN_COMMON = (8, 6)
"""TensorRT-RTX builds one engine for all GPUs from here on; older ones would make it slower for the others."""

_MEMBER = re.compile(r"SM(\d+)(\d)")


def resolve(library: TensorRTLibrary, asked: Capabilities | None) -> Capabilities:
    """Return the compute capabilities to build for, in order. Raises OptionError, EngineBuildError."""
    if library.backend == "tensorrt-rtx":
        return _of_rtx(library.module, asked)
    present = _present()
    if asked is not None and asked != (present,):
        raise OptionError(
            "tensorrt builds for the GPU that is in the machine, which has compute capability "
            f"{capability_text((present,))}, not for {capability_text(asked)}; leave --compute-capability out, build "
            "there, or take --engine tensorrt-rtx"
        )
    return (present,)


def member(module: Any, capability: Capability) -> Any:
    """Return TensorRT-RTX' name for it."""
    return getattr(module.ComputeCapability, f"SM{capability[0]}{capability[1]}")


def _of_rtx(module: Any, asked: Capabilities | None) -> Capabilities:
    found = (_MEMBER.fullmatch(name) for name in module.ComputeCapability.__members__)
    known = tuple(sorted((int(match[1]), int(match[2])) for match in found if match))
    if asked is None:
        runs = (capability for capability in known if capability in RTX_CAPABILITIES)
        return tuple(capability for capability in runs if capability >= OLDEST_IN_COMMON)
    for capability in asked:
        if reason := rtx_refusal("tensorrt-rtx", capability, "GPUs"):
            raise OptionError(reason)
    unknown = tuple(capability for capability in asked if capability not in known)
    if unknown:
        raise OptionError(
            f"tensorrt-rtx {module.__version__} does not build for compute capability {capability_text(unknown)}; it "
            f"knows {capability_text(known)}"
        )
    return tuple(sorted(set(asked)))


def _present() -> Capability:
    try:
        devices = open_driver().devices()
    except DeviceError as error:
        raise EngineBuildError(
            f"tensorrt builds engines on the GPU that they are for, and there is none to be used here ({error}); build "
            "there, or take --engine tensorrt-rtx, which needs none"
        ) from error
    if not devices:
        raise EngineBuildError(
            "tensorrt builds engines on the GPU that they are for, and there is none here; build there, or take "
            "--engine tensorrt-rtx, which needs none"
        )
    return devices[0].compute_capability
