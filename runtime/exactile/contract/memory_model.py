"""The memory of one inference, by the shape of the tile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class BytesForShape:
    """Bytes, or elements, as a function of the tile's height and width: ``area*h*w + row*h + column*w + constant``."""

    area: float
    row: float = 0.0
    column: float = 0.0
    constant: float = 0.0

    def at(self, height: int, width: int) -> float:
        return self.area * height * width + self.row * height + self.column * width + self.constant


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryModel:
    """What one inference needs beside the process itself: the largest of ``steps`` plus the weights.

    ``elements`` are those of tensors that may be the largest; empty where they were not recorded.
    """

    weights_bytes: int
    steps: tuple[BytesForShape, ...]
    elements: tuple[BytesForShape, ...] = ()

    def activation_bytes(self, height: int, width: int) -> int:
        """Return peak bytes of all live activations for a tile of ``height`` x ``width`` input pixels."""
        return int(max(step.at(height, width) for step in self.steps))

    def largest_tensor(self, height: int, width: int) -> int:
        """No tensor has more elements at this tile shape; where they were not recorded, as many as there are bytes."""
        return int(max(count.at(height, width) for count in self.elements or self.steps))
