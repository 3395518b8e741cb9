"""The GPUs that TensorRT for RTX runs on. It builds for one more, and does not support those of data centres."""

from __future__ import annotations

Capability = tuple[int, int]

RTX_CAPABILITIES: tuple[Capability, ...] = ((7, 5), (8, 6), (8, 9), (12, 0), (12, 1))
"""Compute capabilities of its support matrix (of 1.5). Not among them: A100 (8.0), H100 and H200 (9.0), B200 (10.0)."""


def rtx_refusal(backend: str, capability: Capability, gpu: str = "a GPU") -> str:
    """Return why ``backend`` cannot run on ``gpu``, and what can; "" if it can."""
    if backend != "tensorrt-rtx" or capability in RTX_CAPABILITIES:
        return ""
    return (
        f"tensorrt-rtx does not run on {gpu} of compute capability {capability_text((capability,))}, but on "
        f"{capability_text(RTX_CAPABILITIES)} alone; take --engine onnxruntime (its CUDA provider, which needs no "
        "built engine), or --engine tensorrt"
    )


def capability_text(capabilities: tuple[Capability, ...]) -> str:
    """Return ``8.6, 8.9``."""
    return ", ".join(f"{major}.{minor}" for major, minor in capabilities)
