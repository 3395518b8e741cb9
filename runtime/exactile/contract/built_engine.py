"""A TensorRT engine that was built for a model, as the runtime sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Backend = Literal["tensorrt", "tensorrt-rtx"]
EngineRole = Literal["tile", "first", "body", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A tensor that enters or leaves an engine; ``shape`` has -1 where it varies, ``dtype`` is numpy's name.

    Its bytes are those that the contract describes: 16-bit samples and labels are pairs of bytes, low byte first, as
    the last axis, because TensorRT has no 16-bit unsigned type.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """One serialised engine (``plan``) beside a bundle, for one fixed shape.

    ``rows`` are the image rows that it takes, (least, most): the same number but for ``last`` strips. ``columns`` are
    those of the padded tile or band; ``batch`` tiles go in together, as the first axis where it is not 1. ``level`` is
    the number of the pass that it finds statistics in, from 1 on; None for engines that give the result.
    """

    backend: Backend
    backend_version: str
    compute_capabilities: tuple[tuple[int, int], ...]
    precision: str
    role: EngineRole
    batch: int
    rows: tuple[int, int]
    columns: int
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    plan: Path
    plan_bytes: int
    plan_sha256: str
    level: int | None = None
