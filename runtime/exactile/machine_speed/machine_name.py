"""Identify the machine, as far as speeds depend on it."""

from __future__ import annotations

import os
from functools import cache

from exactile.engines.onnx_runtime import load_library
from exactile.machine.architecture import processor_name, vector_instructions


@cache
def machine_name(engine: str = "") -> str:
    """Return the processor and what computes on it: ``AMD EPYC 9554 (avx2, avx512f), 64 CPUs; onnxruntime 1.32.0``.

    ``engine`` is another than ONNX Runtime, with its version.
    """
    engine = engine or f"onnxruntime {load_library().__version__}"
    return f"{processor_name()} ({vector_instructions()}), {os.cpu_count()} CPUs; {engine}"
