"""Checks by name, and the module of each: only the process that runs a check imports it."""

from __future__ import annotations

CHECKS = {
    "packages": ("exactile.doctor.packages", "check_packages"),
    "cpu": ("exactile.doctor.on_cpu", "check_cpu"),
    "driver": ("exactile.doctor.driver", "check_driver"),
    "providers": ("exactile.doctor.providers", "check_providers"),
    "tensorrt": ("exactile.doctor.tensorrt", "check_tensorrt"),
    "onnxruntime on a GPU": ("exactile.doctor.on_gpu", "check_onnx_runtime"),
    "tensorrt on a GPU": ("exactile.doctor.on_gpu", "check_tensorrt_engine"),
    "bundle": ("exactile.doctor.bundle", "check_bundle"),
}
