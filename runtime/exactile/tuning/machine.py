"""Which machine this is, as far as speeds depend on it."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from exactile.architecture import processor_name, vector_instructions


@cache
def machine_name() -> str:
    """The processor and what computes on it: ``AMD EPYC 9554 (avx2, avx512f), 64 CPUs; onnxruntime 1.32.0``."""
    found = "unknown"
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
    return f"{processor_name()} ({vector_instructions()}), {os.cpu_count()} CPUs; onnxruntime {found}"
