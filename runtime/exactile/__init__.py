"""Exact segmentation of images larger than memory.

Shape letters used throughout: H, W image or tile rows and columns; C channels; N batch (always 1 here).
Coordinates are (y, x), boxes half-open.

Public names: ``segment``, ``open_bundle``, ``Session``, ``Summary``, ``open_source``, ``open_sink``, ``ArraySource``,
``ArraySink``, ``FixedStatistics``, ``read_statistics`` and the errors.
They are loaded when first used: importing the package costs numpy and the standard library.

Importing it sets ``ORT_DISABLE_TELEMETRY=1`` in the environment, unless the variable is set: ONNX Runtime from 1.29 on
otherwise keeps usage data on disk and uploads it, from a thread of its own.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from exactile.errors import ExactileError

if TYPE_CHECKING:
    from exactile.bundle.opening import open_bundle
    from exactile.one_call import segment
    from exactile.passes.fixed import FixedStatistics, read_statistics
    from exactile.runs.summary import Summary
    from exactile.session import Session
    from exactile.sinks.array import ArraySink
    from exactile.sinks.open import open_sink
    from exactile.sources.array import ArraySource
    from exactile.sources.open import open_source

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read by ONNX Runtime once, when it is imported

__version__ = "0.1.0"
__all__ = [
    "ArraySink",
    "ArraySource",
    "ExactileError",
    "FixedStatistics",
    "Session",
    "Summary",
    "open_bundle",
    "open_sink",
    "open_source",
    "read_statistics",
    "segment",
]

_HOMES = {
    "segment": "exactile.one_call",
    "Session": "exactile.session",
    "Summary": "exactile.runs.summary",
    "ArraySink": "exactile.sinks.array",
    "open_sink": "exactile.sinks.open",
    "ArraySource": "exactile.sources.array",
    "open_source": "exactile.sources.open",
    "open_bundle": "exactile.bundle.opening",
    "FixedStatistics": "exactile.passes.fixed",
    "read_statistics": "exactile.passes.fixed",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'exactile' has no attribute {name!r}")
