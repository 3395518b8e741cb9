"""What the converter promises about a model, and the runtime relies on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from exactile.geometry import Geometry

OutputKind = Literal["labels", "probabilities", "raw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """The graph's input: an image tile as stored, ``(H, W, C)``, C-contiguous."""

    name: str
    dtype: str
    channels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOutput:
    """The graph's output: ``(H, W)`` for labels (``channels`` is 0), else ``(C, H, W)``."""

    name: str
    kind: OutputKind
    dtype: str
    channels: int


@dataclass(frozen=True, slots=True, order=True)
class BytesForShape:
    """Bytes as a function of the tile's height and width: ``area*h*w + row*h + column*w + constant``."""

    area: float
    row: float = 0.0
    column: float = 0.0
    constant: float = 0.0

    def at(self, height: int, width: int) -> float:
        return self.area * height * width + self.row * height + self.column * width + self.constant


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryModel:
    """What one inference needs beside the process itself: the largest of ``steps`` plus the weights."""

    weights_bytes: int
    steps: tuple[BytesForShape, ...]

    def activation_bytes(self, height: int, width: int) -> int:
        """Peak bytes of all live activations for a tile of ``height`` x ``width`` input pixels."""
        return int(max(step.at(height, width) for step in self.steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry:
    """Rows of the feature map ``of`` that each strip hands to the next: graph input ``name_in``, output ``name_out``.

    ``shape`` has None where columns are: as many as ``width * width_scale + width_constant``.
    """

    name: str
    of: str
    dtype: str
    shape: tuple[int | None, ...]
    width_scale: Fraction
    width_constant: Fraction

    def shape_at(self, width: int) -> tuple[int, ...]:
        """The shape for strips of ``width`` image columns, an accepted width."""
        columns = int(width * self.width_scale + self.width_constant)
        return tuple(columns if size is None else size for size in self.shape)

    def bytes_at(self, width: int) -> int:
        return math.prod(self.shape_at(width)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A tileable model as the runtime sees it."""

    model_name: str
    geometry: Geometry
    image: ImageInput
    result: ResultOutput
    memory: MemoryModel


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedModel:
    """A contract and the ONNX graph it speaks about; dimensions ``height`` and ``width`` are symbolic."""

    contract: Contract
    graph: bytes
