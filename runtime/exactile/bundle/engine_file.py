"""What the file beside an engine may say: ``engines/KEY.json``, decoded strictly, as ``contract.json`` is."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from exactile.bundle.contract_file import ContractFile
from exactile.bundle.contract_values import Count, Part, Positive, Sha256
from exactile.contract.file_names import WEIGHTS_NAME

ENGINES_FOLDER = "engines"
ENGINE_FORMAT = "exactile.engine"
ENGINE_VERSION = 1
"""Raised whenever an older runtime would misread what a newer converter writes."""

PLAN_SUFFIX, SIDECAR_SUFFIX = ".plan", ".json"

Text = Annotated[str, Meta(max_length=200)]
Version = Annotated[str, Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$")]
PlanName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,199}\.plan$", description="A file in the bundle's folder of engines"),
]
CapabilityNumber = Annotated[int, Meta(ge=0, le=999)]
Capabilities = Annotated[tuple[tuple[CapabilityNumber, CapabilityNumber], ...], Meta(max_length=64)]
Dimension = Annotated[int, Meta(ge=-1, le=1 << 31, description="-1 where it varies")]
Shape = Annotated[tuple[Dimension, ...], Meta(min_length=1, max_length=8)]
TensorName = Annotated[str, Meta(min_length=1, max_length=1000)]


class TensorPart(Part, frozen=True, kw_only=True):
    """An input or output tensor; see ``exactile.contract.built_engine.TensorSpec``."""

    shape: Shape
    dtype: Literal["uint8", "float16", "float32"]


Tensors = Annotated[dict[TensorName, TensorPart], Meta(min_length=1, max_length=1000)]


class EngineFile(Part, frozen=True, kw_only=True, omit_defaults=True):
    """All of a sidecar; see ``exactile.contract.built_engine.BuiltEngine``.

    ``onnx_sha256`` is that of the graph that TensorRT was given; ``model_sha256`` that of the bundle's own graphs and
    weights, see ``model_digest``. ``workspace_bytes`` and ``optimization_level`` are null where TensorRT chose.
    ``level`` is there for engines of passes that find statistics.
    """

    format: Literal["exactile.engine"]
    version: Literal[1]
    made_by: Text
    backend: Literal["tensorrt", "tensorrt-rtx"]
    backend_version: Version
    compute_capabilities: Capabilities
    precision: Literal["fp32", "tf32", "fp16"]
    role: Literal["tile", "first", "body", "last"]
    batch: Annotated[int, Meta(ge=1, le=1 << 16)]
    rows: tuple[Positive, Positive]
    columns: Positive
    inputs: Tensors
    outputs: Tensors
    plan: PlanName
    plan_bytes: Count
    plan_sha256: Sha256
    onnx_sha256: Sha256
    model_sha256: Sha256
    workspace_bytes: Count | None
    optimization_level: Annotated[int, Meta(ge=0, le=100)] | None
    level: Positive | None = None


def encode_engine_file(file: EngineFile) -> bytes:
    """Return a sidecar, indented, ending in a line feed."""
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def model_digest(file: ContractFile) -> str:
    """Return the SHA-256 of the names and SHA-256 of a bundle's graphs and weights: what an engine was built from."""
    names = [file.graph.file, WEIGHTS_NAME]
    if file.strips is not None:
        graphs = file.strips.graphs
        names += [graphs.first.file, graphs.body.file, graphs.last.file]
    names += [level.on_device.graph.file for level in file.levels if level.on_device is not None]
    parts = {name: file.files[name].sha256 for name in names if name in file.files}
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()
